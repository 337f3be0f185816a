"""The command that records an event: record."""

from __future__ import annotations

from typing import Any

import click

import auditdb
from auditdb.cli.common import connection, print_note
from auditdb.values.arguments import ACTOR_TYPES, RESULTS


@click.command()
@click.argument("action")
@click.option("--organization-id", help="Organisation of the event.")
@click.option("--target-type", help="Kind of the object.")
@click.option("--target-id", help="Identifier of the object.")
@click.option("--subject-id", help="The user whom the event is about.")
@click.option("--result", type=click.Choice(RESULTS), default="success")
@click.option("--actor-id", help="Who did it. Default: the database role.")
@click.option("--actor-type", type=click.Choice(ACTOR_TYPES))
@click.option("--source", default="cli", show_default=True, help="Origin, such as web or api.")
@click.option("--detail", "details", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.pass_context
def record(ctx: click.Context, /, action: str, details: tuple[str, ...], **fields: Any) -> None:
    """Record an event, and print its id. ACTION has the form category.verb."""
    from auditdb.cli.near import ACTIONS, known_actions, nearest_action

    pairs = [detail.partition("=") for detail in details]
    given = {name: value for name, _, value in pairs}
    for name, equals, value in pairs:
        if not (name and equals):
            raise click.UsageError(f"--detail takes NAME=VALUE, not '{name}{equals}{value}'")
    if len(given) < len(pairs):
        raise click.UsageError("a --detail name is given twice; give each name once")
    for name, value in fields.items():
        if value == "":
            raise click.UsageError(f"--{name.replace('_', '-')} is empty; give a value or omit it")
    with connection(ctx) as conn:
        click.echo(auditdb.record(conn, action, details=given or None, **fields))
        if action not in ACTIONS and (suggestion := nearest_action(action, known_actions(conn))):
            print_note(f"{action!r} is not a known action; did you mean {suggestion!r}?")
