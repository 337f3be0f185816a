"""Detection: proposes a mapping for a database that nobody here has seen."""
