"""The mapping file that detect writes, and the update of a file that people edited.

Comments begin with "# # ", and a guessed table with "# ". So the file stays valid TOML if an editor
uncomments some or all lines.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import scalar_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.detect.draft import Suggestion
from auditdb.mapping.file import TableMapping, load, skipped, written
from auditdb.mapping.plan import present_name
from auditdb.values.plain import plain

_HEADER = (
    "Proposed by auditdb detect from the tables, columns, keys and enums of this database.",
    'Read it, answer the lines with "?", and keep it in your repository.',
    'What is commented out is a guess: if it is right, take the first "# " from each line of it.',
    "The options of a table are those that attach finds: auditdb attach auditdb.toml --dry-run",
    "shows them. Then the same without --dry-run; both may be repeated.",
    "auditdb detect --update auditdb.toml adds what is new, and changes nothing that stands here.",
)
_CONTEXT = (
    "The settings of other tools that say who acts where the application sets no context. Whoever "
    "may send SQL can set them (docs/mapping.md, Who acts)."
)


def _context_line(settings: tuple[str, ...]) -> str:
    return "context = [" + ", ".join(f'"{name}"' for name in settings) + "]"


@dataclass(frozen=True)
class Proposal:
    """The tables that a mapping file should name, and what was left out."""

    tables: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    unrecognised: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # about the whole database
    context: tuple[str, ...] = ()  # settings that name the actor

    def to_toml(self) -> str:
        """Return the mapping file, with a reason as a comment above each choice."""
        parts = ["\n".join(_comment(line) for line in _HEADER)]
        if self.context:
            parts.append(f"{_comment(_CONTEXT)}\n{_context_line(self.context)}")
        parts += [_comment(remark, "? ") for remark in self.remarks]
        if not any(table.certain for table in self.tables):
            nothing = "Nothing was recognised for certain: no [[table]] is in force below."
            parts.append(_comment(nothing, "? "))
        return "\n\n".join([*parts, *self._parts()]) + "\n"

    def _parts(self) -> Iterator[str]:
        """Yield the tables and the list of left-out tables, without a header."""
        yield from map(_block, self.tables)
        if self.notes:
            lines = [_comment("Left out:"), *(_comment(note, "- ") for note in self.notes)]
            yield "\n".join(lines)
        if self.unrecognised:
            names = ", ".join(self.unrecognised)
            yield _comment(f"Left out: no kind was recognised for {names}")


@dataclass(frozen=True)
class Update:
    """An updated file, and lines about what a person should look at."""

    text: str
    lines: tuple[str, ...]


def update(
    conn: psycopg.Connection[Any], proposal: Proposal, text: str, source: str = "auditdb.toml"
) -> Update:
    """Add to a file the tables of a proposal that it does not know; change nothing else.

    A file knows a table if it contains it, active or commented out, or names it in `skip` of
    `[detect]`.

    Args:
        conn: the connection that the proposal was made on.
        proposal: what `detect` returned.
        text: the file.
        source: its name, for error messages.

    Raises:
        InvalidInput: the file is not a mapping file.
        Refused: auditdb is not installed there, or no privilege.
    """
    if not text.strip():
        return Update(proposal.to_toml(), tuple(map(_new_line, proposal.tables)))
    in_force = [m.name for m in load(text, source) if isinstance(m, TableMapping)]
    names = dict.fromkeys((*in_force, *_commented(text), *skipped(text)))
    mentions = " ".join(re.sub(r"\n[#\s]*", " ", text).split())
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        known, former = _known(conn, names, text)

        def is_new(name: str) -> bool:
            return _oid(conn, name) not in known

        added = Proposal(
            tuple(table for table in proposal.tables if is_new(table.name)),
            tuple(
                n for n in proposal.notes if is_new(_about(n)) and not _is_in(mentions, _about(n))
            ),
            tuple(n for n in proposal.unrecognised if is_new(n) and not _is_in(mentions, n)),
        )
    lines = (
        *_context_lines(proposal, text),
        *map(_new_line, added.tables),
        *(f"left out  {note}" for note in added.notes),
        *(f"left out  {name}: no kind was recognised" for name in added.unrecognised),
        *former,
    )
    parts = list(added._parts())
    if not parts:
        return Update(text, lines)
    if added.tables:
        parts.insert(0, _comment(f"New on {date.today()}, by auditdb detect --update:"))
    new = "\n\n".join(parts) + "\n"
    end = "\r\n" if "\r\n" in text else "\n"
    between = end if text.endswith("\n") else end * 2
    return Update(f"{text}{between}{new.replace(chr(10), end)}", lines)


def _known(
    conn: psycopg.Connection[Any], names: Iterable[str], text: str
) -> tuple[set[int | None], list[str]]:
    """Return the tables that a file names, and what to edit for names that no longer exist."""
    oids = {name: _oid(conn, name) for name in names}
    lines = []
    for name in [name for name, oid in oids.items() if oid is None]:
        now = present_name(conn, name)
        oids[name] = _oid(conn, now) if now else None
        where = _where(text, name)
        lines.append(
            f"renamed   {name} is {now} now: write {_literal(now)}{where and f' in {where}'}"
            if now
            else f"gone      {name}: take it out{where and f' of {where}'}"
        )
    return {oid for oid in oids.values() if oid is not None}, lines


def _literal(name: str) -> str:
    """Return a name as it is written in the file, with its quotes."""
    return written(TableMapping(name, "")).splitlines()[1].removeprefix("name = ")


def _where(text: str, name: str) -> str:
    """Return the line in which a file names a table, as text; prefer lines that define it."""
    named = rf"(?<![\w.]){re.escape(name)}(?![\w.])"
    found = [
        (not re.match(r"[#\s]*(name|skip)\b|[\s\[]*[\"']", line), number)
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(named, line)
    ]
    return f"line {min(found)[1]}" if found else ""


def _new_line(table: Suggestion) -> str:
    return f"new       {table.name} as {table.kind}" + (
        "" if table.certain else " (a guess, commented out)"
    )


def _context_lines(proposal: Proposal, text: str) -> Iterator[str]:
    """Yield the line about the context that is missing in the file."""
    if proposal.context and "context" not in tomllib.loads(text):
        yield f"to write  {_context_line(proposal.context)}, above the first [[table]]"


def _commented(text: str) -> Iterator[str]:
    """Yield the names of the tables that are commented out."""
    within = ""
    for line in text.splitlines():
        bare = line.lstrip("# \t")
        if bare.startswith("["):
            within = bare.partition("]]")[0]
        elif within == "[[table" and bare.startswith("name") and bare != line:
            try:
                name = tomllib.loads(bare).get("name")
            except tomllib.TOMLDecodeError:
                continue
            if isinstance(name, str):
                yield name.strip()


def _oid(conn: psycopg.Connection[Any], name: str) -> int | None:
    """Return the oid of a table in the session's search_path, or None."""
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    query = "select pg_catalog.to_regclass(%s)::pg_catalog.oid::pg_catalog.int8"
    try:
        with conn.transaction():
            return cursor.execute(query, (name,)).fetchone()
    except (errors.SyntaxError, errors.InvalidName, errors.FeatureNotSupported):
        return None


def _about(note: str) -> str:
    """Return the table that a note is about."""
    return note.partition(": ")[0]


def _is_in(text: str, name: str) -> bool:
    return re.search(rf'(?<![\w".]){re.escape(name)}(?![\w".])', text) is not None


def _comment(text: str, mark: str = "") -> str:
    return "\n".join(
        textwrap.wrap(
            plain(" ".join(text.split())),
            98,
            initial_indent=f"# # {mark}",
            subsequent_indent=f"# # {' ' * len(mark)}",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _block(table: Suggestion) -> str:
    """Return one [[table]], commented out if the table is a guess."""
    heading, *lines = written(TableMapping(table.name, table.kind, table.options)).splitlines()
    if not table.certain:
        heading, *lines = (f"# {line}" for line in (heading, *lines))
    prose = [_comment(table.why), *(_comment(str(asked), "? ") for asked in table.questions)]
    return "\n".join((heading, *prose, *lines))
