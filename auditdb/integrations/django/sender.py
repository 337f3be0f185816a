"""Sends the actor to PostgreSQL: an execute wrapper for each statement that may write.

The setting `auditdb.context` lasts for a transaction. It is sent in front of the first statement
that may write. With client-side binding of parameters, the default of Django, that needs no extra
round trip. It is sent again after the actor changed, and after ROLLBACK TO SAVEPOINT, which undoes
it. In autocommit, statement and setting are one transaction.
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

# The numbers are the same in both drivers.
_IDLE, _ACTIVE, _IN_ERROR = 0, 1, 3
_WORD = re.compile(r"(?>\s+|--[^\n]*|/\*.*?\*/|\()*+([a-z]+)", re.I | re.S)
_WRITES = {"insert", "update", "delete", "merge", "truncate", "copy", "call", "do", "execute"}
_READS = {"select", "with", "explain", "values"}
_ENDS = {"rollback", "abort", "commit", "end"}
# A part of a SELECT that may write: a writing keyword, or a function with a schema.
_MAY_WRITE = re.compile(
    r"""(?<!for\ )(?<!key\ ) \b(?:insert|update|delete|merge|truncate)\b | \. "? \w+ "? \(""",
    re.I | re.X,
)
_CALL = re.compile(r'(\w+)"?\s*\(')
# Words before a parenthesis that write nothing: SQL keywords and common functions. If one is
# missing here, the only cost is an extra setting.
_PURE = frozenset(
    "all and any array as avg between bit by case cast char character coalesce concat count "
    "current_timestamp date_part date_trunc decimal dense_rank distinct else except exists extract "
    "filter float from greatest having in intersect interval is join lateral least left length "
    "like limit lower ltrim materialized max min not now nullif numeric offset on or over "
    "partition rank replace right round row row_number rtrim select set similar some substring "
    "sum then time timestamp to_char trim trunc union upper using values varchar when where with "
    "within".split()
)
# Procedures, which may commit, and statements that cannot run in a transaction block.
_OUTSIDE = {"2D000", "25001"}


def wrap(connection: Any) -> None:
    """Install the wrapper on a connection, once, if auditdb applies to its database."""
    if not covers(connection.alias, connection.vendor):
        return
    if not any(isinstance(wrapper, Sender) for wrapper in connection.execute_wrappers):
        connection.execute_wrappers.append(Sender())


def send_context(using: str = DEFAULT_DB_ALIAS) -> None:
    """Send the actor now, inside `transaction.atomic()`.

    Needed only for calls that Django does not show to auditdb: `cursor.copy()`, `copy_expert()`,
    `callproc()`, and cursors of the driver's own connection.

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
    """The wrapper of one connection. It knows the setting in force there."""

    def __init__(self) -> None:
        # The setting sent in this transaction. None means unknown, after a rollback to a savepoint.
        self._in_force: str | None = ""
        self._has_sent = False

    def __call__(
        self, execute: Callable[..., Any], query: Any, params: Any, many: bool, context: Any
    ) -> Any:
        """Run a statement with the actor set."""
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
        """Send the actor in a separate statement, if it is not in force."""
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
    """Run a statement in autocommit, in one transaction with the setting."""
    try:
        if prefix:
            return run(prefix)
        _run(connection, "begin")
        try:
            _run(connection, _statement(connection.connection, wanted))
            result = run(query)
        except BaseException:
            with suppress(Exception):  # The connection is lost.
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
    # Nothing was done yet, so run the statement again without an actor.
    return run(query)


def _wanted() -> str:
    claim = current_claim()
    return "" if claim is None else claim.setting


def _run(connection: Any, statement: str) -> None:
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(statement)


def _statement(raw: Any, setting: str) -> str:
    """Return SQL that sets it for the transaction, without a percent sign.

    The comment in front matters for other wrappers that look at the first word: they must not take
    the whole for a statement that only reads.
    """
    # Percent signs are escaped in JSON, so that no driver sees a placeholder. The E'' quotes are
    # right for any standard_conforming_strings. Django sets the client encoding to UTF-8.
    text = setting.replace("%", "\\u0025").replace("\\", "\\\\").replace("'", "''")
    if raw.info.server_version >= 180000:
        # The same choice as in auditdb.drivers.psycopg.
        return f"/* auditdb */ set local auditdb.context = E'{text}'"
    return f"/* auditdb */ select pg_catalog.set_config('auditdb.context', E'{text}', true)"


def _prefixed(statement: str, query: Any) -> Any:
    # On a new line, so that LINE in an error shows the statement of the application.
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
    # A harmless word may be the first of several statements.
    if verb in _READS or ";" in text.rstrip("; \n"):
        return verb, verb in _WRITES or _may_write(text)
    return verb, verb in _WRITES


def _may_write(text: str) -> bool:
    return _MAY_WRITE.search(text) is not None or any(
        name.lower() not in _PURE for name in _CALL.findall(text)
    )


def _is_pipeline(raw: Any) -> bool:
    return bool(getattr(raw.info, "pipeline_status", 0))
