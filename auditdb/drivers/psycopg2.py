"""psycopg2: the same blocks, with plain SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from typing import Any

import psycopg2
from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    connection,
    cursor,
)

from auditdb.errors import InvalidInput, from_message, lacks_character
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, NewEvent
from auditdb.write.failure import Attempt
from auditdb.write.scope import claim_within, current_claim, in_scope
from auditdb.write.setting import ENTER_INNER, READ, RESTORE, SET

# Nested savepoints may share a name: PostgreSQL uses the innermost one.
_SAVEPOINT = "auditdb"


def check_connection(conn: object) -> None:
    """Refuse an object that is not a connection.

    Raises:
        TypeError: the message says what to give.
    """
    if not isinstance(conn, connection):
        raise TypeError(
            f"conn is a {type(conn).__name__}; give a connection of psycopg2, such as one of "
            "pool.getconn()"
        )
    if conn.async_:
        raise TypeError("conn is an asynchronous connection of psycopg2; give a plain one")


@contextmanager
def open_context(conn: Any, claim: Claim) -> Iterator[None]:
    """Open the block of `auditdb.context`."""
    sent = claim_within(conn, claim)
    with _block(conn) as is_outermost:
        before = None
        if not is_outermost or _value(conn, SET, {"setting": sent.setting}) is None:
            before = _value(conn, ENTER_INNER, sent.parameters())
        with in_scope(claim, conn):
            yield
        if not is_outermost and conn.info.transaction_status != TRANSACTION_STATUS_INERROR:
            _run(conn, RESTORE, {"before": before})


def record(conn: Any, event: NewEvent, claim: Claim | None) -> int:
    """Record an event, and return its id."""
    return int(_value(conn, RECORD, event.parameters(claim)) or 0)


@contextmanager
def open_attempt(conn: Any, attempt: Attempt) -> Iterator[None]:
    """Open the block of `auditdb.attempt`."""
    claim = current_claim(conn)
    before = None
    # Read now, because a lost connection no longer has its address.
    connect = attempt.connect or _connect_like(conn)
    try:
        with _block(conn):
            before = _value(conn, READ)
            yield
            if attempt.success:
                record(conn, attempt.event, claim)
    except Exception as error:
        try:
            with connect() as second, _block(second):
                _run(second, RESTORE, {"before": before})
                record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


@contextmanager
def _block(conn: Any) -> Iterator[bool]:
    """Open a transaction block or a savepoint; yield whether it is the outermost block."""
    is_outermost = conn.info.transaction_status == TRANSACTION_STATUS_IDLE
    # Without autocommit the driver sends BEGIN itself, and its methods end the transaction.
    commit: Callable[[], object] = conn.commit
    rollback: Callable[[], object] = conn.rollback
    if not is_outermost:
        _value(conn, f"savepoint {_SAVEPOINT}")
        commit = partial(_run, conn, f"release savepoint {_SAVEPOINT}")
        undo = f"rollback to savepoint {_SAVEPOINT}; release savepoint {_SAVEPOINT}"
        rollback = partial(_run, conn, undo)
    elif conn.autocommit:
        _value(conn, "begin")
        commit, rollback = partial(_run, conn, "commit"), partial(_run, conn, "rollback")
    try:
        yield is_outermost
    except BaseException:
        # Raise the first error, not that of a rollback on a lost connection.
        with suppress(psycopg2.Error):
            rollback()
        raise
    commit()


def _run(conn: Any, statement: str, parameters: Any = None) -> Any:
    """Run a statement, and return the first value of its first row."""
    # A cursor_factory of the connection may return another type of row.
    with cursor(conn) as plain:
        plain.execute(statement, parameters)
        row = plain.fetchone() if plain.description else None
        return row and row[0]


def _value(conn: Any, statement: str, parameters: Any = None) -> Any:
    """Return the value of a statement of auditdb, and translate its errors."""
    if conn.closed:
        raise from_message("the connection is closed", None, None, None)
    try:
        return _run(conn, statement, parameters)
    except psycopg2.Error as error:
        # A closed connection no longer has its user.
        user = None if conn.closed else conn.info.user
        message = error.diag.message_primary or str(error) or type(error).__name__
        hint, detail = error.diag.message_hint, error.diag.message_detail
        raise from_message(message, detail, hint, error.pgcode, user) from error
    except UnicodeEncodeError as error:
        raise lacks_character(error) from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def _connect_like(conn: Any) -> Callable[[], AbstractContextManager[Any]]:
    if conn.closed:
        raise from_message("the connection is closed", None, None, None)
    password = conn.info.password
    given = {"connect_timeout": "10", **conn.info.dsn_parameters}
    return lambda: closing(psycopg2.connect(**given, password=password))
