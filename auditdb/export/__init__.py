"""Export: every committed event, once and in order, to where the security team reads it."""
