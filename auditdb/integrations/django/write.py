"""Recorded events and attempts, on the databases of a project."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction

from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, EventFields, NewEvent, new_event
from auditdb.write.failure import Attempt, Denied, from_wrapped
from auditdb.write.scope import current_claim


def record(
    event: NewEvent | str,
    *,
    using: str = DEFAULT_DB_ALIAS,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> int:
    """Record an event in the transaction of a database, and return its id.

    Args:
        event: an event as the functions of `auditdb.auth` return; or an action, `category.verb`,
            such as `report.exported`, whose fields follow.
        using: the alias of the database.
        result: `success`, `failure` or `denied`. Default: success.
        fields: as in `auditdb.record`.

    Raises:
        TypeError, InvalidInput, Refused, ConnectionFailed: as `auditdb.record`.

    Example:
        >>> record("report.exported", target_type="report", target_id=5)  # doctest: +SKIP
        1042
    """
    draft = new_event("record()", event, result, fields, frozenset(("using",)))
    return _record(connections[using], draft, current_claim())


@contextmanager
def attempt(
    event: NewEvent | str,
    *,
    using: str = DEFAULT_DB_ALIAS,
    denied: Denied = (),
    success: bool = False,
    **fields: Unpack[EventFields],
) -> Iterator[None]:
    """Open `transaction.atomic()` for an action, and record it if it is denied or fails.

    Such an event must outlive the rollback of its action, so it is written on a second connection,
    which is opened for it as the first was. What was raised goes on to the caller.

    Args:
        event: the event, or its action, `category.verb`, whose fields follow.
        using: the alias of the database.
        denied: exception types that mean a refusal, besides PermissionError, PostgreSQL's own, and
            PermissionDenied of Django and of Django REST framework. Others mean failure.
        success: whether a success is recorded as well, in the action's own transaction. Captured
            changes need no such event.
        fields: as in `auditdb.record`.

    Raises:
        TypeError: a field is misspelt.
        InvalidInput: a value is invalid; raised before the action begins.

    Example:
        >>> with attempt("workflow.deleted", target_id=5):  # doctest: +SKIP
        ...     Workflow.objects.get(pk=5).delete()
    """
    others = frozenset(("using", "denied", "success"))
    draft = new_event("attempt()", event, None, fields, others)
    given = Attempt(event=draft, denied=_refusals(denied), success=success)
    claim = current_claim()
    try:
        with transaction.atomic(using=using):
            yield
            if success:
                _record(connections[using], draft, claim)
    except Exception as error:
        try:
            second = connections[using].copy()
            try:
                _record(second, given.failed(error), claim)
            finally:
                second.close()
        except Exception as unrecorded:
            given.note(error, unrecorded)
        raise


def _refusals(denied: Denied) -> tuple[type[BaseException], ...]:
    given = denied if isinstance(denied, tuple) else (denied,)
    rest: Any = sys.modules.get("rest_framework.exceptions")
    ours = (PermissionDenied,) if rest is None else (PermissionDenied, rest.PermissionDenied)
    return (*given, *ours)


def _record(connection: Any, event: NewEvent, claim: Claim | None) -> int:
    try:
        with connection.cursor() as cursor:
            cursor.execute(RECORD, event.parameters(claim))
            return int(cursor.fetchone()[0])
    except Error as error:
        login = connection.get_connection_params().get("user")
        raise from_wrapped(error, login) from error
