"""Evidence: what was sealed cannot be changed unnoticed; docs/evidence.md says how."""
