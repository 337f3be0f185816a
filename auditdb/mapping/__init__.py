"""Mappings: how rows of a table become events; kinds, names, the mapping file."""
