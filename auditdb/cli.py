"""The command line: parses, calls, prints."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psycopg

import auditdb
from auditdb._cli_errors import Cli
from auditdb._connect import connect
from auditdb._kinds import KINDS
from auditdb._plain import as_json, plain


@click.group("auditdb", cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(auditdb.__version__, prog_name="auditdb")
@click.option(
    "--dsn",
    envvar="AUDITDB_DSN",
    default="",
    metavar="CONNINFO",
    help="The database: a URI or key=value pairs. Default: AUDITDB_DSN, else the PG* variables.",
)
@click.pass_context
def main(ctx: click.Context, dsn: str) -> None:
    """Keep an audit log of who did what in a multi-tenant product on PostgreSQL."""
    ctx.obj = dsn
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding shows codes of what it lacks.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def connection(ctx: click.Context) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database of the command line; commit at the end, or else just leave."""
    # What psycopg logs of a connection that is lost or interrupted, our own line says.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    with connect(ctx.obj, application_name="auditdb") as conn:
        try:
            yield conn
        except BaseException:
            conn.close()  # Or psycopg would send a ROLLBACK to a server that may be gone.
            raise


def print_json(value: object) -> None:
    """Print indented JSON."""
    click.echo(as_json(value, indent=2))


def print_lines(*lines: object) -> None:
    """Print lines that may hold names and values of the database, safe on a terminal."""
    for line in lines:
        click.echo(plain(line))


def print_note(text: str) -> None:
    """Print on standard error what may be a mistake, and is none for certain."""
    click.echo(plain(f"note: {text}"), err=True)


@main.command()
@click.pass_context
def install(ctx: click.Context) -> None:
    """Install auditdb in a database, or bring it up to date."""
    click.echo(f"auditdb {auditdb.install(ctx.obj)} is installed")


@main.command("sql")
def print_sql() -> None:
    """Print everything as one SQL script, for psql and other migration tools."""
    click.echo(auditdb.script(), nl=False)


@main.command()
@click.option("--schema", "schemas", multiple=True, help="Look only there; may be repeated.")
@click.pass_context
def detect(ctx: click.Context, schemas: tuple[str, ...]) -> None:
    """Propose an auditdb.toml for an existing database, without writing to it."""
    from auditdb._detect import detect as propose

    with connection(ctx) as conn:
        click.echo(propose(conn, list(schemas) or None).to_toml(), nl=False)


@main.command(
    help="Capture tables: those of a mapping FILE (- for standard input), or one TABLE as KIND.\n\n"
    "Without arguments, FILE is auditdb.toml in the current directory.\n\n"
    f"KIND is {', '.join(KINDS)}, or a word of your own."
)
@click.argument("target", default="auditdb.toml", metavar="[FILE|TABLE]")
@click.argument("kind", required=False)
@click.option(
    "--organization", metavar="SQL", help="Organisation of a row: a column or expression."
)
@click.option("--target-id", metavar="SQL", help="Identifier of a row. Default: its primary key.")
@click.option("--subject", metavar="SQL", help="The user a row is about.")
@click.option("--role", metavar="SQL", help="The role that a membership gives.")
@click.option("--alive", metavar="SQL", help="A row counts as existing only while this is true.")
@click.option("--admin", metavar="SQL", help="Memberships whose user may read the log.")
@click.option("--parent", metavar="SQL", help="Rows are changes of the row with this identifier.")
@click.option("--email", metavar="COLUMN", help="Of users: the e-mail address.")
@click.option("--password", metavar="COLUMN", help="Of users: the password hash.")
@click.option("--two-factor", metavar="COLUMN", help="Of users: the two-factor flag.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Its change alone is no event.")
@click.option("--redact", multiple=True, metavar="COLUMN", help="Recorded without its values.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.pass_context
def attach(
    ctx: click.Context, /, target: str, kind: str | None, dry_run: bool, **options: Any
) -> None:
    """Capture the tables of a mapping file, or one."""
    from auditdb._mapping_file import KindMapping, TableMapping, apply, load, plan
    from auditdb._near import known_kinds, nearest

    given = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items() if v}
    mappings: list[TableMapping | KindMapping]
    if kind is not None:
        mappings = [TableMapping(name=target, kind=kind, options=given)]
    elif given:
        raise click.UsageError("options describe one table: auditdb attach TABLE KIND [OPTIONS]")
    else:
        mappings = load(_read(target), source=target)
    with connection(ctx) as conn:
        changes = plan(conn, mappings) if dry_run else apply(conn, mappings)
        known = known_kinds(conn) | {m.name for m in mappings if isinstance(m, KindMapping)}
    for change in changes:
        print_lines(*str(change).splitlines())
    for kind in dict.fromkeys(c.kind for c in changes if c.verb in ("attach", "remap")):
        if kind not in known and (meant := nearest(kind, KINDS)):
            print_note(f"{kind!r} is a kind of your own; did you mean {meant!r}?")


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"cannot read the mapping file {name}: {getattr(error, 'strerror', None) or error}. "
            "Make one with: auditdb detect > auditdb.toml, or attach one table: "
            "auditdb attach TABLE KIND"
        ) from error


@main.command()
@click.argument("table")
@click.pass_context
def detach(ctx: click.Context, table: str) -> None:
    """End the capture of TABLE; what was captured stays."""
    with connection(ctx) as conn:
        auditdb.detach(conn, table)
    print_lines(f"{table} is no longer captured")


@main.command()
@click.argument("action")
@click.option("--organization", "organization_id", help="Organisation it belongs to.")
@click.option("--target-type", help="Kind of object it was done to.")
@click.option("--target-id", help="Identifier of that object.")
@click.option("--subject", "subject_id", help="The user it is about.")
@click.option("--result", type=click.Choice(["success", "failure", "denied"]), default="success")
@click.option("--actor", "actor_id", help="Who did it. Default: the database role.")
@click.option("--actor-type", type=click.Choice(["user", "api_key", "system", "database"]))
@click.option("--source", default="cli", show_default=True, help="Way in.")
@click.option("--detail", "details", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.pass_context
def record(ctx: click.Context, /, action: str, details: tuple[str, ...], **fields: Any) -> None:
    """Record an event, ACTION being category.verb, and print its id."""
    from auditdb._near import ACTIONS, known_actions, nearest_action

    pairs = [detail.partition("=") for detail in details]
    given = {name: value for name, _, value in pairs}
    for name, equals, value in pairs:
        if not (name and equals):
            raise click.UsageError(f"--detail takes NAME=VALUE, not '{name}{equals}{value}'")
    if len(given) < len(pairs):
        raise click.UsageError("a --detail is given twice; give each name once")
    for name, value in fields.items():
        if value == "":
            option = name.removesuffix("_id") if name != "target_id" else name
            raise click.UsageError(f"--{option.replace('_', '-')} is empty; leave it out")
    with connection(ctx) as conn:
        click.echo(auditdb.record(conn, action, details=given or None, **fields))
        if action not in ACTIONS and (meant := nearest_action(action, known_actions(conn))):
            print_note(f"{action!r} is an action of your own; did you mean {meant!r}?")


@main.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, json_: bool) -> None:
    """Show version, attached tables, partitions with event counts, and members of the roles."""
    from auditdb._status import status as read_status

    with connection(ctx) as conn:
        found = read_status(conn)
    if json_:
        print_json(asdict(found))
    else:
        from auditdb._render import print_status

        print_status(found)


from auditdb import _cli_operate, _cli_read  # noqa: E402, F401  (they add their commands to main)
