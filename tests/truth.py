"""What an expert says of each schema, and how far detect and attach are right: python -m tests.truth.

A file of `schemas/truth` belongs to the schema of its name, invented (`NAME.sql`) or real
(`facts/NAME.json`), or to that of its key `schema`. It holds:

- `setup`: rows that are there before auditdb is attached;
- `tables`: for each table what it is (see `Table`);
- `admins`, `others`: "organisation user" who may read the log, and who may not;
- `play`: what the application does, and what the log must tell (see `Play`);
- `known`: the checks that fail today. A check of them that passes fails its test: take it out.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from auditdb.detect.propose import detect
from auditdb.errors import AuditError
from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from tests import schemas

TRUTH = schemas.HERE / "truth"
NAMES = tuple(sorted(path.stem for path in TRUTH.glob("*.toml")))

# How a table may stand in the file that detect proposes, the most certain first.
STANDS = ("certain", "asked", "commented", "left out", "unmentioned")
# A value that plays write where a secret goes holds this word; so it would look encoded.
SECRET = "SECRET"
_AS_TEXT = (SECRET, SECRET.encode().hex(), base64.b64encode(SECRET.encode()).decode())


@dataclass(frozen=True)
class Table:
    """What a table is: words of a truth file such as "membership", "user?", "none", "noise".

    A kind: it is in force in the unedited file. A kind and `?`: a commented block will do. `none`:
    not in force, and mentioned. `noise`: not in force. `a|b`: any of them. `asked KIND`: no
    certainty, the catalog cannot tell.
    """

    name: str
    words: str

    def allows(self, kind: str | None, stand: str) -> bool:
        """Tell if the file may have the table so."""
        return any(self._allows(word.strip(), kind, stand) for word in self.words.split("|"))

    @staticmethod
    def _allows(word: str, kind: str | None, stand: str) -> bool:
        level = STANDS.index(stand)
        if word in ("none", "noise"):
            return level >= 2 and (word == "noise" or level < 4)
        if word.startswith("asked "):
            return kind == word.removeprefix("asked ") and level in (1, 2)
        return kind == word.rstrip("?") and level <= (2 if word.endswith("?") else 1)

    def fault(self, kind: str | None, stand: str) -> str:
        """Name what it is if it is not right: wrong, question or unmentioned."""
        if self.allows(kind, stand):
            return "right"
        if stand in ("certain", "asked"):
            return "wrong"
        return "question" if stand == "commented" else stand


@dataclass(frozen=True)
class Play:
    """What an application does, and the events: "action organisation target subject [role>role]".

    `-` is null, `*` is anything, `a|b` is either. Each of `does` is a transaction of its own.
    Where several ways of telling are right, `finds` says what must be among the events, `never`
    which actions must not, and `most` how many there may be. After it, `admins` may read the log
    and `others` may not. `~7` is the UUID that ends with 7.
    """

    name: str
    does: tuple[str, ...]
    tells: tuple[str, ...] = ()
    finds: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    most: int = 99
    admins: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """The truth about a schema."""

    name: str
    schema: str
    setup: str
    tables: tuple[Table, ...]
    plays: tuple[Play, ...]
    admins: tuple[str, ...]
    others: tuple[str, ...]
    known: frozenset[str]

    def checks(self) -> list[str]:
        """Return the ids of all that is checked."""
        ids = [f"table {table.name}" for table in self.tables]
        ids += [f"admin {pair}" for pair in self.admins]
        ids += [f"no admin {pair}" for pair in self.others]
        for play in self.plays:
            ids.append(f"play {play.name}")
            if any(SECRET in statement for statement in play.does):
                ids.append(f"secrets of {play.name}")
        assert len(ids) == len(set(ids)), Counter(ids).most_common(1)
        return ids


@cache
def read(name: str) -> Truth:
    """Return the truth about a schema."""
    text = (TRUTH / f"{name}.toml").read_text("utf-8")
    told = tomllib.loads(re.sub(r"~(\d)", r"00000000-0000-0000-0000-00000000000\1", text))
    given = {"schema", "setup", "tables", "play", "admins", "others", "known"}
    assert set(told) <= given, set(told) - given
    return Truth(
        name,
        told.get("schema", name),
        told.get("setup", ""),
        tuple(Table(table, words) for table, words in told["tables"].items()),
        tuple(
            Play(**{k: tuple(v) if isinstance(v, list) else v for k, v in one.items()})
            for one in told.get("play", [])
        ),
        tuple(told.get("admins", [])),
        tuple(told.get("others", [])),
        frozenset(told.get("known", [])),
    )


def ddl(schema: str) -> str:
    """Return the DDL of a schema."""
    path = schemas.HERE / f"{schema}.sql"
    return path.read_text("utf-8") if path.exists() else schemas.ddl(Path(schema).name)


@dataclass
class Outcome:
    """What came of a schema's checks: nothing where one is right, else what is wrong."""

    faults: dict[str, str | None] = field(default_factory=dict)
    scores: Counter[str] = field(default_factory=Counter)
    file: str = ""


def play(truth: Truth, superuser: str, owner: str) -> Outcome:
    """Build a schema in a database with auditdb, attach what detect is certain of, play all.

    Args:
        truth: what is right.
        superuser: the address of the database, as superuser.
        owner: the same as the role that owns the tables.
    """
    with (
        psycopg.connect(owner, autocommit=True) as conn,
        psycopg.connect(superuser, autocommit=True, row_factory=dict_row) as log,
    ):
        log.execute(f'grant create on database "{log.info.dbname}" to app_owner'.encode())
        conn.execute(ddl(truth.schema).encode())
        conn.execute(truth.setup.encode())
        conn.execute("set search_path = public")
        outcome = Outcome(file=detect(conn).to_toml())
        stage = _Stage(conn, log, outcome)
        stage.tables(truth.tables)
        try:
            apply(conn, load(outcome.file))
        except AuditError as e:
            outcome.faults = dict.fromkeys(truth.checks(), f"attach fails: {e}")
            return outcome
        stage.admins("admin ", truth.admins, True)
        stage.admins("no admin ", truth.others, False)
        for one in truth.plays:
            stage.play(one)
    return outcome


@dataclass
class _Stage:
    conn: psycopg.Connection[Any]
    log: psycopg.Connection[Any]
    outcome: Outcome
    last: int = 0

    def check(self, check: str, fault: str | None) -> None:
        self.outcome.faults[check] = fault
        self.outcome.scores[f"{check.split()[0]} {'wrong' if fault else 'right'}"] += 1

    def tables(self, tables: tuple[Table, ...]) -> None:
        stands = standing(self.outcome.file)
        for table in tables:
            row = self.conn.execute(
                "select format('%%I.%%I', n.nspname, c.relname) from pg_class as c "
                "join pg_namespace as n on n.oid = relnamespace where c.relkind in ('r', 'p') "
                "and %s::text in (c.relname, n.nspname || '.' || c.relname) "
                "and n.nspname not like 'audit%%' and n.nspname not like 'pg%%'",
                (table.name,),
            ).fetchone()
            assert row is not None, f"there is no table {table.name}"
            kind, stand = stands.get(row[0], (None, "unmentioned"))
            if stand == "unmentioned" and _is_named(row[0], self.outcome.file):
                stand = "left out"
            fault = table.fault(kind, stand)
            self.outcome.scores[fault] += 1
            is_asked = stand in ("asked", "commented")
            self.outcome.scores["questions"] += is_asked
            stood = f"{stand}{f' as {kind}' if kind else ''}, not '{table.words}'"
            self.outcome.faults[f"table {table.name}"] = None if fault == "right" else stood

    def admins(self, check: str, pairs: tuple[str, ...], may: bool) -> None:
        for pair in pairs:
            is_so = self.may_read(pair) == may
            self.check(check + pair, None if is_so else f"may read: {not may}")

    def may_read(self, pair: str) -> bool:
        organization, user = pair.split()
        row = self.log.execute(
            "select audit_private.is_admin(%s, %s) as may", (organization, user)
        ).fetchone()
        return row is not None and bool(row["may"])

    def play(self, one: Play) -> None:
        for statement in one.does:
            self.conn.execute(statement.encode())
        events = self.log.execute(
            "select * from audit.event where id > %s and action !~ '^audit[.]' order by id",
            (self.last,),
        ).fetchall()
        self.last = max([self.last, *(event["id"] for event in events)])
        told = [_told(event) for event in events]
        fault = None
        if not _is_right(one, told):
            fault = "\n".join(["told:", *told, "expected:", *(one.finds or one.tells)])
        lost = [e["details"]["degraded"] for e in events if "degraded" in (e["details"] or {})]
        if lost:
            fault = f"degraded: {lost}"
        for pairs, may in ((one.admins, True), (one.others, False)):
            for pair in pairs:
                if self.may_read(pair) != may:
                    fault = f"{fault or ''}\n{pair} may read: {not may}"
        self.check(f"play {one.name}", fault)
        if any(SECRET in statement for statement in one.does):
            shown = [event["action"] for event in events if shows_secret(event)]
            self.check(f"secrets of {one.name}", f"shown in {shown}" if shown else None)


def shows_secret(event: Any) -> bool:
    """Tell if what the plays write as a secret stands anywhere in an event."""
    text = repr(event)
    return any(coded in text for coded in _AS_TEXT)


def standing(file: str) -> dict[str, tuple[str | None, str]]:
    """Return kind and stand of each table that has a block in a proposed file."""
    found: dict[str, tuple[str | None, str]] = {}
    for block in re.split(r"^(?=#? ?\[\[table\]\])", file, flags=re.M)[1:]:
        block = block.split("\n\n")[0]
        is_comment = block.startswith("#")
        lines = [
            line.removeprefix("#").strip() if is_comment else line for line in block.split("\n")
        ]
        keys = tomllib.loads(
            "\n".join(line for line in lines if re.match(r"(name|kind) = ", line))
        )
        stand = "commented" if is_comment else "asked" if "# ?" in block else "certain"
        found.setdefault(keys["name"], (keys["kind"], stand))
    return found


def _is_named(table: str, file: str) -> bool:
    """Tell if a comment of the file names a table."""
    comments = " ".join(
        line.lstrip("#").strip() for line in file.splitlines() if line.startswith("#")
    )
    return re.search(rf"(?<![\w.]){re.escape(table)}(?![\w\"])", comments) is not None


def _told(event: dict[str, Any]) -> str:
    words = [event[k] or "-" for k in ("action", "organization_id", "target_id", "subject_id")]
    details = event["details"] or {}
    if "previous_role" in details or "new_role" in details:
        words.append(f"{details.get('previous_role') or ''}>{details.get('new_role') or ''}")
    return " ".join(words)


def _is_right(one: Play, told: list[str]) -> bool:
    if one.finds is None:
        return len(told) == len(one.tells) and all(map(_matches, one.tells, told))
    return (
        len(told) <= one.most
        and not {event.split()[0] for event in told} & set(one.never)
        and all(any(_matches(wanted, event) for event in told) for wanted in one.finds)
    )


def _matches(expected: str, told: str) -> bool:
    wanted, have = expected.split(" ", 4), told.split(" ", 4)
    if len(wanted) == 4:
        have = have[:4]
    return len(wanted) == len(have) and all(
        w == "*" or h in w.split("|") for w, h in zip(wanted, have, strict=True)
    )


@contextlib.contextmanager
def _server() -> Iterator[tuple[str, str]]:
    """Start a server with a template, and give the addresses of superuser and owner."""
    import auditdb
    from tests.conftest import ROLES
    from tests.server import running

    with running() as server:
        base = f"host={server.host} port={server.port} password=secret user="
        with psycopg.connect(f"{base}{server.user} dbname=postgres", autocommit=True) as conn:
            conn.execute("create database template_truth")
        auditdb.install(f"{base}{server.user} dbname=template_truth")
        with psycopg.connect(f"{base}{server.user} dbname=template_truth") as conn:
            conn.execute(ROLES.encode())
            conn.execute("alter schema public owner to app_owner")
            conn.execute("grant usage on schema public to public")
        yield f"{base}{server.user} dbname=", f"{base}app_owner dbname="


def main() -> None:
    """Print the score of each schema; with names, also what is wrong; --file, what detect says."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="schemas; by default all")
    parser.add_argument("--file", action="store_true", help="print the proposed file")
    parser.add_argument("--known", action="store_true", help="print the lists of `known`")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    columns = ("right", "wrong", "question", "left out", "unmentioned", "questions")
    print(f"{'schema':18}" + "".join(f"{c:>12}" for c in (*columns, "plays", "admins", "secrets")))
    with _server() as (superuser, owner):
        for name in given.names or NAMES:
            with psycopg.connect(superuser + "postgres", autocommit=True) as conn:
                conn.execute(f'create database "{name}" template template_truth'.encode())
            outcome = play(read(name), superuser + f"'{name}'", owner + f"'{name}'")
            total += outcome.scores
            print(f"{name:18}" + _row(outcome.scores, columns), flush=True)
            if given.file:
                print(outcome.file)
            faults = {check: fault for check, fault in outcome.faults.items() if fault}
            if given.known:
                print("known = [", *(f'    "{check}",' for check in faults), "]", sep="\n")
            elif given.names:
                for check, fault in faults.items():
                    print(f"- {check}: {fault}")
    print(f"{'all':18}" + _row(total, columns))


def _row(scores: Counter[str], columns: tuple[str, ...]) -> str:
    def of(*words: str) -> str:
        right = sum(scores[f"{word} right"] for word in words)
        return f"{right}/{right + sum(scores[f'{word} wrong'] for word in words)}"

    cells = [str(scores[column]) for column in columns]
    cells += [of("play"), of("admin", "no"), of("secrets")]
    return "".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    main()
