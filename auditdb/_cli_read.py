"""Commands that read: log, demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

import auditdb
from auditdb.cli import connection, main

KEY_HELP = "File that holds the signing key. Default: the variable AUDITDB_KEY."


def _key(file: str | None) -> str:
    if file is None:
        key = os.environ.get("AUDITDB_KEY", "")
        if not key:
            raise click.UsageError(
                "no signing key: set AUDITDB_KEY, or name a file with --key-file; "
                "an operator makes one with: auditdb key create"
            )
        return key.strip()
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"cannot read the key file {file}: {reason}") from error


@main.command()
@click.option("--viewer", required=True, help="The user who reads.")
@click.option("--organization", required=True, help="The organisation whose log is read.")
@click.option("--key-file", metavar="FILE", help=KEY_HELP)
@click.option("--action", help="Only this action, such as membership.role_changed.")
@click.option("--category", help="Only this category, such as auth.")
@click.option("--actor", help="Only what this actor, or impersonator, did.")
@click.option("--target-type", help="Only what was done to this kind of object.")
@click.option("--target-id", help="Only what was done to this object.")
@click.option("--subject", help="Only what is about this user.")
@click.option("--result", type=click.Choice(["success", "failure", "denied"]))
@click.option("--source", help="Only what came this way: web, api, saml, ...")
@click.option("--since", metavar="TIME", help="From then on: 2026-01-31 or 2026-01-31T12:00Z.")
@click.option("--until", metavar="TIME", help="Before then.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--all", "all_", is_flag=True, help="Every event, however many; no limit.")
@click.option("--format", "format_", type=click.Choice(["table", "jsonl", "csv"]), default="table")
@click.pass_context
def log(
    ctx: click.Context,
    /,
    viewer: str,
    organization: str,
    key_file: str | None,
    limit: int,
    all_: bool,
    format_: str,
    **filters: Any,
) -> None:
    """Read an organisation's log as one of its admins or owners, newest first."""
    from itertools import islice

    key = _key(key_file)
    with connection(ctx) as conn:
        reading = auditdb.reader(conn, key=key, viewer=viewer, organization=organization)
        events = reading.events(batch=500 if all_ else min(limit, 500), **filters)
        _print(format_, events if all_ else islice(events, limit))


def _print(format_: str, events: Any) -> None:
    from auditdb import _render

    if format_ == "jsonl":
        _render.print_jsonl(sys.stdout, events)
    elif format_ == "csv":
        _render.print_csv(sys.stdout, events)
    elif not _render.print_table(_render.console(), events):
        click.echo("no events that this viewer may read", err=True)


@main.command()
@click.option("--keep", is_flag=True, help="Leave the server running and print its address.")
def demo(keep: bool) -> None:
    """Run the main job once, on an embedded PostgreSQL that is gone afterwards."""
    from auditdb.demo import run

    if not run(keep=keep):
        raise click.exceptions.Exit(1)
