"""The command that queries an archive: query."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditdb.cli.common import connection, print_note
from auditdb.cli.progress import progress
from auditdb.values.plain import plain, plain_json

_SHOWN = 1_000


@click.command()
@click.argument("sql")
@click.option("--archive", "url", required=True, metavar="URL",
              help="Root of the archive: a directory, s3://bucket/prefix, ...")  # fmt: skip
@click.option("--database", metavar="NAME", help="Only the archive of this database.")
@click.option("--live", is_flag=True,
              help="Include the live log of --dsn; needs the login of an auditor.")  # fmt: skip
@click.option("--format", "format_", type=click.Choice(["table", "jsonl", "csv"]), default="table")
@click.pass_context
def query(
    ctx: click.Context, sql: str, url: str, database: str | None, live: bool, format_: str
) -> None:
    """Query an archive with SQL of DuckDB.

    The table `event` has the columns of audit.event, with JSON as text, and `database`. The views
    of docs/views.md exist too, such as audit.role_change. With --live, they include the log that is
    still in the database: it is first copied to this machine, which is recorded as an event. SQL
    can read no other files, and can write none.
    """
    from auditdb.archive.open import opened, rows_of
    from auditdb.read.recorded import record_reading
    from auditdb.read.viewer import Auditor

    if not sql.strip():
        raise click.UsageError("give a query, such as 'select count(*) from event'")
    with ExitStack() as stack:
        conn = stack.enter_context(connection(ctx)) if live else None
        if conn is not None:
            record_reading(conn, Auditor(None), "viewed", {"filter": {"query": sql[:200]}})
        show = stack.enter_context(progress("events"))
        duck = stack.enter_context(
            opened(url, database=database, conn=conn, progress=show, locked=True)
        )
        names, rows = rows_of(duck, sql)
        if format_ == "csv":
            out = csv.writer(sys.stdout, lineterminator="\n")
            out.writerow(names)
            out.writerows(rows)
        elif format_ == "jsonl":
            _print_lines(names, rows)
        else:
            _print_table(names, rows)


def _print_lines(names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    for row in rows:
        click.echo(plain_json(dict(zip(names, row, strict=True))))


def _print_table(names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Print a table of the first rows only."""
    first = list(islice(rows, _SHOWN + 1))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(Text(plain(name)), overflow="fold")
    for row in first[:_SHOWN]:
        table.add_row(*("-" if value is None else plain(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    if len(first) > _SHOWN:
        print_note(f"only the first {_SHOWN} rows are shown; --format csv or jsonl prints all")
