"""Bundles for an auditor: a zip with the hashed bytes of events, and their proofs.

A bundle of an organisation proves that none of its events is missing. It shows nothing of others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import psycopg

from auditdb.connection.pin import pinned
from auditdb.errors import InvalidInput, Refused, from_psycopg
from auditdb.evidence.chains import Chains
from auditdb.evidence.check import Archive
from auditdb.evidence.leaf import SALT, commit, event_entry
from auditdb.evidence.lines import COLUMNS, ORGANIZATION, erased_of, groups_of
from auditdb.evidence.note import encode, origin_of
from auditdb.evidence.organizations import map_entry, map_text
from auditdb.evidence.proof import Proof
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import Tree, leaf_hash
from auditdb.read.recorded import record_reading
from auditdb.read.viewer import Auditor

_VERIFY = "Run: auditdb verify"
_Progress = Callable[[int], None]


class Head(NamedTuple):
    """The newest checkpoint at the end of a tick: its note, its number of leaves, its tick."""

    note: str
    size: int
    tick: int


class Window(NamedTuple):
    """The ticks of a bundle: the one before, first, last, the one after; 0 means none."""

    before: int
    first: int
    last: int
    after: int


class Bundler:
    """Writes bundles of a sealed log.

    Args:
        conn: a connection of an auditor, in autocommit mode.
        archive: the archive of dropped months. Default: their events are missing.
    """

    def __init__(self, conn: psycopg.Connection[Any], archive: Archive | None = None) -> None:
        self._conn, self._stored, self._archive = conn, Stored(conn), archive

    def prove(self, events: list[int], output: Path) -> int:
        """Write a bundle of some events; each also has its proof in a separate file.

        Raises:
            Refused: an event is missing, not sealed yet, or was changed.
        """
        record_reading(self._conn, Auditor(None), "bundled", {"event_ids": [*map(str, events)]})
        with _snapshot(self._conn), _Zip(output) as out:
            head = self._head()
            tree = Tree(self._stored, head.size)
            lines = []
            for number in events:
                lines += list(self._lines(tree, [self._seal_of(number, head)], "id", number))
                if not lines or json.loads(lines[-1]["skeleton"])["id"] != str(number):
                    raise Refused(f"event {number} is no longer in the log")
            lines = sorted({line["index"]: line for line in lines}.values(), key=_index)
            for line in lines:
                proof = Proof(line["index"], tree.include(line["index"]), head.note)
                out.add(f"proofs/{line['index']:012}.tlog-proof", str(proof))
            self._write(out, head, None, None, None, None, iter(lines))
        return len(lines)

    def bundle(
        self, organization: str, output: Path, *, since: str | None = None,
        until: str | None = None, progress: _Progress = lambda n: None,
    ) -> int:  # fmt: skip
        """Write a bundle of all events of an organisation in a range of ticks.

        Args:
            organization: whose events.
            output: the zip to write.
            since: only events of ticks from this time on.
            until: only events of ticks before this time.
            progress: called with the number of events written since the last call.

        Raises:
            InvalidInput: since or until is not a valid time.
            Refused: the bundle cannot be complete.
        """
        said = {"since": since, "until": until}
        record_reading(self._conn, Auditor(organization), "bundled", said)
        with _snapshot(self._conn), _Zip(output) as out:
            head = self._head()
            since, until = self._time(since), self._time(until)
            window = self._window(head, since, until)
            chains = Chains(self._conn, organization, head.tick)
            chain = chains.links(window.before)
            tree = Tree(self._stored, head.size)
            named = {"before": window.before, "first": window.first, "last": window.last,
                     "after": window.after, "newest": head.tick}  # fmt: skip
            shown = {
                "salt": chains.salt.hex(),
                "before": chain.before.hex(),
                "chain": chain.entries,
                "bucket": [[key.hex(), entry.hex()] for key, entry in chains.bucket],
                "proof": [encode(part) for part in chains.path],
                "maps": {name: self._map(tree, tick) for name, tick in named.items() if tick},
            }
            ticks = [t for t, _ in chain.entries if window.before < t <= window.last]
            lines = self._lines(tree, self._seals(ticks), "organization_id", organization)
            count = self._write(out, head, organization, since, until, shown, lines, progress)
            expected = chain.total(window.last) - chain.total(window.before)
            if count != expected:
                raise Refused(
                    f"events of {organization} in that time: {expected}; missing: "
                    f"{expected - count}. If retention dropped them, give a later --since. If not: "
                    f"{_VERIFY}"
                )
        return count

    def _time(self, at: str | None) -> str | None:
        if at is None:
            return None
        try:
            with self._conn.transaction():
                row = self._conn.execute(
                    """select to_char(%s::timestamptz at time zone 'UTC',
                        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""", [at],
                ).fetchone()  # fmt: skip
        except psycopg.DataError as error:
            raise InvalidInput(f"{at!r} is not a time such as 2026-11-28T09:00Z") from error
        if row is None or row[0] is None or len(row[0]) != len("2026-11-28T09:00:00.000000Z"):
            raise InvalidInput(f"{at!r} is out of range; give one such as 2026-11-28T09:00Z")
        return str(row[0])

    def _head(self) -> Head:
        row = self._conn.execute(
            """select c.note, c.size, s.tick_id
            from audit.checkpoint as c
                cross join lateral (
                    select * from audit.seal as s where s.first_leaf < c.size
                    order by s.first_leaf desc limit 1) as s
            where s.is_last and s.first_leaf + octet_length(s.leaves) / 32 = c.size
            order by c.id desc limit 1"""
        ).fetchone()
        if row is None:
            raise Refused("nothing was sealed yet. Run: auditdb seal")
        return Head(*row)

    def _window(self, head: Head, since: str | None, until: str | None) -> Window:
        row = self._conn.execute(
            """select coalesce(min(id) filter (where made_at >= coalesce(%(since)s, '-infinity')
                    ::timestamptz), 0),
                coalesce(max(id) filter (where made_at < coalesce(%(until)s, 'infinity')
                    ::timestamptz), 0)
            from audit.tick where id <= %(newest)s""",
            {"since": since, "until": until, "newest": head.tick},
        ).fetchone()
        assert row is not None
        first, last = row
        if not first or last < first:
            raise Refused("no events were sealed in that time; give another --since or --until")
        return Window(first - 1, first, last, last + 1 if last < head.tick else 0)

    def _map(self, tree: Tree, tick: int) -> dict[str, Any]:
        """Return the leaf of the map of a tick, with its proof."""
        row = self._conn.execute(
            """select s.first_leaf + octet_length(s.leaves) / 32 - 1,
                to_char(t.made_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), o.root
            from audit.seal as s join audit.tick as t on t.id = s.tick_id
                join audit.organization_seal as o on o.tick_id = s.tick_id
            where s.tick_id = %s and s.is_last""",
            [tick],
        ).fetchone()
        if row is None or leaf_hash(map_entry(tick, *row[1:])) != tree.leaf(row[0]):
            raise Refused(
                f"the organisations of tick {tick} are not as they were sealed. {_VERIFY}"
            )
        index, text = row[0], map_text(tick, *row[1:])
        return {"index": index, "map": text, "proof": [encode(h) for h in tree.include(index)]}

    def _seal_of(self, number: int, head: Head) -> int:
        row = self._conn.execute(
            """select s.id from audit.tick_month as m
                join audit.seal as s on s.tick_id = m.tick_id and s.month = m.month
            where %(id)s between m.first_id and m.last_id and s.ids @> array[%(id)s::bigint]
                and s.tick_id <= %(tick)s""",
            {"id": number, "tick": head.tick},
        ).fetchone()
        if row is None:
            raise Refused(f"event {number} does not exist, or is not sealed yet")
        return int(row[0])

    def _seals(self, ticks: list[int]) -> Iterator[int]:
        for tick in ticks:
            yield from (row[0] for row in self._conn.execute(
                "select id from audit.seal where tick_id = %s and ids <> '{}' order by id", [tick]
            ).fetchall())  # fmt: skip

    def _lines(
        self, tree: Tree, seals: Iterator[int] | list[int], name: str, value: object
    ) -> Iterator[dict[str, Any]]:
        """Yield the lines of events of some rows of audit.seal, in the order of their leaves."""
        for number in seals:
            row = self._conn.execute(
                """select s.first_leaf, s.first_at::text, s.last_at::text, s.ids, s.salts,
                    r.key::text, s.month::text
                from audit.seal as s join audit.tick as t on t.id = s.tick_id
                    join audit.series as r on r.id = t.series_id
                where s.id = %s""",
                [number],
            ).fetchone()
            assert row is not None
            first, since, until, ids, salts, series, month = row
            place = {event: at for at, event in enumerate(ids)}
            found = self._conn.execute(
                f"""select {COLUMNS} from audit.event as e
                where e.occurred_at >= %s and e.occurred_at <= %s and e.id = any (%s)
                    and e.{name} = %s""".encode(),
                [since, until, ids, value],
            ).fetchall()
            if self._archive is not None:
                found += self._archived(month, ids, name, value)
            for event in sorted(found, key=lambda event: place[int(event[0])]):
                at = place[int(event[0])]
                salt = bytes(salts[at * SALT : (at + 1) * SALT])
                skeleton, personal = groups_of(event, series)
                kept = erased_of(event, salt)
                commitment = kept.commitment if kept else commit(salt, personal)
                if leaf_hash(event_entry(skeleton, commitment)) != tree.leaf(first + at):
                    raise Refused(f"event {event[0]} is not as it was sealed. {_VERIFY}")
                shown = (
                    {"salt": salt.hex(), "personal": personal.decode()} if kept is None
                    else {"commitment": commitment.hex()}
                )  # fmt: skip
                yield {
                    "index": first + at,
                    "skeleton": skeleton.decode(),
                    **shown,
                    "proof": [encode(part) for part in tree.include(first + at)],
                }

    def _archived(
        self, month: str, ids: list[int], name: str, value: object
    ) -> list[tuple[Any, ...]]:
        """Return the events of a row of audit.seal that are only in the archive."""
        assert self._archive is not None
        there = self._conn.execute(
            "select e.id from audit.event as e where e.id = any (%s)", [ids]
        ).fetchall()
        absent = sorted({*ids} - {number for (number,) in there})
        rows = list(self._archive.rows(month, absent)) if absent else []
        if self._archive.problems:
            raise Refused(self._archive.problems[0])
        column, wanted = {"id": 0, "organization_id": ORGANIZATION}[name], str(value)
        return [row for row in rows if row[column] == wanted]

    def _write(
        self, out: _Zip, head: Head, organization: str | None, since: str | None,
        until: str | None, shown: dict[str, Any] | None, lines: Iterator[dict[str, Any]],
        progress: _Progress = lambda n: None,
    ) -> int:  # fmt: skip
        count = 0
        with out.open("events.jsonl") as file:
            for line in lines:
                file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
                count += 1
                progress(1)
        if shown is not None:
            out.add("complete.json", json.dumps(shown))
        out.add("checkpoint", head.note)
        for number, note in enumerate(self._stored.rotations(), 1):
            out.add(f"keys/{number:03}", note)
        claim = {
            "version": 1, "log": origin_of(head.note), "events": count,
            "organization": organization, "since": since, "until": until,
        }  # fmt: skip
        out.add("manifest.json", json.dumps(claim, indent=1, ensure_ascii=False) + "\n")
        for name, source in (("verify.py", "verify.py"), ("README.txt", "bundle.txt")):
            out.add(name, files("auditdb.evidence").joinpath(source).read_text("utf-8"))
        return count


@contextmanager
def _snapshot(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Open a read-only transaction with one snapshot."""
    try:
        with conn.transaction():
            conn.execute("set transaction isolation level repeatable read, read only")
            with pinned(conn):
                yield
    except psycopg.Error as error:
        raise from_psycopg(error) from error


class _Zip:
    """A zip file that is written atomically."""

    def __init__(self, path: Path) -> None:
        self._path, self._apart = path, path.with_name(f".{path.name}.tmp")

    def __enter__(self) -> _Zip:
        try:
            self._zip = ZipFile(self._apart, "w", ZIP_DEFLATED)
        except OSError as error:
            raise InvalidInput(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._zip.close()
        if error is None:
            self._apart.replace(self._path)
        else:
            with suppress(OSError):
                self._apart.unlink()

    def open(self, name: str) -> IO[bytes]:
        """Open a file to write."""
        info = ZipInfo(name)
        info.compress_type, info.external_attr = ZIP_DEFLATED, 0o644 << 16
        return self._zip.open(info, "w", force_zip64=True)

    def add(self, name: str, text: str) -> None:
        """Write a file."""
        with self.open(name) as file:
            file.write(text.encode())


def _index(line: dict[str, Any]) -> int:
    return int(line["index"])
