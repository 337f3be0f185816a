"""Commands for organisations: legal hold, and how far back viewers see."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from auditdb.cli.common import connection, print_json, print_lines
from auditdb.values.plain import counted, plain

if TYPE_CHECKING:
    from auditdb.operate.hold import LegalHold, VisibleRetention


@click.command()
@click.argument("organization", required=False)
@click.option("--reason", help="The reason, such as a case number. Several reasons are possible.")
@click.option("--release", is_flag=True, help="End the legal hold with this reason.")
@click.option("--json", "json_", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def hold(
    ctx: click.Context, organization: str | None, reason: str | None, release: bool, json_: bool
) -> None:
    """Put ORGANIZATION under legal hold, or release it. Without ORGANIZATION, list the holds.

    Retention drops no month with events of an organisation under legal hold, not even with --force.
    Needs a login that holds audit_auditor. Each hold and release is recorded as an event.
    """
    from auditdb.operate import hold as work

    if organization is None and (reason is not None or release):
        raise click.UsageError("--reason and --release need an ORGANIZATION")
    if organization is not None and reason is None:
        raise click.UsageError("a legal hold needs a --reason")
    with connection(ctx) as conn:
        if organization is None or reason is None:
            holds = work.list_holds(conn)
            if json_:
                print_json([asdict(h) for h in holds])
            else:
                print_lines(*(map(describe_hold, holds) if holds else ["no legal hold"]))
        elif release:
            work.release_organization(conn, organization, reason=reason)
            left = [h for h in work.list_holds(conn) if h.organization_id == organization]
            print_lines(f"{organization} is released", *map(describe_hold, left))
        else:
            months = work.hold_organization(conn, organization, reason=reason)
            told = f"{counted(months, 'month')} with events of it" if months else \
                   "the log has no event of it; check the identifier"  # fmt: skip
            print_lines(f"{organization} is under legal hold: {told}")


@click.command()
@click.argument("organization", required=False)
@click.option("--keep", metavar="INTERVAL", help="Hide older events from its viewers: '30 days'.")
@click.option("--all", "all_", is_flag=True, help="Show all events to its viewers.")
@click.option("--json", "json_", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def visible(
    ctx: click.Context, organization: str | None, keep: str | None, all_: bool, json_: bool
) -> None:
    """Limit how far back the viewers of ORGANIZATION see. Without ORGANIZATION, list the limits.

    Older events stay in the log, for auditors and exports. Needs a login that holds audit_operator.
    Each change is recorded as an event.
    """
    from auditdb.operate import hold as work

    if (organization is None) != (keep is None and not all_) or (keep is not None and all_):
        raise click.UsageError("give an ORGANIZATION with --keep or --all, or no arguments")
    with connection(ctx) as conn:
        if organization is None:
            limits = work.list_visibility(conn)
            if json_:
                print_json([asdict(v) for v in limits])
            else:
                print_lines(*(map(describe_visible, limits) if limits else
                              ["no limit: all viewers see all events"]))  # fmt: skip
            return
        work.limit_visibility(conn, organization, keep=keep)
    print_lines(f"viewers of {organization} see {keep or 'all of it'}")


def describe_hold(held: LegalHold) -> str:
    """Return a legal hold as a line."""
    return f"{plain(held.organization_id)} is under legal hold since {held.held_at:%Y-%m-%d}, " \
           f"by {plain(held.held_by)}: {plain(held.reason)}"  # fmt: skip


def describe_visible(limit: VisibleRetention) -> str:
    """Return how far back viewers see as a line."""
    return f"viewers of {plain(limit.organization_id)} see {plain(limit.keep)}"
