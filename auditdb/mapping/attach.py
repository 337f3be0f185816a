"""Attaches tables and detaches them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import InvalidSchemaName, LockNotAvailable, UndefinedTable
from psycopg.rows import scalar_row, tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import Refused
from auditdb.values.arguments import unknown_argument


def attach(
    conn: psycopg.Connection[Any], table: str, kind: str, **options: str | Sequence[str] | None
) -> None:
    """Capture every change of a table from now on, or change how its rows map to events.

    Args:
        conn: a connection of the table's owner, who holds `audit_operator`; its transaction.
        table: its name as PostgreSQL writes it, such as `public."Membership"`.
        kind: one of docs/kinds.md such as `membership`, one that `define_kind` defined, or a word
            of your own such as `invoice`, which gives `invoice.created`, `.updated`, `.deleted`.
        options: the options of `audit.attach`: `organization`, `target_id`, `subject`, `role`,
            `alive`, `admin`, `parent`, `email`, `password`, `two_factor`, `token` (each a column or
            an SQL expression over the row `r`), `ignore` and `redact` (names of columns).

    Raises:
        TypeError: an option is misspelt.
        Refused: no such table, kind or column, or no option of this kind; an expression that
            fails; no privilege.

    Example:
        >>> attach(conn, "invoice", "invoice", ignore=["updated_at"])  # doctest: +SKIP
    """
    from auditdb.mapping.file import OPTIONS

    for name in options.keys() - set(OPTIONS):
        raise unknown_argument("attach()", name, OPTIONS, {"organisation": "organization"})
    named = sql.SQL("").join(
        sql.SQL(", {} => {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name, value in options.items()
        if value is not None
    )
    # A savepoint, so that a refused table does not end the caller's transaction.
    query = sql.SQL("select audit.attach({}::pg_catalog.regclass, {}{})").format(
        sql.Placeholder("table"), sql.Placeholder("kind"), named
    )
    values = {name: _as_list(value) for name, value in options.items()}
    _run(conn, query, {**values, "table": table, "kind": kind})


def define_kind(
    conn: psycopg.Connection[Any],
    name: str,
    description: str | None = None,
    *,
    verbs: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
    target_type: str | None = None,
    subject: str | None = None,
    options: Sequence[str] | None = None,
) -> None:
    """Define your own kind: the names of rows and actions in events.

    Args:
        conn: a connection that holds `audit_operator`; its transaction.
        name: what `attach` is told: lower case, digits and underscores, at most 40 characters.
        description: what a row is, in a sentence.
        verbs: the actions of rows that are `created`, `updated`, `deleted`, and of rows that do not
            count (`alive`) and are inserted, `prepared`, or deleted, `purged`, where `""` means no
            event; by default `<name>.created` and so on.
        facts: columns whose update is an event of its own, and its action.
        target_type: what events are about; by default the name.
        subject: whom they are about where the mapping does not say: `"column"`, whom a column such
            as `user_id` names; `"row"`, the row itself; by default nobody.
        options: those of `attach` that the kind understands; by default all but those of users and
            memberships.

    Raises:
        Refused: it is invalid, or auditdb's own; no privilege.

    Example:
        >>> define_kind(conn, "invoice", verbs={"created": "invoice.issued"},
        ...     facts={"status": "invoice.status_changed"})  # doctest: +SKIP
    """
    values = {
        "name": name, "description": description, "verbs": Jsonb(dict(verbs or {})),
        "facts": Jsonb(dict(facts or {})), "target_type": target_type, "subject": subject,
        "options": None if options is None else list(options),
    }  # fmt: skip
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(key), sql.Placeholder(key)) for key in values
    )
    _run(conn, sql.SQL("select audit.define_kind({})").format(named), values)


def read_context_from(conn: psycopg.Connection[Any], settings: Sequence[str]) -> list[str]:
    """Set which settings of other tools name the actor if no context is set.

    Args:
        conn: a connection that holds `audit_operator`; its transaction.
        settings: their names; the first one with a value counts. An empty list ends it.

    Returns:
        The former list of settings.

    Raises:
        Refused: a setting that is not known; no privilege.

    Example:
        >>> read_context_from(conn, ["request.jwt.claims"])  # doctest: +SKIP
    """
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        query = "select audit.read_context_from(%s::pg_catalog.text[])"
        return list(cursor.execute(query, (list(settings),)).fetchone() or ())


def detach(conn: psycopg.Connection[Any], table: str) -> None:
    """Stop capturing a table; its events stay in the log.

    Args:
        conn: a connection of the table's owner, who holds `audit_operator`; its transaction.
        table: its name as PostgreSQL writes it.

    Raises:
        Refused: no such table, or it is not attached.

    Example:
        >>> detach(conn, "invoice")  # doctest: +SKIP
    """
    _run(conn, sql.SQL("select audit.detach(%(table)s::pg_catalog.regclass)"), {"table": table})


def _as_list(value: str | Sequence[str] | None) -> str | list[str] | None:
    return value if value is None or isinstance(value, str) else list(value)


def _run(
    conn: psycopg.Connection[Any], query: sql.SQL | sql.Composed, values: dict[str, Any]
) -> None:
    check_connection(conn, is_async=False)
    table = values.get("table")
    try:
        with raises_audit_errors(conn, "audit_operator"), conn.transaction():
            psycopg.Cursor(conn).execute(query, values)
    except Refused as error:
        if table is not None:
            raise_if_missing(conn, table, error)
            found = busy(table, error.__cause__)
            if found is not None:
                raise found from error.__cause__
        raise


def busy(table: str, error: BaseException | None) -> Refused | None:
    """Return the error for a lock timeout, with a hint; None for other errors."""
    if not isinstance(error, LockNotAvailable):
        return None
    if "pg_advisory_xact_lock" in (error.diag.context or ""):
        return Refused(f"{table}: another attach, detach or install is at work; try again")
    return Refused(f"{table} is busy: another transaction uses it; try again")


def raise_if_missing(conn: psycopg.Connection[Any], name: str, error: Refused) -> None:
    """Raise an error if there is no table of this name, with the nearest name."""
    if not isinstance(error.__cause__, UndefinedTable | InvalidSchemaName):
        return
    # Every name except the user's has its schema.
    query = "select pg_catalog.to_regclass(%s) is null"
    with conn.transaction():
        row = psycopg.Cursor(conn, row_factory=tuple_row).execute(query, (name,)).fetchone()
    if row == (True,):
        raise no_table(conn, name) from error.__cause__


_NAMES = """
select format('%I.%I', table_schema, table_name) from information_schema.tables
where table_schema not in ('pg_catalog', 'information_schema', 'audit', 'audit_private')
"""


def no_table(conn: psycopg.Connection[Any], wanted: str) -> Refused:
    """Return the error that there is no such table, with the nearest name."""
    with pinned(conn):
        names = psycopg.Cursor(conn, row_factory=scalar_row).execute(_NAMES).fetchall()
    whole = {name.replace('"', "").lower(): name for name in names}
    bare = {name.partition(".")[2]: whole[name] for name in whole}
    name = wanted.replace('"', "").lower()
    text = f"there is no table {wanted}"
    if name in bare:
        return Refused(f"{text} in the search_path; did you mean {bare[name]}?")
    # Compare names without the schema, which is similar in all of them.
    close = difflib.get_close_matches(name.rpartition(".")[2], bare, 1, 0.8)
    return Refused(f"{text}; did you mean {bare[close[0]]}?" if close else text)
