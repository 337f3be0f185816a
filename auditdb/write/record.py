"""Recorded events: what no table shows, such as a sign-in."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Unpack, overload

from auditdb.drivers import AsyncpgConnection, Psycopg2Connection, driver_of
from auditdb.write.event import EventFields, NewEvent, new_event
from auditdb.write.scope import current_claim

if TYPE_CHECKING:
    import psycopg


@overload
def record(
    conn: psycopg.Connection[Any],
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> int: ...
@overload
def record(
    conn: psycopg.AsyncConnection[Any],
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> Awaitable[int]: ...
@overload
def record(
    conn: AsyncpgConnection,
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> Awaitable[int]: ...
@overload
def record(
    conn: Psycopg2Connection,
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> int: ...
def record(
    conn: Any,
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> Any:
    """Record an event in the connection's transaction, and return its id.

    Args:
        conn: a connection of psycopg, psycopg2 or asyncpg, of an `audit_writer`; the event is
            committed with its transaction. On an asynchronous one the id is awaited.
        event: an event as the functions of `auditdb.auth` return; or an action, `category.verb`,
            such as `report.exported`, whose fields follow.
        result: `success`, `failure` or `denied`. Default: success.
        fields: `organization_id`; `target_type` and `target_id`, the object it was done to;
            `subject_id`, the user it is about; `actor_id`, who did it, with `actor_type` (`user`,
            `api_key`, `system`; by default `user`); `impersonator_id`, the administrator who acted
            as the actor; `source`, the way in; `old_values`, `new_values` and `details`, mappings.
            Who and from where come from the context if not given; `details` add to those of it.

    Raises:
        TypeError: a field is misspelt, or `conn` is no connection of these drivers.
        InvalidInput: an identifier is no string, integer or UUID; the result or the type of the
            actor is none of these.
        Refused: the action is malformed, or the login may not record.
        ConnectionFailed: the connection is lost.

    Example:
        >>> record(conn, "report.exported", target_type="report", target_id=5)  # doctest: +SKIP
        1042
        >>> record(conn, auth.login(7, organization_id=1, source="saml"))  # doctest: +SKIP
        1043
    """
    draft = new_event("record()", event, result, fields)
    return driver_of(conn).record(conn, draft, current_claim(conn))
