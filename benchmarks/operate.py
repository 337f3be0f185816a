"""Measures what operating costs: many rows, clients and tables, maintenance, indexes.

python -m benchmarks.operate                  # an embedded server, everything, docs/operate.json
python -m benchmarks.operate --only writers   # one part; the others keep their old numbers
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, product
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.operate import doctor
from auditdb.operate.maintain import maintain
from benchmarks import inserver, many, report
from benchmarks.capture import address
from benchmarks.clients import UPDATE
from benchmarks.contenders import ATTACH, CONTEXT
from benchmarks.environment import environment
from benchmarks.workloads import ROWS, TABLES, workloads

Conn = psycopg.Connection[Any]
NAMES = ("no audit", "auditdb")
# On audit.event, beside its primary key: what an index costs the writer.
INDEXES = {
    "no other": "drop index audit.event_organization_id_idx",
    "(organization_id, occurred_at desc, id desc)":
        "drop index audit.event_organization_id_idx; "
        "create index on audit.event (organization_id, occurred_at desc, id desc)",
    "and in it action, actor_id, target_id: as it is": "",
    "and (organization_id, target_id, occurred_at desc, id desc)":
        "create index on audit.event (organization_id, target_id, occurred_at desc, id desc)",
}  # fmt: skip
DATABASES = {name: "bench_operate_" + name.replace(" ", "_") for name in NAMES}
CLIENTS = 8
SIZES = tuple(10**n for n in range(7))
# How often each is measured; statements of 100,000 rows and more, once.
ROUNDS = 7
BULK = {
    "UPDATE": "update member set name = name || 'x', quota = quota + 1 where id <= {rows}",
    "INSERT": "insert into member select 2000000 + g, g % 50, g, 'MEMBER', 'name', "
    "'mail@example.com', 1, true, now() from generate_series(1, {rows}) as g",
}


def drop(dsn: str) -> None:
    """Drop the databases of the benchmark."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        others = [f"bench_operate_index_{n}" for n in range(len(INDEXES))]
        for database in [*DATABASES.values(), *others]:
            ident = sql.Identifier(database)
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(ident))


@contextmanager
def prepared(dsn: str) -> Iterator[dict[str, str]]:
    """Make a database without and one with audit, yield their addresses, and drop them."""
    drop(dsn)
    found = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name, database in DATABASES.items():
            ident = sql.Identifier(database)
            conn.execute(sql.SQL("create database {} template template0").format(ident))
            found[name] = make_conninfo(dsn, dbname=database)
            with psycopg.connect(found[name], autocommit=True) as inside:
                inside.execute(TABLES.encode())
                if name == "auditdb":
                    auditdb.install(found[name])
                    inside.execute(ATTACH.encode())
    try:
        yield found
    finally:
        drop(dsn)


def anonymous_kb(pid: int) -> int | None:
    """Return a process's private memory, or nothing if it runs on another machine."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next((int(x.split()[1]) for x in status.splitlines() if "RssAnon" in x), None)


def timed(dsn: str, text: str, size: int) -> tuple[float, int | None]:
    """Run one statement and roll it back: seconds, and peak private memory in kB."""
    with psycopg.connect(dsn) as conn:
        # A new backend, whose memory nothing else has grown, compiles the capture at the first row.
        conn.execute(text.format(rows=1).encode())
        conn.rollback()
        pid, stop, peak = (
            conn.info.backend_pid,
            threading.Event(),
            [anonymous_kb(conn.info.backend_pid)],
        )

        def sample() -> None:
            while not stop.wait(0.005):
                peak.append(anonymous_kb(pid))

        thread = threading.Thread(target=sample)
        thread.start()
        started = time.perf_counter()
        conn.execute(text.format(rows=size).encode())
        seconds = time.perf_counter() - started
        stop.set()
        thread.join()
        peak.append(anonymous_kb(pid))
        conn.rollback()
    return seconds, max((p for p in peak if p is not None), default=None)


def bulk(
    dsns: dict[str, str], sizes: Sequence[int] = SIZES, rounds: Iterable[int] = range(ROUNDS)
) -> list[dict[str, Any]]:
    """Return what one statement of many rows costs, by number of rows."""
    for dsn in dsns.values():
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "insert into member select g, g % 50, g, 'MEMBER', 'name', 'mail@example.com', 1, "
                f"true, now() from generate_series({ROWS + 1}, {max(sizes)}) as g".encode()
            )
            conn.execute("vacuum analyze member")
    samples: dict[tuple[str, int, str], list[tuple[float, int | None]]] = defaultdict(list)
    for number in rounds:
        for kind, size, name in product(BULK, sizes, NAMES):
            if number == 0 or size < 100_000:
                samples[kind, size, name].append(timed(dsns[name], BULK[kind], size))
    rows = []
    for kind, size in product(BULK, sizes):
        seconds = {n: statistics.median(s for s, _ in samples[kind, size, n]) for n in NAMES}
        row: dict[str, Any] = {"statement": kind, "rows": size}
        row["added_us"] = round((seconds["auditdb"] - seconds["no audit"]) * 1e6 / size, 1)
        for n in NAMES:
            memory = [kb for _, kb in samples[kind, size, n] if kb is not None]
            row[f"{n}_mb"] = round(max(memory) / 1024, 1) if memory else None
        rows.append(row)
    return rows


def _client(pipe: Pipe, dsns: dict[str, str], number: int) -> None:
    # Ctrl+C is for the parent, whose end is the end of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    conns = {n: psycopg.connect(d, autocommit=True) for n, d in dsns.items()}
    share = ROWS // CLIENTS
    for name, seconds, one in iter(pipe.recv, None):
        conn, waits, n = conns[name], [], 0
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            # Members of organisation 0 are every fiftieth; no row has two writers.
            row = 1 + number * share + n % share
            row = 50 * (1 + number + CLIENTS * (n % 12)) if one else row
            if name == "auditdb":
                with auditdb.context(conn, actor_id="u_4711", details={"ip": "203.0.113.9"}):
                    conn.execute(UPDATE, ["name", row], prepare=True)
            else:
                with conn.transaction():
                    conn.execute(UPDATE, ["name", row], prepare=True)
            waits.append(time.perf_counter() - started)
            n += 1
        pipe.send(waits)
    for conn in conns.values():
        conn.close()


class Clients:
    """Writers, a process each; `run` lets some of them write for a while."""

    def __init__(self, dsns: dict[str, str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipes: list[Pipe] = []
        for number in range(CLIENTS):
            ours, theirs = spawn.Pipe()
            spawn.Process(target=_client, args=(theirs, dsns, number), daemon=True).start()
            self.pipes.append(ours)
        self.run("auditdb", 0.2)

    def start(self, name: str, seconds: float, clients: int = CLIENTS, one: bool = False) -> None:
        """Let writers begin."""
        for pipe in self.pipes[:clients]:
            pipe.send((name, seconds, one))

    def waits(self, clients: int = CLIENTS) -> list[float]:
        """Return the seconds of each transaction."""
        return [s for pipe in self.pipes[:clients] for s in pipe.recv()]

    def run(self, name: str, seconds: float, clients: int = CLIENTS, one: bool = False) -> int:
        """Return how many transactions were done."""
        self.start(name, seconds, clients, one)
        return len(self.waits(clients))

    def close(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send(None)


class Monitor:
    """Samples what writers wait for, and for how long they wait for locks."""

    def __init__(self, dsn: str) -> None:
        self.events: Counter[str] = Counter()
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(dsn,), daemon=True)
        self._thread.start()

    def _watch(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not self._stop.wait(0.003):
                rows = conn.execute(
                    "select concat_ws(':', wait_event_type, wait_event), coalesce((select max("
                    "extract(epoch from clock_timestamp() - waitstart)) from pg_locks as l "
                    "where l.pid = a.pid and not granted), 0)::float8 from pg_stat_activity as a "
                    "where datname ~ '^bench_operate' and pid <> pg_backend_pid() "
                    "and state = 'active' and query ~* "
                    "'^(update member|begin|commit|select audit[.]set)'"
                ).fetchall()
                for event, wait in rows:
                    self.events[event or "running"] += 1
                    self.longest = max(self.longest, wait)

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def writers(
    dsns: dict[str, str], seconds: float = 1.0, rounds: Iterable[int] = range(ROUNDS)
) -> list[dict[str, Any]]:
    """Return throughput, its ratio to no audit, and what writers wait for."""
    clients = Clients(dsns)
    done: dict[tuple[bool, str, int], list[float]] = defaultdict(list)
    waits: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for _ in rounds:
        for one in (False, True):
            monitor = Monitor(dsns["auditdb"])
            for name, at_once in product(NAMES, (1, CLIENTS)):
                per_second = clients.run(name, seconds, at_once, one) / seconds
                done[one, name, at_once].append(per_second)
            monitor.stop()
            waits[one] += monitor.events
    clients.close()
    rows = []
    for one in (False, True):
        pairs = {c: zip(*(done[one, n, c] for n in NAMES), strict=True) for c in (1, CLIENTS)}
        ratio = {
            c: statistics.median(with_ / none for none, with_ in of) for c, of in pairs.items()
        }
        for at_once in (1, CLIENTS):
            rows.append({
                "organisations": "one" if one else "many", "clients": at_once,
                **{n: round(statistics.median(done[one, n, at_once])) for n in NAMES},
                "ratio": round(ratio[at_once], 3),
                "ratio_to_1_client": round(ratio[at_once] / ratio[1], 3),
                "lock_waits": sum(v for k, v in waits[one].items() if k.startswith("Lock:")),
                "waits": dict(waits[one].most_common()),
            })  # fmt: skip
    return rows


def indexes(
    dsns: dict[str, str], rounds: Iterable[int] = range(ROUNDS + 1), loop: int = 2000
) -> list[dict[str, Any]]:
    """Return what a captured row costs with each set of indexes, beyond that of no other."""
    conns = []
    for number, ddl in enumerate(INDEXES.values()):
        name = f"bench_operate_index_{number}"
        with psycopg.connect(dsns["no audit"], autocommit=True) as conn:
            template = sql.Identifier(DATABASES["auditdb"])
            create = sql.SQL("create database {} template {}")
            conn.execute(create.format(sql.Identifier(name), template))
        conns.append(psycopg.connect(make_conninfo(dsns["auditdb"], dbname=name), autocommit=True))
        conns[-1].execute(ddl.encode())
    singles = [w for w in workloads(loop) if w.name in ("update", "insert", "delete")]
    micros: dict[tuple[int, str], list[float]] = defaultdict(list)
    wal: dict[tuple[int, str], list[float]] = defaultdict(list)
    for round_number in rounds:
        for work in singles:
            for number, conn in enumerate(conns):
                conn.execute("vacuum member")
                before = inserver.wal_position(conn)
                block = work.block(round_number=round_number, context=CONTEXT, floor=False)
                conn.execute(block.encode())
                row = conn.execute("select current_setting('bench.elapsed')::float8").fetchone()
                if row and round_number > 0:
                    micros[number, work.name].append(row[0] * 1e6 / work.rows)
                    wal[number, work.name].append(
                        (inserver.wal_position(conn) - before) / work.rows
                    )
    for conn in conns:
        conn.close()
    return [
        {
            "indexes": title,
            **{
                f"{w.name} {unit}": round(min(of[number, w.name]) - min(of[0, w.name]), digits)
                for w in singles
                for unit, of, digits in (("us", micros, 1), ("wal_bytes", wal, None))
            },
        }
        for number, title in enumerate(INDEXES)
    ]


def fill(dsn: str, events: int, month: str) -> None:
    """Write events of a month that has no partition."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source, new_values) "
            "select %s::timestamptz + g * interval '1 ms', 'test.old', 'success', 'system', "
            "'test', jsonb_build_object('name', repeat('x', 100)) from generate_series(1, %s) as g",
            [month, events],
        )


def works(dsn: str) -> list[tuple[str, Callable[[], object], Callable[[Conn], object]]]:
    """Return what is done under writers: its name, what precedes it, and itself."""

    def nothing() -> None:
        pass

    def query(text: str) -> Callable[[Conn], object]:
        return lambda conn: conn.execute(text.encode())

    def new_table() -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute("drop table if exists fresh; create table fresh (id int primary key)")

    return [
        ("nothing", nothing, lambda conn: time.sleep(1)),
        ("maintain: creates 12 months", nothing, lambda conn: maintain(conn, ahead=15)),
        ("maintain: drains 1,000 events", lambda: fill(dsn, 1000, "2020-03-01"), maintain),
        ("maintain: drains 100,000 events", lambda: fill(dsn, 100_000, "2020-05-01"), maintain),
        ("maintain: drops 2 months", nothing,
         lambda conn: maintain(conn, keep="24 months", ahead=15, force=True)),
        ("attach a new table", new_table, query("select audit.attach('fresh', 'fresh')")),
        ("attach the written table again", nothing,
         query("select audit.attach('public.member', 'membership')")),
        ("detach and attach the written table", nothing,
         query("select audit.detach('public.member'); " + ATTACH.splitlines()[1])),
        ("baseline of the written table", nothing,
         lambda conn: auditdb.baseline(conn, "public.member")),
        ("install again", nothing, lambda conn: auditdb.install(dsn)),
        ("doctor", nothing, doctor.diagnose),
        ("status", nothing, query("select audit.list_tables(), audit.list_partitions()")),
    ]  # fmt: skip


def maintenance(
    dsns: dict[str, str], seconds: float = 4.0, rounds: Iterable[int] | None = None
) -> list[dict[str, Any]]:
    """Return how long a writer waited at most, in all and for a lock, while each work was done."""
    clients, dsn, rows = Clients(dsns), dsns["auditdb"], []
    for (title, before, work), _ in zip(works(dsn), rounds or count(), strict=False):
        before()
        monitor = Monitor(dsn)
        clients.start("auditdb", seconds)
        with psycopg.connect(dsn, autocommit=True) as conn:
            time.sleep(0.5)
            started = time.perf_counter()
            work(conn)
            took = time.perf_counter() - started
        waits = clients.waits()
        monitor.stop()
        rows.append({
            "while": title, "took_ms": round(took * 1000),
            "longest_ms": round(max(waits) * 1000),
            "longest_lock_wait_ms": round(monitor.longest * 1000),
        })  # fmt: skip
    clients.close()
    return rows


PARTS: dict[str, Callable[[dict[str, str]], list[dict[str, Any]]]] = {
    "writers": writers,
    "maintenance": maintenance,
    "bulk": bulk,
    "indexes": indexes,
    "attach": many.attach,
    "commands": many.commands,
    "memory": many.memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.operate", description=__doc__)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for operate.json")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    options = parser.parse_args()
    path = options.out / "operate.json"
    result = json.loads(path.read_text("utf-8")) if path.exists() else {}
    with address(options.dsn) as dsn:
        result["environment"] = environment(dsn)
        for name, measure in PARTS.items():
            if options.only in (None, name):
                with prepared(dsn) as dsns:
                    result[name] = measure(dsns)
                print(f"{name}\n\n{report.markdown(result[name])}\n")
    options.out.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
