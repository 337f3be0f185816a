"""The Django application whose models django-pghistory tracks."""
