"""Commands of the operator: install, uninstall, sql, demo, status, key, maintain, doctor."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click

import auditdb
from auditdb.cli.common import connection, print_json, print_lines
from auditdb.cli.errors import Failure
from auditdb.cli.progress import progress
from auditdb.cli.web import needs_web, show
from auditdb.operate.keys import create_key, list_keys


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.pass_context
def install(ctx: click.Context, dry_run: bool) -> None:
    """Install auditdb in a database, or bring it up to date."""
    if dry_run:
        from auditdb.operate.preview import REFUSED, preview

        lines = preview(ctx.obj)
        print_lines(*lines)
        if any(line.startswith(REFUSED) for line in lines):
            raise click.exceptions.Exit(1)
        return
    from auditdb.operate.install import install as run

    with progress("tables") as advance:
        version = run(ctx.obj, progress=advance)
    click.echo(f"auditdb {version} is installed")


@click.command()
@click.option("--yes", is_flag=True, help="Do it. Without it, only show what would be done.")
@click.option("--log", type=click.Choice(["keep", "drop"]), default="keep", show_default=True,
              help="Keep or drop the events.")  # fmt: skip
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE",
              help="Write every event to a new file first, as JSON lines.")  # fmt: skip
@click.pass_context
def uninstall(ctx: click.Context, yes: bool, log: Literal["keep", "drop"], export: Path) -> None:
    """Detach all tables, and keep or drop the log, in one transaction."""
    from auditdb.operate import uninstall as work

    if not yes:
        print_lines(*work.describe(ctx.obj, log=log))
        print_lines("nothing was done; to do it, add --yes")
        return
    print_lines(*work.uninstall(ctx.obj, log=log, export=export))
    kept = "the log was dropped" if log == "drop" else "the log is kept"
    print_lines(f"no table is attached any more, and {kept}")


@click.command("sql")
def print_sql() -> None:
    """Print everything as one SQL script, for psql and other migration tools."""
    click.echo(auditdb.script(), nl=False)


@click.command()
@click.option("--keep", is_flag=True, help="Leave the server running, and print its address.")
@click.option("--web", is_flag=True, help="Then show the log in a browser, until Ctrl+C.")
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True,
              help="Port of --web; 0 for any free port.")  # fmt: skip
def demo(keep: bool, web: bool, port: int) -> None:
    """Show auditdb at work on an embedded PostgreSQL, which is deleted afterwards."""
    from auditdb.demo import run

    if keep and web:
        raise click.UsageError("--keep and --web exclude each other")
    page: Any = needs_web() if web else None

    # Before the demo runs, so that a port in use is reported at once.
    with page.listen(port) if web else nullcontext() as listening:

        def look(access: Any, **given: Any) -> None:
            site = page.app(viewer=lambda request: page.Access(**access), **given)
            show(page, site, listening, "Acme's log, as its admin bob reads it")

        if not run(keep=keep, look=look if web else None):
            raise click.exceptions.Exit(1)


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "json", "openmetrics"]),
              default="table", show_default=True)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="The same as --format json.")
@click.option("--organizations", type=click.IntRange(0), default=20, show_default=True,
              help="With openmetrics: list so many organisations at most.")  # fmt: skip
@click.option("--findings", is_flag=True, help="With openmetrics: count findings of doctor.")
@click.pass_context
def status(ctx: click.Context, form: str, json_: bool, organizations: int, findings: bool) -> None:
    """Show version, attached tables, partitions with event counts, and members of the roles.

    With --format openmetrics, print metrics for Prometheus and other monitoring systems: events of
    the last 24 hours, months ahead, last maintenance, sizes. In SQL: audit.metrics().
    """
    if form == "openmetrics" and not json_:
        from auditdb.operate import doctor as examine
        from auditdb.operate import metrics

        with connection(ctx) as conn:
            samples = metrics.read_metrics(conn, organizations=organizations)
            if findings:
                samples += metrics.count_findings(examine.diagnose(conn))
        click.echo(metrics.render(samples), nl=False)
        return
    from auditdb.operate.status import status as read_status

    with connection(ctx) as conn:
        found = read_status(conn)
    if json_ or form == "json":
        print_json(asdict(found))
    else:
        from auditdb.cli.render import print_status

        print_status(found)


@click.group()
def key() -> None:
    """Create, rotate and list the keys that sign viewer tokens."""


@key.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Create a key, and print it. It is shown only once: give it to readers as AUDITDB_KEY."""
    with connection(ctx) as conn:
        click.echo(create_key(conn))


@key.command()
@click.option("--grace", default="1 hour", show_default=True,
              help="How long the other keys stay valid; 0 after a theft.")  # fmt: skip
@click.pass_context
def rotate(ctx: click.Context, grace: str) -> None:
    """Create a key, print it, and retire all other keys after a grace period.

    If a key was stolen, give --grace 0, which retires the others at once.
    """
    with connection(ctx) as conn:
        click.echo(create_key(conn, retire_others_after=grace))


@key.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, json_: bool) -> None:
    """List the keys, without their secrets."""
    with connection(ctx) as conn:
        keys = list_keys(conn)
    if json_:
        print_json(keys)
        return
    for row in keys:
        end = f"retires {row['retires_at']:%Y-%m-%d %H:%M %Z}" if row["retires_at"] else "current"
        created = f"created {row['created_at']:%Y-%m-%d %H:%M %Z} by {row['created_by']}"
        print_lines(f"{row['id']}  {created}  {end}")


@click.command()
@click.option("--keep", metavar="INTERVAL", help="Drop months older than this, such as 24months.")
@click.option("--ahead", type=click.IntRange(1, 120), default=3, show_default=True,
              help="Number of future months with partitions.")  # fmt: skip
@click.option("--force", is_flag=True, help="Drop months even if the clock seems wrong.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.pass_context
def maintain(ctx: click.Context, keep: str | None, ahead: int, force: bool, dry_run: bool) -> None:
    """Create partitions, empty the DEFAULT partition, apply retention. Run it from cron.

    Two runs at the same time are safe. Exits with 0 if all is done. Exits with 1 if something was
    refused, or if another install, attach or maintenance was running and nothing was done.
    """
    from auditdb.operate.maintain import BUSY, steps

    done = False
    with connection(ctx) as conn:
        with progress("events") as advance:
            for line in steps(conn, keep=keep, ahead=ahead, force=force, dry_run=dry_run,
                              progress=advance):  # fmt: skip
                if line.startswith(BUSY):
                    raise Failure(line, 0 if done else 1)
                print_lines(line)
                done = True
    if not done:
        print_lines("nothing to do")


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option("--fix", is_flag=True, help="Fix the findings that are safe to fix.")
@click.pass_context
def doctor(ctx: click.Context, json_: bool, fix: bool) -> None:
    """Check for ways to lose, forge or leak events; exit 1 if something is found."""
    from auditdb.operate import doctor as examine

    with connection(ctx) as conn:
        findings = examine.diagnose(conn)
        mended = examine.fix(conn, findings) if fix else []
        if fix:
            findings = examine.diagnose(conn)
    if json_:
        print_json({"mended": mended, "findings": [asdict(f) for f in findings]})
    else:
        for line in mended:
            print_lines(f"{'not mended' if ' -- refused: ' in line else 'mended'}: {line}")
        click.echo(examine.render(findings))
    if any(finding.severity != "notice" for finding in findings):
        raise click.exceptions.Exit(1)
