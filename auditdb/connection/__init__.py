"""Connections: addresses, transaction blocks, the pin of names, errors translated."""
