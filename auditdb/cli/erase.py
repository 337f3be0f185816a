"""Commands for the personal data of a person or an organisation: erase, access."""

from __future__ import annotations

import click

from auditdb.cli.common import connection, print_lines, print_note
from auditdb.values.plain import counted


@click.command()
@click.option("--subject-id", help="The user: all events that they did or that concern them.")
@click.option("--organization-id", help="The organisation; with --subject-id, only the user in it.")
@click.option("--reason", help="The reason. It stays in the log, so do not name a person in it.")
@click.option("--naming", "names", metavar="TEXT", multiple=True,
              help="List events of others that hold this, such as a mail address; they are not "
              "erased.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Erase. Without it, only show what would be erased.")
@click.pass_context
def erase(
    ctx: click.Context, subject_id: str | None, organization_id: str | None, reason: str | None,
    names: tuple[str, ...], yes: bool,
) -> None:  # fmt: skip
    """Erase personal data from the events of a user or of an organisation, for ever.

    Actor, subject, values and details are erased. Action, time and organisation stay, and every
    proof stays valid. This cannot be undone. The next run of auditdb archive rewrites archived
    months; the output says if that is needed. Backups, lagging replicas and exports still hold the
    data: the events audit.erased list the events concerned. Needs a login that holds audit_auditor.
    """
    from auditdb.archive.months import list_months
    from auditdb.evidence import erasure as erasing
    from auditdb.operate.hold import list_holds

    if yes and not reason:
        raise click.UsageError("an erasure needs a reason: give --reason")
    given = {"subject_id": subject_id, "organization_id": organization_id}
    with connection(ctx) as conn:
        found = erasing.list_personal(conn, **given)
        mentions = erasing.list_mentions(conn, names, **given) if names else []
        held = {hold.organization_id for hold in list_holds(conn)} & {r.organization for r in found}
        done = erasing.erase(conn, reason=reason or "", **given) if yes else 0
        waiting = erasing.count_archive_erasures(conn) if yes else 0
        away = [] if yes else [month.name for month in list_months(conn) if not month.is_here]
    print_lines(*(
        f"organisation {row.organization or '-'}: {counted(row.events, 'event')}, "
        f"{row.first_at:%Y-%m-%d} to {row.last_at:%Y-%m-%d}" for row in found
    ))  # fmt: skip
    for row in mentions:
        print_note(f"event {row.event_id} ({row.action}, {row.occurred_at:%Y-%m-%d}, organisation "
                   f"{row.organization or '-'}) holds {row.name!r}, and stays")  # fmt: skip
    for organization in sorted(filter(None, held)):
        print_note(f"{organization} is under legal hold: nothing is erased before it is released, "
                   "or another organisation is named")  # fmt: skip
    if yes:
        print_lines(f"erased {counted(done, 'event')}")
        if waiting:
            print_lines(f"months of the archive that may still hold erased data: {waiting}; "
                        "to rewrite them, run: auditdb archive")  # fmt: skip
    else:
        many = sum(row.events for row in found)
        if away:
            print_note(f"{', '.join(away)} are in the archive alone: what they hold of it is not "
                       "counted here, and goes when auditdb archive runs next")  # fmt: skip
        print_lines(f"would erase {counted(many, 'event')}, for ever; --yes and --reason do it")


@click.command()
@click.option("--subject-id", required=True, help="The user.")
@click.option("--organization-id", help="Only events of this organisation. Default: all.")
@click.pass_context
def access(ctx: click.Context, subject_id: str, organization_id: str | None) -> None:
    """Print every event that a user did or that concerns them, as JSON lines.

    Use it to answer a person who asks for their data. Needs a login that holds audit_auditor.
    """
    from auditdb.evidence.erasure import personal_lines

    with connection(ctx) as conn:
        for line in personal_lines(conn, subject_id, organization_id):
            click.echo(line)
