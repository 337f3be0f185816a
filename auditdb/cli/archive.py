"""Commands of the archive: archive, restore."""

from __future__ import annotations

from dataclasses import asdict

import click

from auditdb.cli.common import connection, print_json, print_lines
from auditdb.cli.progress import progress
from auditdb.values.plain import counted


@click.command()
@click.option("--to", "url", metavar="URL",
              help="Where the files go: a directory, or s3://bucket/prefix.")  # fmt: skip
@click.option("--keep", metavar="INTERVAL",
              help="Drop archived months older than this, such as 6months.")  # fmt: skip
@click.option("--database", metavar="NAME",
              help="Name of this database in the archive. Default: its own name.")  # fmt: skip
@click.option("--restored", is_flag=True, help="With --keep: also drop restored months.")
@click.option("--status", is_flag=True, help="Only show the state of each month.")
@click.option("--json", "json_", is_flag=True, help="With --status: print JSON.")
@click.pass_context
def archive(
    ctx: click.Context, url: str | None, keep: str | None, database: str | None, restored: bool,
    status: bool, json_: bool,
) -> None:  # fmt: skip
    """Write complete past months to Parquet files, one file a month, and verify them.

    With --keep, older months are dropped from the database. A month is dropped only after its file
    was read back and holds the same events. Pending erasures in the archive are done too. The
    command may be repeated, and killed at any time. It exits with 1 if a month failed. Needs a
    login that holds audit_auditor and audit_operator.
    """
    from auditdb.archive.months import list_months
    from auditdb.archive.place import Place
    from auditdb.archive.run import Archiver

    if json_ and not status:
        raise click.UsageError("--json goes with --status")
    if restored and keep is None:
        raise click.UsageError("--restored goes with --keep")
    if status:
        with connection(ctx) as conn:
            months = list_months(conn)
        if json_:
            print_json([{**asdict(month), "month": month.name} for month in months])
            return
        for month in months:
            print_lines("  ".join((
                month.name, f"{month.state:8}", f"{counted(month.events or 0, 'event'):>17}",
                f"{counted(month.bytes or 0, 'byte'):>19}",
                "sealed" if month.is_sealed else "not sealed",
                *([f"restored {month.restored_at:%Y-%m-%d}"] if month.restored_at else []),
                *([f"erasures that wait: {month.erasures}"] if month.erasures else []),
            )))  # fmt: skip
        print_lines(f"at {months[0].place}, as database={months[0].database}" if months
                    else "no month is archived yet")  # fmt: skip
        return
    if url is None:
        raise click.UsageError("give the place of the archive: --to")
    with connection(ctx) as conn:
        conn.autocommit = True
        with progress("events") as advance:
            archiver = Archiver(conn, Place(url), database, advance)
            for line in archiver.run(keep, restored):
                print_lines(line)
    if archiver.problems:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("month")
@click.option("--archive", "url", metavar="URL", required=True, help="Where the archive is.")
@click.pass_context
def restore(ctx: click.Context, month: str, url: str) -> None:
    """Bring an archived month, such as 2026-01, back into the database.

    The month holds the same events as before, under the same ids. It stays until auditdb archive
    --keep TIME --restored drops it. Needs a login that holds audit_auditor and audit_operator.
    """
    from auditdb.archive.place import Place
    from auditdb.archive.restoring import restore as bring_back

    with connection(ctx) as conn:
        conn.autocommit = True
        with progress("events") as advance:
            events = bring_back(conn, month, Place(url), advance)
    print_lines(f"restored {month}: {counted(events, 'event')}")
