"""Values: input is checked and secrets removed; output is escaped."""
