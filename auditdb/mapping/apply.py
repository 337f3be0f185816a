"""A mapping file applied: checked as a whole, then done table by table in short transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.errors import AuditError, ConnectionFailed, Refused
from auditdb.mapping.attach import busy, define_kind, read_context_from
from auditdb.mapping.file import ContextMapping, KindMapping, Mappings
from auditdb.mapping.plan import Change, Step, name_table, steps

# Attempts to lock a busy table: before the other tables are done, and after.
_FIRST, _LAST = 2, 20
_LEFT_ALONE = ("unchanged", "unlisted")


def apply(
    conn: psycopg.Connection[Any],
    mappings: Mappings,
    *,
    prune: bool = False,
    done: Callable[[Change], object] | None = None,
) -> list[Change]:
    """Define the kinds of a mapping file and attach its tables; if one is invalid, none.

    First all tables are checked, without locks. Then each table is attached in its own transaction,
    so that writers wait only for their own table, and only while its triggers are created.
    Unchanged tables are not touched. After an interruption, each table is either attached or not;
    run it again to continue. Inside the caller's transaction it is all or nothing, and locks last
    until its end.

    Args:
        conn: a connection of the tables' owner, who holds `audit_operator`.
        mappings: what `load` returned.
        prune: detach tables that are attached and not in the file. By default they stay attached.
        done: called with each change as soon as it is in force.

    Returns:
        The changes, in the form of `plan`.

    Raises:
        Refused: no such table, kind, option or column; an expression that fails; no privilege:
            then nothing was done. Or a table was refused or busy after all: the message says
            which, the others are done.
        InvalidInput: two names for one table.
    """
    check_connection(conn, is_async=False)
    tell = done or (lambda change: None)
    if conn.info.transaction_status != TransactionStatus.IDLE:
        with raises_audit_errors(conn, "audit_operator"), conn.transaction():
            todo = steps(conn, mappings, prune=prune)
            for step in todo:
                _carry_out(conn, step, _LAST)
                tell(step.change)
    else:
        todo = steps(conn, mappings, prune=prune)
        _Run(conn, tell).all(todo)
    return [step.change for step in todo]


class _Run:
    """Carries out steps, each in its own transaction, and counts them."""

    def __init__(self, conn: psycopg.Connection[Any], tell: Callable[[Change], object]) -> None:
        self._conn, self._tell = conn, tell
        self._done = 0
        self._failed: list[str] = []

    def all(self, todo: Sequence[Step]) -> None:
        busy: list[Step] = []
        work = [step for step in todo if step.change.verb not in _LEFT_ALONE]
        try:
            for step in todo:
                if not self._try(step, _FIRST, is_last=False):
                    busy.append(step)
            for step in busy:
                self._try(step, _LAST, is_last=True)
        except ConnectionFailed as error:
            raise ConnectionFailed(self._with_progress(error, len(work))) from error
        except KeyboardInterrupt as error:
            if not work:
                raise
            raise KeyboardInterrupt(self._with_progress("interrupted", len(work))) from error
        if self._failed:
            raise Refused(self._with_progress("; ".join(self._failed), len(work)))

    def _try(self, step: Step, attempts: int, *, is_last: bool) -> bool:
        """Carry out one step; return false if it should be retried later."""
        try:
            _carry_out(self._conn, step, attempts)
        except ConnectionFailed:
            raise
        except AuditError as error:
            if isinstance(error.__cause__, LockNotAvailable) and not is_last:
                return False
            self._failed.append(str(error))
            return True
        self._done += step.change.verb not in _LEFT_ALONE
        self._tell(step.change)
        return True

    def _with_progress(self, what: object, work: int) -> str:
        """Return the error with the number of finished changes."""
        if work == 1:
            return str(what)
        return f"{what}. {self._done} of {work} changes are done; run it again to continue"


def _carry_out(conn: psycopg.Connection[Any], step: Step, attempts: int) -> None:
    """Carry out one change, in its own transaction or savepoint."""
    change, mapping = step.change, step.mapping
    if change.verb in _LEFT_ALONE:
        return
    if isinstance(mapping, KindMapping):
        define_kind(conn, mapping.name, **mapping.arguments)
        return
    if isinstance(mapping, ContextMapping):
        read_context_from(conn, mapping.settings)
        return
    if mapping is None:
        if change.verb == "forget":
            _call(conn, change.name, _FORGET, ())
        else:
            _call(conn, change.name, _DETACH, (step.oid,))
        return
    for relation in step.policies:
        _call(conn, change.name, _OPEN, (relation,))
    given = Jsonb(dict(mapping.options))
    _call(conn, change.name, _ATTACH, (step.oid, mapping.kind, given, attempts))


# These run outside of the pin, so every name has its schema.
_DETACH = "select audit.detach(%s::pg_catalog.oid::pg_catalog.regclass)"
_FORGET = "select audit_private.forget_gone()"
_OPEN = "select audit_private.open_rows(%s::pg_catalog.oid::pg_catalog.regclass)"
_ATTACH = "select audit_private.attach_given(%s::pg_catalog.oid::pg_catalog.regclass, %s, %s, %s)"


def _call(conn: psycopg.Connection[Any], name: str, query: str, values: Sequence[Any]) -> None:
    is_own = conn.info.transaction_status == TransactionStatus.IDLE
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        try:
            if is_own:
                psycopg.Cursor(conn).execute("select audit_private.end_with_client()")
            psycopg.Cursor(conn).execute(query.encode(), values)
        except psycopg.Error as error:
            raise busy(name, error) or name_table(error, name) from error
