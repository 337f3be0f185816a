"""Commands of evidence for others: prove, bundle."""

from __future__ import annotations

from pathlib import Path

import click

from auditdb.cli.common import connection, print_lines
from auditdb.cli.evidence import archive_of, needs_seal
from auditdb.cli.progress import progress
from auditdb.errors import InvalidInput
from auditdb.values.plain import counted

_OUTPUT = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE.zip",
    help="The new zip file. Its verify.py checks it: python verify.py VKEY.",
)  # fmt: skip
_ARCHIVE = click.option("--archive", "archived", metavar="URL",
                        help="Where the archive is, to include archived months.")  # fmt: skip


@click.command()
@click.argument("events", nargs=-1, required=True, type=click.IntRange(), metavar="EVENT...")
@_ARCHIVE
@_OUTPUT
@click.pass_context
def prove(ctx: click.Context, events: tuple[int, ...], archived: str | None, output: Path) -> None:
    """Write proofs that events are in the log as they were sealed.

    EVENT is the id of an event. Needs a login that holds audit_auditor. Checking the proofs does
    not need auditdb.
    """
    needs_seal()
    _refuse_existing(output)
    from auditdb.evidence.bundle import Bundler

    with connection(ctx) as conn:
        conn.autocommit = True
        count = Bundler(conn, archive_of(conn, archived)).prove(list(events), output)
    print_lines(f"{counted(count, 'event')}, with proofs, in {output}")


@click.command()
@click.option("--organization-id", required=True, metavar="ID", help="Whose events to write.")
@click.option("--since", metavar="TIME", help="Only what the log took in then or later.")
@click.option("--until", metavar="TIME", help="Only what the log took in before then.")
@_ARCHIVE
@_OUTPUT
@click.pass_context
def bundle(
    ctx: click.Context, organization_id: str, since: str | None, until: str | None,
    archived: str | None, output: Path,
) -> None:  # fmt: skip
    """Write all events of an organisation, with a proof that none is missing, for an auditor.

    The file shows nothing of other organisations. Needs a login that holds audit_auditor. Checking
    the file does not need auditdb.
    """
    needs_seal()
    _refuse_existing(output)
    from auditdb.evidence.bundle import Bundler

    with connection(ctx) as conn, progress("events") as advance:
        conn.autocommit = True
        count = Bundler(conn, archive_of(conn, archived)).bundle(
            organization_id, output, since=since, until=until, progress=advance
        )
    print_lines(f"{counted(count, 'event')} of {organization_id}, with proofs, in {output}")


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise InvalidInput(f"{output} already exists; remove it, or give --output another path")
