"""psycopg2: the same blocks, by SQL alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from auditdb.errors import AuditError, from_message
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, NewEvent
from auditdb.write.failure import Attempt
from auditdb.write.scope import current_claim, in_scope
from auditdb.write.setting import READ, SET, inherit

_SAVEPOINT = "auditdb"


def check_connection(conn: object) -> None:
    """Refuse what is no connection.

    Raises:
        TypeError: with what to give.
    """
    if not isinstance(conn, psycopg2.extensions.connection):
        raise TypeError(f"conn is a {type(conn).__name__}; give a connection of psycopg2")


@contextmanager
def open_context(conn: Any, claim: Claim) -> Iterator[None]:
    """Open the block of `auditdb.context`."""
    outer = current_claim(conn)
    with _block(conn) as is_outermost:
        before = _value(conn, READ)
        sent = claim if outer is None else outer.with_inner(claim)
        _value(conn, SET, {"setting": inherit(before, sent)})
        with in_scope(claim, conn):
            yield
        if not is_outermost and conn.info.transaction_status != TRANSACTION_STATUS_INERROR:
            _value(conn, SET, {"setting": before or ""})


def record(conn: Any, event: NewEvent, claim: Claim | None) -> int:
    """Record an event, and return its id."""
    return int(_value(conn, RECORD, event.parameters(claim)) or 0)


@contextmanager
def open_attempt(conn: Any, attempt: Attempt) -> Iterator[None]:
    """Open the block of `auditdb.attempt`."""
    claim = current_claim(conn)
    before = None
    try:
        with _block(conn):
            before = _value(conn, READ)
            yield
            if attempt.success:
                record(conn, attempt.event, claim)
    except Exception as error:
        try:
            with _second(conn, attempt) as second, _block(second):
                _value(second, SET, {"setting": before or ""})
                record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


@contextmanager
def _block(conn: Any) -> Iterator[bool]:
    """Open a transaction block, inside of another a savepoint; say whether it is the outermost."""
    is_outermost = conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    begin, commit, rollback = (
        ("begin", "commit", "rollback")
        if is_outermost
        else (
            f"savepoint {_SAVEPOINT}",
            f"release savepoint {_SAVEPOINT}",
            f"rollback to savepoint {_SAVEPOINT}; release savepoint {_SAVEPOINT}",
        )
    )
    # Without autocommit the driver sends BEGIN itself, and its own methods end what it began.
    by_driver = is_outermost and not conn.autocommit
    if not by_driver:
        _run(conn, begin)
    try:
        yield is_outermost
    except BaseException:
        if not conn.closed:
            conn.rollback() if by_driver else _run(conn, rollback)
        raise
    conn.commit() if by_driver else _run(conn, commit)


def _run(conn: Any, statement: str) -> None:
    with conn.cursor() as cursor:
        cursor.execute(statement)


def _value(conn: Any, query: str, parameters: Any = None) -> Any:
    try:
        # A cursor of the connection's own class may make something else of a row.
        with conn.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchone()[0]
    except psycopg2.Error as error:
        raise _translated(error) from error


def _translated(error: Any) -> AuditError:
    diag = error.diag
    return from_message(
        diag.message_primary or str(error), diag.message_detail, diag.message_hint, error.pgcode
    )


@contextmanager
def _second(conn: Any, attempt: Attempt) -> Iterator[Any]:
    if attempt.connect is not None:
        with attempt.connect() as second:
            yield second
        return
    given = conn.info.dsn_parameters
    second = psycopg2.connect(**{"connect_timeout": "10", **given, "password": conn.info.password})
    try:
        yield second
    finally:
        second.close()
