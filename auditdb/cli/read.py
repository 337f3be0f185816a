"""The command that reads: log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from psycopg import Connection

import auditdb
from auditdb.cli.common import connection, print_note
from auditdb.cli.progress import progress
from auditdb.connection.begin import Statement, begin_with
from auditdb.errors import Refused
from auditdb.read.filters import as_moment
from auditdb.values.arguments import ACTOR_TYPES, RESULTS

NO_EVENTS = "no events that this viewer may read, or an invalid key, viewer or organisation"
_KEY_PROBLEMS = {
    "token": "the signing key is not one of this database: give what `auditdb key create` printed",
    "key retired": "the signing key is retired: give a newer one, or run `auditdb key create`",
    "clock": "the clocks of this machine and of the server differ by over an hour",
}
KEY_HELP = "File that holds the signing key. Default: the variable AUDITDB_KEY."


def read_key(file: str | None) -> str:
    """Return the signing key of a file, or of AUDITDB_KEY."""
    if file is None:
        key = os.environ.get("AUDITDB_KEY", "")
        if not key:
            raise click.UsageError(
                "no signing key: set AUDITDB_KEY, or give a file with --key-file; "
                "an operator creates a key with: auditdb key create"
            )
        return key.strip()
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"cannot read the key file {file}: {reason}") from error


@click.command()
@click.option("--viewer-id", help="The user who reads, an admin of the organisation.")
@click.option("--auditor", is_flag=True, help="Read as a member of audit_auditor, without a key.")
@click.option(
    "--organization-id", help="The organisation whose log is read. Default of auditors: all."
)
@click.option("--key-file", metavar="FILE", help=KEY_HELP)
@click.option("--action", help="Only this action, such as membership.role_changed.")
@click.option("--category", help="Only this category, such as auth.")
@click.option("--actor-id", help="Only what this actor or impersonator did.")
@click.option("--actor-type", type=click.Choice(ACTOR_TYPES))
@click.option("--target-type", help="Only what was done to this kind of object.")
@click.option("--target-id", help="Only what was done to this object.")
@click.option("--subject-id", help="Only what is about this user.")
@click.option("--result", type=click.Choice(RESULTS))
@click.option("--source", help="Only from this source: web, api, saml, ...")
@click.option("--since", metavar="TIME", help="From then on: 2026-01-31 or 2026-01-31T12:00Z.")
@click.option("--until", metavar="TIME", help="Before then.")
@click.option("--baseline", is_flag=True, help="Include rows from before the attach.")
@click.option("--archive", "archive_url", metavar="URL", help="Continue into the archive at URL.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--all", "all_", is_flag=True, help="All events, without a limit.")
@click.option("--format", "format_", type=click.Choice(["table", "jsonl", "csv"]), default="table")
@click.option("--csv-formulas", type=click.Choice(["escape", "keep"]), default="escape",
              show_default=True, help="Cells of CSV that a spreadsheet would run: after an ' or as "
              "they are.")  # fmt: skip
@click.pass_context
def log(
    ctx: click.Context,
    /,
    viewer_id: str | None,
    auditor: bool,
    organization_id: str | None,
    key_file: str | None,
    limit: int,
    all_: bool,
    format_: str,
    csv_formulas: str,
    archive_url: str | None,
    **filters: Any,
) -> None:
    """Read an organisation's log as one of its admins or owners, newest first.

    An auditor reads without a key: the log of one organisation, even a deleted one, or of all.
    Reads by an auditor are recorded as events, and so is every export as JSON lines or CSV. On a
    standby they are refused, because nothing can be recorded there. JSON lines hold every event
    exactly. A table shortens values and omits columns on a narrow terminal. Its column "how" says
    whether a trigger captured the event or a call recorded it.
    """
    if all_ and ctx.get_parameter_source("limit") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--all and --limit exclude each other")
    _check_times(**filters)
    read = _reading(viewer_id, auditor, organization_id, key_file, archive_url)
    with connection(ctx) as conn, auditdb.context(source="cli"):
        log = read(conn)
        printed = _print(log, format_, csv_formulas, None if all_ else limit, filters)
        if (
            archive_url is None
            and (all_ or printed < limit)
            and (months := _unread_months(conn, **filters))
        ):
            left = ", ".join(months)
            print_note(f"not read, because only in the archive: {left}; give --archive URL")
        if not printed:
            if not auditor:
                _refuse_invalid_key(conn, log)
            if format_ == "table":
                click.echo("no events" if auditor else NO_EVENTS, err=True)
            for note in _near_filters(conn, **filters):
                print_note(note)


def _refuse_invalid_key(conn: Connection[Any], log: auditdb.Reader) -> None:
    """Raise if nothing was read because of the signing key, which its holder may be told."""
    problem: Statement = ("select audit.viewer_problem() as problem", [])
    with begin_with(conn, "audit_reader", log.become(), problem, undo=True) as (_, rows):
        found = rows[0]["problem"]
    if found in _KEY_PROBLEMS:
        raise Refused(_KEY_PROBLEMS[found])


def _check_times(since: str | None, until: str | None, **_: Any) -> None:
    start, end = as_moment("since", since), as_moment("until", until)
    if start is not None and end is not None and start >= end:
        raise click.UsageError(f"--since {since} is not before --until {until}")


def _unread_months(
    conn: Connection[Any], since: str | None, until: str | None, **_: Any
) -> list[str]:
    """Return the months of a time range that exist only in the archive."""
    if conn.execute("select to_regprocedure('audit_private.archived_months()')").fetchone() == (
        None,
    ):
        return []
    row = conn.execute(
        "select array(select m from audit_private.archived_months(), unnest(months) as m"
        " where (%(until)s::timestamptz is null or (m || '-01 00:00Z')::timestamptz < %(until)s)"
        " and (%(since)s::timestamptz is null"
        " or (m || '-01 00:00Z')::timestamptz + interval '1 month' > %(since)s))",
        {"since": as_moment("since", since), "until": as_moment("until", until)},
    ).fetchone()
    return [] if row is None else list(row[0])


def _near_filters(
    conn: Connection[Any], action: str | None, category: str | None, source: str | None, **_: Any
) -> Iterator[str]:
    """Suggest corrections for filters that matched nothing and may be misspelt."""
    from auditdb.cli.near import SOURCES, known_actions, nearest

    actions = known_actions(conn) if action or category else frozenset()
    for what, given, known in (
        ("action", action, actions),
        ("category", category, {name.partition(".")[0] for name in actions}),
        ("source", source, SOURCES),
    ):
        if given and given not in known and (suggestion := nearest(given, known, 0.6)):
            yield f"{given!r} is no known {what}; did you mean {suggestion!r}?"


def _reading(
    viewer_id: str | None,
    auditor: bool,
    organization_id: str | None,
    key_file: str | None,
    archive_url: str | None,
) -> Callable[[Connection[Any]], auditdb.Reader]:
    """Return a function that makes the reader; refuse missing and conflicting options."""
    if auditor and (viewer_id is not None or key_file is not None):
        raise click.UsageError("--auditor reads without --viewer-id and --key-file")
    archive = None
    if archive_url is not None:
        from auditdb.archive import Archive

        archive = Archive(archive_url)
    if auditor:
        return lambda conn: auditdb.auditor(conn, organization_id=organization_id, archive=archive)
    if viewer_id is None or organization_id is None:
        missing = "--viewer-id" if viewer_id is None else "--organization-id"
        raise click.UsageError(
            f"{missing} is missing: give --viewer-id and --organization-id, or --auditor"
        )
    key = read_key(key_file)
    return lambda conn: auditdb.reader(
        conn, key=key, viewer_id=viewer_id, organization_id=organization_id, archive=archive
    )


def _print(
    log: auditdb.Reader, format_: Any, formulas: Any, limit: int | None, filters: Any
) -> int:
    if format_ != "table":
        with _counting() as count:
            return log.export(sys.stdout, format=format_, csv_formulas=formulas, limit=limit,
                              progress=count, **filters)  # fmt: skip
    from itertools import islice

    from auditdb.cli import render

    events = log.events(batch=500 if limit is None else min(limit, 500), **filters)
    return render.print_table(render.console(), islice(events, limit))


@contextmanager
def _counting() -> Iterator[Callable[[int], object] | None]:
    """Show the number of written events, unless the events go to the same terminal."""
    if sys.stdout.isatty():
        yield None
        return
    with progress("events", None) as advance:
        before = 0

        def count(written: int) -> None:
            nonlocal before
            advance(written - before)
            before = written

        yield count
