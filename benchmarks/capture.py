"""Measures what capture costs: in the server, and as an application sees it.

python -m benchmarks.capture            # an embedded server, everything, docs/capture.*
python -m benchmarks.capture --dsn ...  # any server; databases bench_* are made and dropped
python -m benchmarks.capture --only shapes --rounds 3   # every shape, without the packages
python -m benchmarks.capture --only compare   # docs/compare.json: each package, two tables
python -m benchmarks.capture --only compare --script other=other.sql   # beside a log of yours
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb.embedded
from benchmarks import clients, inserver, report, session
from benchmarks.contenders import CONTENDERS, Contender, of_script
from benchmarks.environment import environment
from benchmarks.workloads import Workload, workloads

# The same for every contender, and only on a server that the benchmark started itself. Without
# fsync the log's own cost is not hidden behind the disk's.
SETTINGS = {
    "fsync": "off",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "jit": "off",
}


@contextlib.contextmanager
def address(dsn: str | None) -> Iterator[str]:
    """Yield the address to measure on: the given one, or that of an embedded server."""
    if dsn is not None:
        yield dsn
        return
    with auditdb.embedded.server() as own:
        with psycopg.connect(own, autocommit=True) as conn:
            for name, value in SETTINGS.items():
                conn.execute(
                    sql.SQL("alter system set {} = {}").format(sql.Identifier(name), value)
                )
            conn.execute("select pg_reload_conf()")
        with apart(own):
            yield own


@contextlib.contextmanager
def apart(dsn: str) -> Iterator[None]:
    """Give the server and its clients processors of their own, as they have on two machines.

    Otherwise the scheduler decides, by how long each waits, whether the two share one; then a round
    trip takes 15 or 50 microseconds, and contenders are measured by its luck.
    """
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cpus) < 2:
        yield
        return
    with psycopg.connect(dsn) as conn:
        stat = Path(f"/proc/{conn.info.backend_pid}/stat").read_text()
    postmaster = int(stat.rpartition(")")[2].split()[1])
    os.sched_setaffinity(postmaster, cpus[len(cpus) // 2 :])
    os.sched_setaffinity(0, cpus[: len(cpus) // 2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """Yield the address of a new database, and drop it at the end."""
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(drop)
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            yield make_conninfo(dsn, dbname=name)
        finally:
            conn.execute(drop)


@contextlib.contextmanager
def databases(dsn: str, contenders: list[Contender]) -> Iterator[dict[str, str]]:
    """Yield the address of each contender's database, prepared; drop them all at the end."""
    addresses = {}
    with contextlib.ExitStack() as stack:
        for contender in contenders:
            own = stack.enter_context(database(dsn, contender.database))
            contender.prepare(own)
            addresses[contender.name] = own
        yield addresses


def in_server(
    contenders: list[Contender],
    dsns: dict[str, str],
    work: Sequence[Workload],
    rounds: Iterable[int],
) -> dict[str, Any]:
    """Return what each workload costs with each contender, by the workload's name."""
    samples = inserver.run(contenders, dsns, work, rounds=rounds)
    return {
        w.name: {
            "title": w.title,
            "rows": w.rows,
            "contenders": inserver.summarise(samples[w.name]),
        }
        for w in work
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.capture", description=__doc__)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    parser.add_argument("--rounds", type=int, default=9, help="at least 7 (default %(default)s)")
    parser.add_argument("--rows", type=int, default=2000, help="rows of a loop (%(default)s)")
    parser.add_argument("--transactions", type=int, default=400, help="of a client (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for JSON and SVG")
    parser.add_argument(
        "--only", choices=["server", "shapes", "compare", "application", "session"],
        help="one level alone; shapes: of the server, without the packages; "
        "compare: of the server, what every package can do",
    )  # fmt: skip
    parser.add_argument(
        "--script", action="append", default=[], metavar="NAME=FILE",
        help="with compare: another log, installed on member and wide by a file of SQL",
    )  # fmt: skip
    parser.add_argument("--name", help="of the JSON (by default capture, or compare)")
    options = parser.parse_args()
    only, quick = options.only, options.only == "shapes"

    contenders = [c for c in CONTENDERS if c.shapes] if quick else CONTENDERS
    work = [w for w in workloads(options.rows) if w.shape or not quick]
    if only == "session":
        contenders = [c for c in CONTENDERS if c.name in session.MEASURED]
    if only == "compare":
        scripts = (given.partition("=") for given in options.script)
        contenders = [c for c in CONTENDERS if c.name not in ("by hand", "auditdb without context")]
        contenders = contenders + [of_script(name, Path(file)) for name, _, file in scripts]
        work = [w for w in work if w.table in ("member", "wide")]
    with address(options.dsn) as dsn, databases(dsn, contenders) as dsns:
        result: dict[str, Any] = {"environment": environment(dsn), "rounds": options.rounds}
        result |= {level: {} for level in report.LEVELS}
        if only in (None, "server", "shapes", "compare"):
            measured = [c for c in contenders if c.name != "by hand"]
            result["in_server"] = in_server(measured, dsns, work, range(options.rounds + 1))
            if only != "compare":
                result["shapes"] = inserver.by_shape(work, result["in_server"])
        if only in (None, "session"):
            result["session"] = session.run(dsns, rounds=range(20 * options.rounds))
        if only in (None, "application"):
            result["as_application"] = clients.run(
                dsns, rounds=range(options.rounds + 1), transactions=options.transactions
            )
    print(report.comparison(result) if only == "compare" else report.text(result, brief=quick))
    if quick:
        result["in_server"] = {}
    report.write(
        result, options.out, options.name or ("compare" if only == "compare" else "capture")
    )


if __name__ == "__main__":
    main()
