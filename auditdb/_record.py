"""Recorded events: what no table shows, such as a sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString, TypedDict, Unpack

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import scalar_row

from auditdb._claim import check_actor_type, default_actor_type
from auditdb.connection.begin import Statement
from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.errors import InvalidInput
from auditdb.values.arguments import ALIASES, RESULTS, unknown_argument
from auditdb.values.convert import Id, as_json, as_text

# Each name says its schema: the session's search_path is the application's.
# Where neither the call nor the context names an actor, it is the default one, if there is one.
_RECORD: LiteralString = """
select audit.record_event(
    action => %(action)s,
    organization_id => %(organization_id)s,
    target_type => %(target_type)s,
    target_id => %(target_id)s,
    subject_id => %(subject_id)s,
    result => %(result)s,
    actor_id => coalesce(%(actor_id)s, c operator(pg_catalog.->>) 'actor_id',
        case when coalesce(c operator(pg_catalog.->>) 'actor_type', 'user')
            operator(pg_catalog.=) 'user' then %(default_actor)s end),
    actor_type => coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type',
        %(default_type)s),
    impersonator_id => %(impersonator_id)s,
    source => %(source)s,
    old_values => %(old_values)s,
    new_values => %(new_values)s,
    details => %(details)s)
from audit.current_context() as c
"""


class Fields(TypedDict, total=False):
    """What an event says besides its action and its result."""

    organization_id: Id | None
    target_type: str | None
    target_id: Id | None
    subject_id: Id | None
    actor_id: Id | None
    actor_type: str | None
    impersonator_id: Id | None
    source: str | None
    old_values: Mapping[str, Any] | None
    new_values: Mapping[str, Any] | None
    details: Mapping[str, Any] | None


def record(
    conn: Connection[Any], action: str, *, result: str = "success", **fields: Unpack[Fields]
) -> int:
    """Record an event in the connection's transaction, and return its id.

    Args:
        conn: a connection of an `audit_writer`; the event is committed with its transaction.
        action: `category.verb`, such as `auth.login`.
        result: `success`, `failure` or `denied`.
        fields: `organization_id`; `target_type` and `target_id`, the object it was done to;
            `subject_id`, the user it is about; `actor_id`, who did it, with `actor_type` (`user`,
            `api_key`, `system`; by default `user`); `impersonator_id`, the administrator who acted
            as the actor; `source`, the way in; `old_values`, `new_values` and `details`, mappings.
            Who and from where come from the context if not given; `details` add to those of it.

    Raises:
        TypeError: a field is misspelt.
        InvalidInput: an identifier is no string, integer or UUID; the result or the type of the
            actor is none of these.
        Refused: the action is malformed, or the login may not record.
        ConnectionFailed: the connection is lost.

    Example:
        >>> record(conn, "report.exported", target_type="report", target_id=5)  # doctest: +SKIP
        1042
    """
    return send_event(conn, call_statement("record()", action, result, fields))


async def record_async(
    conn: AsyncConnection[Any], action: str, *, result: str = "success", **fields: Unpack[Fields]
) -> int:
    """Record an event as `record` does.

    Example:
        >>> await record_async(conn, "report.exported", target_id=5)  # doctest: +SKIP
        1042
    """
    return await send_event_async(conn, call_statement("record_async()", action, result, fields))


def send_event(conn: Connection[Any], query: Statement) -> int:
    """Record what `event_statement` returned, and return the event's id."""
    check_connection(conn, is_async=False)
    with raises_audit_errors(conn, "audit_writer"):
        row = psycopg.Cursor(conn, row_factory=scalar_row).execute(*query).fetchone()
    return int(row or 0)


async def send_event_async(conn: AsyncConnection[Any], query: Statement) -> int:
    """Record as `send_event` does."""
    check_connection(conn, is_async=True)
    with raises_audit_errors(conn, "audit_writer"):
        cursor = await psycopg.AsyncCursor(conn, row_factory=scalar_row).execute(*query)
        row = await cursor.fetchone()
    return int(row or 0)


def call_statement(function: str, action: str, result: str, fields: Fields) -> Statement:
    """Return the statement of a call, or refuse a misspelt argument with the one that was meant."""
    for name in fields.keys() - Fields.__annotations__.keys():
        own = {"denied", "connect", "success"} if "attempt" in function else {"result"}
        raise unknown_argument(function, name, own | Fields.__annotations__.keys(), ALIASES)
    return event_statement(action, result, **fields)


def event_statement(
    action: str,
    result: str,
    *,
    default_actor: Id | None = None,
    default_type: str | None = None,
    organization_id: Id | None = None,
    target_type: str | None = None,
    target_id: Id | None = None,
    subject_id: Id | None = None,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    old_values: Mapping[str, Any] | None = None,
    new_values: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Statement:
    """Return the call of `audit.record_event`; the default actor acts where nobody else does."""
    if result not in RESULTS:
        raise InvalidInput(f"result is {result!r}; it is one of {', '.join(RESULTS)}")
    check_actor_type(actor_type)
    texts: dict[str, Id | None] = {
        "action": action,
        "result": result,
        "default_actor": default_actor,
        "default_type": default_type,
        "organization_id": organization_id,
        "target_type": target_type,
        "target_id": target_id,
        "subject_id": subject_id,
        "actor_id": actor_id,
        "actor_type": actor_type or default_actor_type(actor_id),
        "impersonator_id": impersonator_id,
        "source": source,
    }
    return _RECORD, {
        **{name: as_text(name, value) for name, value in texts.items()},
        "old_values": as_json(old_values),
        "new_values": as_json(new_values),
        "details": as_json(details),
    }
