"""Commands of the operator: key, maintain, doctor."""

from __future__ import annotations

from dataclasses import asdict

import click
from psycopg import sql
from psycopg.rows import dict_row

from auditdb._pin import pinned
from auditdb._session import explained
from auditdb.cli import connection, main, print_json, print_lines


@main.group()
def key() -> None:
    """Create, rotate and list the keys that sign viewer tokens."""


def _create(ctx: click.Context, retire_others_after: str | None) -> str:
    with connection(ctx) as conn, explained(conn, "audit_operator"), conn.transaction():
        query = sql.SQL("select audit.create_key(%s::interval)")
        row = conn.execute(query, [retire_others_after]).fetchone()
    assert row is not None
    return str(row[0])


@key.command()
@click.pass_context
def create(ctx: click.Context) -> None:
    """Make a key and print it, once; give it to readers as AUDITDB_KEY."""
    click.echo(_create(ctx, None))


@key.command()
@click.option("--grace", default="1 hour", show_default=True,
              help="Others stay valid this long; 0 if one was stolen.")  # fmt: skip
@click.pass_context
def rotate(ctx: click.Context, grace: str) -> None:
    """Make a key, print it, and retire all others after a while.

    Was a key stolen? Then --grace 0, which retires it at once.
    """
    click.echo(_create(ctx, grace))


@key.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, json_: bool) -> None:
    """List the keys, without their secrets."""
    with connection(ctx) as conn, explained(conn, "audit_operator"), pinned(conn):
        rows = conn.cursor(row_factory=dict_row).execute("select * from audit.list_keys()")
        keys = rows.fetchall()
    if json_:
        print_json(keys)
        return
    for row in keys:
        end = f"retires {row['retires_at']:%Y-%m-%d %H:%M %Z}" if row["retires_at"] else "current"
        made = f"created {row['created_at']:%Y-%m-%d %H:%M %Z} by {row['created_by']}"
        print_lines(f"{row['id']}  {made}  {end}")


@main.command()
@click.option("--keep", metavar="INTERVAL", help="Drop months older than this, such as 24months.")
@click.option("--ahead", type=click.IntRange(1, 120), default=3, show_default=True,
              help="Months to come that have partitions.")  # fmt: skip
@click.pass_context
def maintain(ctx: click.Context, keep: str | None, ahead: int) -> None:
    """Create partitions, empty DEFAULT, apply retention; for cron, and safe twice at once."""
    from auditdb._maintain import maintain as run

    with connection(ctx) as conn:
        done = run(conn, keep=keep, ahead=ahead)
    print_lines(*(done or ["nothing to do"]))


@main.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option("--fix", is_flag=True, help="Mend what is safe to mend.")
@click.pass_context
def doctor(ctx: click.Context, json_: bool, fix: bool) -> None:
    """Find what would let events be lost, forged or read by others; exit 1 for findings."""
    from auditdb import doctor as examine

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
