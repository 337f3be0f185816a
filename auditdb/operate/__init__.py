"""Operation: install, maintain, status, keys, doctor."""
