"""Connections: addresses, transaction blocks, pinned settings, error translation."""
