"""Detection: proposes a mapping file for an unknown database."""
