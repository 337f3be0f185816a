"""Commands of what is kept about a person or an organisation: erase, access."""

from __future__ import annotations

import click

from auditdb.cli.common import connection, print_lines, print_note


@click.command()
@click.option("--subject-id", help="The user: what they did, and what is about them.")
@click.option("--organization-id", help="The organisation; with --subject-id the user within it.")
@click.option("--reason", help="Why. It stays in the log: name nobody in it.")
@click.option("--naming", "names", metavar="TEXT", multiple=True,
              help="List events of others that hold this, such as a mail address; they are not "
              "erased.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do it. Without it, this says what it would do.")
@click.pass_context
def erase(
    ctx: click.Context, subject_id: str | None, organization_id: str | None, reason: str | None,
    names: tuple[str, ...], yes: bool,
) -> None:  # fmt: skip
    """Take what is personal out of the events of a user or of an organisation, for ever.

    Who acted, whom it is about, values and details go; what was done, when and in which
    organisation stays, and so does every proof. It cannot be undone. Archived months are rewritten
    when auditdb archive runs next, which this says. Backups, replicas that lag
    and what was exported hold it still: the events audit.erased say which events they are. Needs a
    login that holds audit_auditor.
    """
    from auditdb.archive.months import list_months
    from auditdb.evidence import erasure as erasing
    from auditdb.operate.hold import list_holds

    if yes and not reason:
        raise click.UsageError("an erasure says why: --reason")
    given = {"subject_id": subject_id, "organization_id": organization_id}
    with connection(ctx) as conn:
        found = erasing.list_personal(conn, **given)
        mentions = erasing.list_mentions(conn, names, **given) if names else []
        held = {hold.organization_id for hold in list_holds(conn)} & {r.organization for r in found}
        done = erasing.erase(conn, reason=reason or "", **given) if yes else 0
        waiting = erasing.count_archive_erasures(conn) if yes else 0
        away = [] if yes else [month.name for month in list_months(conn) if not month.is_here]
    print_lines(*(
        f"organisation {row.organization or '-'}: {row.events} events, {row.first_at:%Y-%m-%d} to "
        f"{row.last_at:%Y-%m-%d}" for row in found
    ))  # fmt: skip
    for row in mentions:
        print_note(f"event {row.event_id} ({row.action}, {row.occurred_at:%Y-%m-%d}, organisation "
                   f"{row.organization or '-'}) holds {row.name!r}, and stays")  # fmt: skip
    for organization in sorted(filter(None, held)):
        print_note(f"{organization} is under legal hold: nothing is erased before it is released, "
                   "or another organisation is named")  # fmt: skip
    if yes:
        print_lines(f"erased {done} events")
        if waiting:
            print_lines(f"{waiting} archived months still hold, or may hold, what is to be erased: "
                        "run auditdb archive, which rewrites them")  # fmt: skip
    else:
        many = sum(row.events for row in found)
        if away:
            print_note(f"{', '.join(away)} are in the archive alone: what they hold of it is not "
                       "counted here, and goes when auditdb archive runs next")  # fmt: skip
        print_lines(f"would erase {many} events, for ever; with --yes and --reason it does")


@click.command()
@click.option("--subject-id", required=True, help="The user.")
@click.option("--organization-id", help="Of this organisation alone. Default: of all.")
@click.pass_context
def access(ctx: click.Context, subject_id: str, organization_id: str | None) -> None:
    """Print every event that a user did or is concerned by, as lines of JSON.

    For a person who asks what is kept about them. Needs a login that holds audit_auditor.
    """
    from auditdb.evidence.erasure import personal_lines

    with connection(ctx) as conn:
        for line in personal_lines(conn, subject_id, organization_id):
            click.echo(line)
