"""Commands of the mapping: detect, attach, detach."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import click
from psycopg import Connection

import auditdb
from auditdb.cli.common import connection, print_lines, print_note
from auditdb.cli.progress import progress
from auditdb.errors import Refused
from auditdb.mapping.kinds import KINDS
from auditdb.values.plain import counted

if TYPE_CHECKING:
    from auditdb.mapping.file import Mappings


@click.command()
@click.option("--schema", "schemas", multiple=True, help="Only this schema; may be repeated.")
@click.option(
    "--update", metavar="FILE", help="Add what is new to FILE; change nothing else in it."
)
@click.option("--sample", is_flag=True, help="Read up to 10,000 rows a table.")
@click.option("--read-roles", is_flag=True, help="Read only the names of roles from rows.")
@click.pass_context
def detect(
    ctx: click.Context,
    schemas: tuple[str, ...],
    update: str | None,
    sample: bool,
    read_roles: bool,
) -> None:
    """Propose an auditdb.toml for an existing database. Writes nothing to the database.

    With --update, add the proposal to FILE, without the tables that FILE has already, has commented
    out, or names in skip of [detect]. Prints what was added, and tables that no longer exist.
    """
    from auditdb.detect import document
    from auditdb.detect.propose import detect as propose

    if update == "-":
        raise click.UsageError("--update takes a file; without it, the proposal is printed")
    text = None if update is None else _read_if_there(update)
    with connection(ctx) as conn:
        proposal = propose(conn, list(schemas) or None, sample=sample, read_roles=read_roles)
        if update is None:
            click.echo(proposal.to_toml(), nl=False)
            return
        updated = document.update(conn, proposal, text or "", update)
    if updated.text != text:
        _replace(update, text, updated.text)
    print_lines(*updated.lines, *([] if updated.text != text else [f"nothing new for {update}"]))


def _read_if_there(name: str) -> str | None:
    """Return a file with its line ends unchanged, or None if it does not exist."""
    try:
        return Path(name).read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"cannot read the mapping file {name}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _replace(name: str, before: str | None, text: str) -> None:
    """Write a file atomically, and keep its mode."""
    path = Path(name).resolve()
    if _read_if_there(name) != before:
        raise click.UsageError(f"{name} was changed meanwhile, so nothing was written; try again")
    umask = os.umask(0)
    os.umask(umask)
    temporary = None
    try:
        if before is not None:
            path.open("ab").close()  # Fails for a file that the user may not write.
        with NamedTemporaryFile("wb", dir=path.parent, prefix=path.name, delete=False) as out:
            temporary = Path(out.name)
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
            os.fchmod(out.fileno(), path.stat().st_mode if before is not None else 0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise click.UsageError(f"cannot write {name}: {error.strerror or error}") from error


@click.command(
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
@click.option("--admin", metavar="SQL", help="True for memberships whose user may read the log.")
@click.option("--parent", metavar="SQL", help="Identifier of the row that this row is a part of.")
@click.option("--email", metavar="COLUMN", help="Of users: the e-mail address.")
@click.option("--password", metavar="COLUMN", help="Of users: the password hash.")
@click.option("--two-factor", metavar="COLUMN", help="Of users: the two-factor flag.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Its change alone makes no event.")
@click.option("--redact", multiple=True, metavar="COLUMN", help="Record it without its values.")
@click.option("--baseline", is_flag=True, help="Record the existing rows, once for each table.")
@click.option("--prune", is_flag=True, help="Detach attached tables that are not in the file.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.pass_context
def attach(
    ctx: click.Context,
    /,
    target: str,
    kind: str | None,
    baseline: bool,
    prune: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Capture the tables of a mapping file, or one."""
    from auditdb.cli.near import known_kinds, nearest
    from auditdb.mapping.apply import apply
    from auditdb.mapping.file import KindMapping, TableMapping, load
    from auditdb.mapping.plan import Change, plan

    given = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items() if v}
    mappings: Mappings
    if kind is not None:
        if prune:
            raise click.UsageError("--prune needs a FILE: it detaches tables that are not in it")
        mappings = [TableMapping(name=target, kind=kind, options=given)]
    elif given:
        raise click.UsageError("options describe one table: auditdb attach TABLE KIND [OPTIONS]")
    else:
        mappings = load(_read(target), source=target)

    def show(change: Change) -> None:
        # Only one table was given, so do not list the others.
        if kind is None or change.verb != "unlisted":
            print_lines(*str(change).splitlines())

    def ask(kinds: Iterable[str]) -> None:
        """Print a note about unknown kinds that are nearly known ones."""
        known = known_kinds(conn) | {m.name for m in mappings if isinstance(m, KindMapping)}
        for kind in dict.fromkeys(kinds):
            if kind not in known and (suggestion := nearest(kind, KINDS)):
                print_note(f"{kind!r} is a kind of your own; did you mean {suggestion!r}?")

    with connection(ctx) as conn:
        try:
            if dry_run:
                changes = plan(conn, mappings, prune=prune)
                for change in changes:
                    show(change)
            else:
                with progress("tables", len(mappings)) as advance:
                    advance(0, "checking")

                    def done(change: Change) -> None:
                        show(change)
                        advance(1, change.name)

                    changes = apply(conn, mappings, prune=prune, done=done)
        except Refused:
            # A misspelt kind lacks options, which causes the error.
            ask(m.kind for m in mappings if isinstance(m, TableMapping))
            raise
        if baseline and not dry_run:
            _record_baselines(conn, mappings)
        ask(c.kind for c in changes if c.verb in ("attach", "remap"))


def _record_baselines(conn: Connection[Any], mappings: Mappings) -> None:
    """Record the existing rows of the attached tables, unless that was done before."""
    from auditdb.mapping.file import TableMapping

    with progress("rows") as advance:
        for mapping in mappings:
            if isinstance(mapping, TableMapping) and mapping.kind != "admin":
                rows = auditdb.baseline(conn, mapping.name, progress=advance)
                if rows:
                    print_lines(f"baseline  {mapping.name}: {counted(rows, 'row')}")


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"cannot read the mapping file {name}: {getattr(error, 'strerror', None) or error}. "
            "Make one with: auditdb detect > auditdb.toml, or attach one table: "
            "auditdb attach TABLE KIND"
        ) from error


@click.command()
@click.argument("table")
@click.pass_context
def detach(ctx: click.Context, table: str) -> None:
    """Stop capturing TABLE; its events stay in the log."""
    with connection(ctx) as conn:
        auditdb.detach(conn, table)
    print_lines(f"{table} is no longer captured")
