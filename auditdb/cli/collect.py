"""Commands that bring many databases into one: publish, collect."""

from __future__ import annotations

from dataclasses import asdict

import click

from auditdb.cli.common import connection, print_json, print_lines
from auditdb.connection.address import connect
from auditdb.values.plain import counted


@click.command()
@click.argument("role", required=False)
@click.option("--drop", is_flag=True, help="Drop the publication, and the slots that nobody reads.")
@click.pass_context
def publish(ctx: click.Context, role: str | None, drop: bool) -> None:
    """Publish the log to ROLE, as which auditdb collect reads it from another database.

    ROLE is a login with the attribute REPLICATION. Run this as a superuser, with wal_level =
    logical.
    """
    from auditdb.collect import publish as work

    if (role is None) != drop:
        raise click.UsageError("give a ROLE, or --drop")
    with connection(ctx) as conn:
        if role is None:
            slots = work.unpublish_log(conn)
            print_lines("the log is no longer published", *(f"dropped slot {s}" for s in slots))
            return
        work.publish_log(conn, role)
    print_lines(
        f"the log is published to {role}; at the centre: auditdb collect NAME --from "
        f"'host=... dbname=... user={role}'"
    )


@click.command()
@click.argument("source", required=False)
@click.option("--from", "from_", metavar="CONNINFO",
              help="Address of the source database, as this server reaches it.")  # fmt: skip
@click.option("--drop", is_flag=True, help="End the collection, and keep the collected events.")
@click.option("--json", "json_", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def collect(
    ctx: click.Context, source: str | None, from_: str | None, drop: bool, json_: bool
) -> None:
    """Collect the events of another database here, as SOURCE. Without SOURCE, list all sources.

    Run this as a superuser, in a database with auditdb installed. No table needs to be attached
    there. The collected events are in audit_collected.log.
    """
    from auditdb.collect import collect as work

    if (source is None) != (from_ is None and not drop) or (from_ is not None and drop):
        raise click.UsageError("give a SOURCE with --from or --drop, or none of them")
    if json_ and source is not None:
        raise click.UsageError("--json is only for the list, without a SOURCE")
    if source is None:
        with connection(ctx) as conn:
            sources = work.list_sources(conn)
        if json_:
            print_json([asdict(s) | {"lag": s.lag and s.lag.total_seconds()} for s in sources])
        else:
            print_lines(*([f"{s.database}: {s.state}, {_events(s.events)}" for s in sources]
                          or ["no source is collected here"]))  # fmt: skip
        return
    with connect(ctx.obj, autocommit=True, application_name="auditdb collect") as conn:
        if from_ is not None:
            what = work.collect_source(conn, source, from_)
            print_lines(f"{source}: {what}; auditdb collect lists how far it is")
        elif work.drop_source(conn, source):
            print_lines(f"{source} is no longer collected; the collected events stay")
        else:
            print_lines(f"{source} is no longer collected; the collected events stay",
                        f"slot auditdb_{source} was not dropped: if its database has it, run "
                        "auditdb publish --drop there")  # fmt: skip


def _events(estimate: int | None) -> str:
    return "events not counted yet" if estimate is None else f"about {counted(estimate, 'event')}"
