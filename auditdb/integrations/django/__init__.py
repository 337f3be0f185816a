"""Django: who acts, in every transaction of a project, on psycopg 2 and 3; see docs/django.md."""

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.integrations.django.request import get_context, known_user
    from auditdb.integrations.django.sender import send_context
    from auditdb.integrations.django.write import attempt, record

__all__ = ["attempt", "get_context", "known_user", "record", "send_context"]

# Loaded on first use, because Django imports this package before settings can be read.
__getattr__ = door(
    __name__,
    {
        "auditdb.integrations.django.request": ["get_context", "known_user"],
        "auditdb.integrations.django.sender": ["send_context"],
        "auditdb.integrations.django.write": ["attempt", "record"],
    },
)
