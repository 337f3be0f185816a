"""Sends who acts to PostgreSQL: a wrapper of each statement that may write.

The setting `auditdb.context` lasts for a transaction. It travels in front of the first statement
that may write, in the same round trip where parameters are bound on the client, as Django does by
default. It is sent again when somebody else acts, and after ROLLBACK TO SAVEPOINT, which undoes it.
In autocommit, statement and setting are one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.psycopg_any import is_psycopg3, sql

from auditdb.integrations.django.conf import covers
from auditdb.write.failure import sqlstate
from auditdb.write.scope import current_claim

# As both drivers number them.
_IDLE, _ACTIVE, _IN_ERROR = 0, 1, 3
_WORD = re.compile(r"(?>\s+|--[^\n]*|/\*.*?\*/|\()*+([a-z]+)", re.I | re.S)
_WRITES = {"insert", "update", "delete", "merge", "truncate", "copy", "call", "do", "execute"}
_READS = {"select", "with", "explain", "values"}
_ENDS = {"rollback", "abort", "commit", "end"}
# Of a statement that reads: a part that writes, or a call of a function of a schema.
_MAY_WRITE = re.compile(
    r"""(?<!for\ )(?<!key\ ) \b(?:insert|update|delete|merge|truncate)\b | \. "? \w+ "? \(""",
    re.I | re.X,
)
_CALL = re.compile(r'(\w+)"?\s*\(')
# What stands before a parenthesis and writes nothing: words of SQL, and functions that are called
# often. To take one more for a function that may write costs little.
_PURE = frozenset(
    "all and any array as avg between bit by case cast char character coalesce concat count "
    "current_timestamp date_part date_trunc decimal dense_rank distinct else except exists extract "
    "filter float from greatest having in intersect interval is join lateral least left length "
    "like limit lower ltrim materialized max min not now nullif numeric offset on or over "
    "partition rank replace right round row row_number rtrim select set similar some substring "
    "sum then time timestamp to_char trim trunc union upper using values varchar when where with "
    "within".split()
)
# A procedure that commits, and what runs in no transaction block.
_OUTSIDE = {"2D000", "25001"}


def wrap(connection: Any) -> None:
    """Let a connection send who acts, if auditdb serves its database; once."""
    if not covers(connection.alias, connection.vendor):
        return
    if not any(isinstance(wrapper, Sender) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.append(Sender())


def send_context(using: str = DEFAULT_DB_ALIAS) -> None:
    """Send who acts now, inside of `transaction.atomic()`.

    For what Django does not show to auditdb: `cursor.copy()`, `copy_expert()`, `callproc()`, and
    cursors of the driver's own connection. Every other statement is told by itself.

    Args:
        using: the alias of the database.

    Example:
        >>> with transaction.atomic(), connection.cursor() as cursor:  # doctest: +SKIP
        ...     send_context()
        ...     with cursor.copy("copy invoice from stdin") as copy:
        ...         copy.write(data)
    """
    connection = connections[using]
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, Sender):
            wrapper.send(connection)


class Sender:
    """The wrapper of one connection, which knows what is in force there."""

    def __init__(self) -> None:
        # What this transaction was sent; None after a rollback to a savepoint, when it may be
        # anything that was.
        self._in_force: str | None = ""
        self._has_sent = False

    def __call__(
        self, execute: Callable[..., Any], query: Any, params: Any, many: bool, context: Any
    ) -> Any:
        """Run a statement under who acts."""
        connection, cursor = context["connection"], context["cursor"].cursor
        raw = connection.connection
        status = self._look(raw)
        verb, may_write = _classify(query, raw)
        if verb in _ENDS:
            try:
                return execute(query, params, many, context)
            finally:
                if self._has_sent:
                    self._in_force = None
        if not may_write or status == _IN_ERROR:
            return execute(query, params, many, context)
        wanted = _wanted()
        if wanted == self._in_force:
            return execute(query, params, many, context)
        is_named = getattr(cursor, "name", None) is not None
        prefix = (
            hasattr(cursor, "mogrify")
            and not (many or is_named or _is_pipeline(raw))
            and _prefixed(_statement(raw, wanted), query)
        )

        def run(given: Any) -> Any:
            result = execute(given, params, many, context)
            if given is prefix and is_psycopg3:
                cursor.nextset()
            return result

        if connection.autocommit and status == _IDLE:
            if is_named:  # It reads, and outlives the statement.
                return execute(query, params, many, context)
            return _alone(connection, wanted, query, prefix, run)
        if prefix:
            result = run(prefix)
            self._now(wanted)
            return result
        if not (connection.autocommit and status == _ACTIVE):
            self.send(connection)
        return run(query)

    def send(self, connection: Any) -> None:
        """Send who acts, by a statement of its own, if that is not in force."""
        self._look(connection.connection)
        wanted = _wanted()
        if wanted == self._in_force:
            return
        _run(connection, _statement(connection.connection, wanted))
        self._now(wanted)

    def _look(self, raw: Any) -> int:
        status = int(raw.info.transaction_status)
        if status == _IDLE:
            self._in_force, self._has_sent = "", False
        return status

    def _now(self, setting: str) -> None:
        self._in_force, self._has_sent = setting, True


def _alone(connection: Any, wanted: str, query: Any, prefix: Any, run: Callable[[Any], Any]) -> Any:
    """Run a statement in autocommit: as one transaction with who acts."""
    try:
        if prefix:
            return run(prefix)
        _run(connection, "begin")
        try:
            _run(connection, _statement(connection.connection, wanted))
            result = run(query)
        except BaseException:
            with suppress(Exception):  # Of a connection that is lost.
                _run(connection, "rollback")
            raise
        _run(connection, "commit")
        return result
    except connection.Database.Error as error:
        if sqlstate(error) not in _OUTSIDE:
            raise
    except Exception as error:
        if sqlstate(error) not in _OUTSIDE:
            raise
    # Nothing was done. Better without who acts than not at all.
    return run(query)


def _wanted() -> str:
    claim = current_claim()
    return "" if claim is None else claim.setting


def _run(connection: Any, statement: str) -> None:
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(statement)


def _statement(raw: Any, setting: str) -> str:
    """Return SQL that sets it for the transaction, without a percent sign.

    The comment keeps wrappers of others, which look at the first word, from taking the whole for a
    statement that reads.
    """
    # What JSON escapes, no driver takes for a placeholder. The quotes are right whatever
    # standard_conforming_strings says; the client's encoding is UTF-8, as Django sets it.
    text = setting.replace("%", "\\u0025").replace("\\", "\\\\").replace("'", "''")
    if raw.info.server_version >= 180000:
        # As auditdb.drivers.psycopg.
        return f"/* auditdb */ set local auditdb.context = E'{text}'"
    return f"/* auditdb */ select pg_catalog.set_config('auditdb.context', E'{text}', true)"


def _prefixed(statement: str, query: Any) -> Any:
    # An error's LINE shows what the application wrote.
    if isinstance(query, str):
        return f"{statement};\n{query}"
    if isinstance(query, bytes):
        return f"{statement};\n".encode() + query
    if isinstance(query, sql.Composable):
        return sql.SQL(f"{statement};\n") + query
    return None


def _classify(query: Any, raw: Any) -> tuple[str, bool]:
    """Return the first word of a statement, and whether it may write."""
    if isinstance(query, bytes):
        query = query.decode("utf-8", "replace")
    elif isinstance(query, sql.Composable):
        query = query.as_string(raw)
    elif not isinstance(query, str):
        return "", True
    return _classify_text(query) if len(query) < 10_000 else _classify_text.__wrapped__(query)


@lru_cache(maxsize=512)
def _classify_text(text: str) -> tuple[str, bool]:
    found = _WORD.match(text)
    verb = found[1].lower() if found else ""
    # A word that does nothing may be the first of several statements.
    if verb in _READS or ";" in text.rstrip("; \n"):
        return verb, verb in _WRITES or _may_write(text)
    return verb, verb in _WRITES


def _may_write(text: str) -> bool:
    return _MAY_WRITE.search(text) is not None or any(
        name.lower() not in _PURE for name in _CALL.findall(text)
    )


def _is_pipeline(raw: Any) -> bool:
    return bool(getattr(raw.info, "pipeline_status", 0))
