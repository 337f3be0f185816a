"""Commands of evidence: seal, verify."""

from __future__ import annotations

import os
import re
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from auditdb.cli.common import connection, print_json, print_lines, print_note
from auditdb.cli.progress import progress
from auditdb.connection.checks import raises_audit_errors
from auditdb.errors import ConnectionFailed, InvalidInput, Refused
from auditdb.values.plain import counted

if TYPE_CHECKING:
    import psycopg

    from auditdb.archive.source import Archive
    from auditdb.evidence.keys import Command, PrivateKey
    from auditdb.evidence.note import VerificationKey

_FILE = click.Path(path_type=Path, dir_okay=False)
_UNITS = {"s": 1, "m": 60, "h": 3600}


def needs_seal() -> None:
    """Refuse if the package for signatures is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InvalidInput("sealing needs a package: pip install 'auditdb[seal]'") from error


class Every(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time such as 30s, 5m or 1h, in seconds."""

    name = "TIME"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"([1-9][0-9]*)([smh])", value)
        if found is None:
            self.fail(f"{value!r} is not a valid time; give one such as 30s, 5m or 1h", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@click.group(invoke_without_command=True)
@click.option("--key-file", type=_FILE, help="The sealing key. Default: AUDITDB_SEAL_KEY.")
@click.option("--sign-command", metavar="COMMAND",
              help="Signs instead of a key, for an HSM or KMS: text in, base64 out.")  # fmt: skip
@click.option("--key", metavar="VKEY", help="Verification key of --sign-command.")
@click.option("--to", "places", metavar="URL", multiple=True,
              help="Publish there: file:///directory, s3://bucket/prefix, https://host/prefix, or "
              "- to print the checkpoint.")  # fmt: skip
@click.option("--state", type=_FILE, metavar="FILE",
              help="Keeps the last checkpoint. Default: the key file with .state.")  # fmt: skip
@click.option("--trust", type=_FILE, metavar="FILE",
              help="If the state was lost: a checkpoint to continue from.")  # fmt: skip
@click.option("--new-log", is_flag=True,
              help="Begin a log with a new name, after an older backup was restored.")  # fmt: skip
@click.option("--every", type=Every(), metavar="TIME", help="Repeat every 30s, 5m or 1h.")
@click.pass_context
def seal(
    ctx: click.Context, key_file: Path | None, sign_command: str | None, key: str | None,
    places: tuple[str, ...], state: Path | None, trust: Path | None, new_log: bool,
    every: float | None,
) -> None:  # fmt: skip
    """Seal committed events: hash them into a Merkle tree, sign its root, publish it.

    After that, every change to a sealed event is detected, even one by a superuser, if somebody
    else keeps a checkpoint. Needs a login that holds audit_auditor. It may be repeated at any time.
    Exits with 1 if the history of the database is not the one that was signed, or if publishing
    failed.
    """
    if ctx.invoked_subcommand is not None:
        return
    needs_seal()
    from auditdb.evidence.seal import Busy

    signer = _signer(key_file, sign_command, key)
    if state is None:
        if key_file is None:
            raise click.UsageError("give --state, a file to keep the last signed checkpoint in")
        state = key_file.with_name(f"{key_file.name}.state")
    while True:
        try:
            complete = _seal(ctx, signer, state, places, trust, new_log)
        except (ConnectionFailed, Busy) as error:
            if every is None:
                raise
            print_note(str(error))
            complete = True
        if every is None:
            if not complete:
                raise click.exceptions.Exit(1)
            return
        trust = None
        time.sleep(every)


def _seal(
    ctx: click.Context, signer: PrivateKey | Command, state: Path, urls: tuple[str, ...],
    trust: Path | None, new_log: bool,
) -> bool:  # fmt: skip
    """Seal once; return whether publishing to every place succeeded."""
    from auditdb.evidence.places import open_place
    from auditdb.evidence.seal import Sealer
    from auditdb.evidence.state import State

    remembered = State(state)
    token = os.environ.get("AUDITDB_SEAL_TOKEN")
    places = [(url, open_place(url, token)) for url in urls if url != "-"]
    with connection(ctx) as conn:
        conn.autocommit = True
        sealer = Sealer(conn, signer, remembered, places, new_log=new_log)
        if trust is not None:
            sealer.trust(_read(trust))
        with progress("leaves") as advance:
            done = sealer.run(advance)
    if "-" in urls and done.size:
        click.echo(_read(state), nl=False)
    else:
        print_lines(f"sealed {counted(done.added, 'leaf', 'leaves')}, {done.size:,} in all")
    for problem in done.problems:
        click.echo(f"Error: {problem}", err=True)
    return not done.problems


@seal.command()
@click.option("--key-file", type=_FILE, required=True, help="The new file; it is a secret.")
@click.option("--name", metavar="NAME",
              help="Name of the log, such as example.com/audit. Default: random.")  # fmt: skip
def init(key_file: Path, name: str | None) -> None:
    """Create a sealing key, and print its verification key.

    Keep the key file away from the database and its administrators. Give the verification key to
    auditors, by another way than the log itself.
    """
    needs_seal()
    from auditdb.evidence.keys import write_key

    print_lines(write_key(key_file, name or f"auditdb/{secrets.token_hex(6)}"))


@seal.command()
@click.option("--key-file", type=_FILE, required=True, help="The current key.")
@click.option("--new-key-file", type=_FILE, required=True, help="The new file; it is a secret.")
@click.option("--state", type=_FILE, metavar="FILE",
              help="As in auditdb seal. Default: the key file with .state.")  # fmt: skip
@click.pass_context
def rotate(ctx: click.Context, key_file: Path, new_key_file: Path, state: Path | None) -> None:
    """Create a new sealing key, signed by the current one, and print its verification key.

    Seal with the new key from then on. Auditors can continue to verify with the first verification
    key.
    """
    needs_seal()
    from auditdb.evidence.keys import read_private, write_key
    from auditdb.evidence.keys import rotate as hand_over
    from auditdb.evidence.note import sign
    from auditdb.evidence.state import State

    old = read_private(key_file)
    state = state or key_file.with_name(f"{key_file.name}.state")
    found = State(state).read([old.key])
    with connection(ctx) as conn:
        conn.autocommit = True
        made = write_key(new_key_file, old.key.name)
        new = read_private(new_key_file)
        try:
            with raises_audit_errors(conn, "audit_auditor"):
                conn.execute("select audit_private.keep_rotation(%s)", [hand_over(old, made)])
        except Refused:
            new_key_file.unlink()  # The rotation was not stored, so the new key is useless.
            raise
    if found is not None:
        # Both keys sign the last checkpoint, so that holders of either key can continue from it.
        both = State(new_key_file.with_name(f"{new_key_file.name}.state"))
        both.write(sign(found[0].text, [old, new]), [new.key])
    print_lines(made)


@click.command()
@click.option("--key", "keys", metavar="VKEY", multiple=True, required=True,
              help="A trusted verification key, or a file with it.")  # fmt: skip
@click.option("--checkpoint", "checkpoints", metavar="FILE", multiple=True, type=_FILE,
              help="A checkpoint that was kept outside of the database.")  # fmt: skip
@click.option("--published", metavar="URL",
              help="Where the log is published: checkpoint and hashes.")  # fmt: skip
@click.option("--since", metavar="TIME",
              help="Hash again only events of ticks since then.")  # fmt: skip
@click.option("--resume", type=_FILE, metavar="FILE",
              help="File for the progress, to continue after an interruption.")  # fmt: skip
@click.option("--archive", "archived", metavar="URL",
              help="Where the archive is, to verify archived months too.")  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(
    ctx: click.Context, keys: tuple[str, ...], checkpoints: tuple[Path, ...], published: str | None,
    since: str | None, resume: Path | None, archived: str | None, json_: bool,
) -> None:  # fmt: skip
    """Compare the log with what was signed; exit 1 if an event was changed, removed or added.

    Give a checkpoint that was kept outside of the database (--checkpoint or --published): a
    superuser cannot forge it. Without one, a database that was set back as a whole to an older
    state looks good, and so do changes by somebody who holds the sealing key. Needs a login that
    holds audit_auditor.
    """
    needs_seal()

    from auditdb.evidence.check import Verifier
    from auditdb.evidence.keys import follow
    from auditdb.evidence.note import open_checkpoint
    from auditdb.evidence.places import Published, open_place
    from auditdb.evidence.stored import Stored
    from auditdb.read.recorded import record_reading
    from auditdb.read.viewer import Auditor

    given = [(str(path), _read(path)) for path in checkpoints]
    with connection(ctx) as conn:
        conn.autocommit = True
        with raises_audit_errors(conn, "audit_auditor"):
            rotations = Stored(conn).rotations()
        believed = [k for text in keys for k in follow(_key(text), rotations)]
        tiles = None
        if published is not None:
            place = open_place(published, os.environ.get("AUDITDB_SEAL_TOKEN"))
            note = place.read("checkpoint")
            if note is None:
                raise InvalidInput(f"{published} has no checkpoint")
            given.append((published, note.decode(errors="replace")))
            head = open_checkpoint(given[-1][1], believed)
            tiles = (Published(place), head.size)
        archive = archive_of(conn, archived)
        with progress("leaves") as advance:
            report = Verifier(conn, believed, given, tiles, archive).run(since, advance, resume)
        if archive is not None:
            archive.close()
        said = {"events": report.events, "findings": len(report.findings)}
        try:
            record_reading(conn, Auditor(None), "verified", said)
        except Refused as error:  # A restored copy may be read-only.
            print_note(f"this verification is not recorded as an event: {error}")
    if json_:
        print_json(asdict(report))
    else:
        print_lines(*report.findings, *(f"note: {text}" for text in report.notices))
        if not given:
            print_lines("note: no checkpoint from outside of the database was given")
        print_lines(
            f"{counted(report.events, 'event')} hashed again, "
            f"{report.signed:,} of {counted(report.size, 'leaf', 'leaves')} signed, "
            f"{counted(report.dropped, 'event')} dropped by retention, {report.erased:,} erased, "
            f"{f'{report.archived:,} read from the archive, ' if archived else ''}"
            f"{counted(len(report.findings), 'finding')}"
        )
    if report.findings:
        raise click.exceptions.Exit(1)


def _signer(key_file: Path | None, command: str | None, key: str | None) -> PrivateKey | Command:
    from auditdb.evidence.keys import Command, read_private

    if command is None:
        return read_private(key_file)
    if key is None:
        raise click.UsageError("--sign-command needs --key")
    return Command(command, _key(key))


def archive_of(conn: psycopg.Connection[Any], url: str | None) -> Archive | None:
    """Return the archived months of a log, or None without an address."""
    from auditdb.archive.place import Place
    from auditdb.archive.source import Archive

    return None if url is None else Archive(conn, Place(url))


def _key(text: str) -> VerificationKey:
    from auditdb.evidence.note import read_key

    return read_key(text if "+" in text else _read(Path(text)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise InvalidInput(f"cannot read {path}: {reason}") from error
