"""A small Django project, which keeps an audit log."""
