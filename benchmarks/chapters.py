"""The chapters of `python -m benchmarks`: a short form of each benchmark, and how long it may take.

A chapter measures with the functions of the benchmark that it is of, with fewer rows and rounds.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from benchmarks import (
    archive,
    capture,
    claims,
    clients,
    collect,
    cpu,
    evidence,
    export,
    formats,
    former,
    frameworks,
    inserver,
    integrations,
    many,
    operate,
    packages,
    page,
    read,
    reconcile,
    report,
    session,
    whole,
    years,
)
from benchmarks.capture import database, databases
from benchmarks.chart import Panel
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.runner import Chapter, Found, LeftOut, Run
from benchmarks.workloads import Workload, workloads
from tests.server import Server

Rows = list[dict[str, Any]]
SINGLES = ("update", "insert", "delete")
MANY = ("update_many", "insert_many", "delete_many")


def bars(rows: Rows, value: str, *names: str) -> list[tuple[str, float]]:
    """Return the bars of one column, named by others; rows without a number are left out."""
    return [
        (", ".join(f"{row[name]}" for name in names or ("",)), float(row[value]))
        for row in rows
        if row[value] is not None
    ]


def panels(rows: Rows, values: Sequence[str], *names: str, title: str = "{}") -> list[Panel]:
    """Return a panel for each of some columns."""
    return [(title.format(value.replace("_", " ")), bars(rows, value, *names)) for value in values]


def contenders(*names: str) -> list[Contender]:
    """Return contenders by their names."""
    return [contender for contender in CONTENDERS if contender.name in names]


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder for a while."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


# What a change costs.


def _in_server(
    given: Run, who: list[Contender], work: Sequence[Workload], rounds: int
) -> dict[str, Any]:
    with databases(given.dsn, who) as dsns:
        return capture.in_server(who, dsns, work, given.rounds(rounds))


def shapes(given: Run) -> Found:
    """Every shape of table, beside the floor and a plain trigger."""
    work = [w for w in workloads(given.size(500, 20)) if w.shape]
    who = [contender for contender in CONTENDERS if contender.shapes]
    rows = inserver.by_shape(work, _in_server(given, who, work, 41))
    return Found(
        {"Times the floor, by shape": rows},
        [
            (f"{op}: auditdb, times the floor, minimum",
             bars([r for r in rows if r["operation"] == op], "auditdb, min", "shape"))
            for op in ("UPDATE", "INSERT", "DELETE")
        ],
    )  # fmt: skip


def _costs(found: dict[str, Any]) -> Found:
    columns = ("contender", "added_us_median", "added_us_min", "times_floor_median",
               "times_floor_min", "wal_bytes", "log_bytes")  # fmt: skip
    tables = {
        work["title"]: [{column: row[column] for column in columns} for row in work["contenders"]]
        for work in found.values()
    }
    return Found(
        tables,
        [
            (f"{title}: µs added to a row, minimum", bars(rows[1:], "added_us_min", "contender"))
            for title, rows in tables.items()
        ],
    )


def change(given: Run) -> Found:
    """What a change of one row, and of many, costs beside the floor."""
    work = [
        w for w in workloads(given.size(1000, 20)) if w.name in (*SINGLES, *MANY, "wide_update")
    ]
    who = contenders("no audit", "floor", "auditdb without context", "auditdb")
    return _costs(_in_server(given, who, work, 21))


def compare(given: Run) -> Found:
    """What every package can do, beside auditdb."""
    if not packages.installed():
        raise LeftOut("the packages are not installed: pip install -e '.[bench]'")
    work = [w for w in workloads(given.size(500, 20)) if w.table in ("member", "wide")]
    who = [c for c in CONTENDERS if c.name not in ("by hand", "auditdb without context")]
    return _costs(_in_server(given, who, work, 10))


def disk(given: Run) -> Found:
    """Bytes of write-ahead log and of disk for each row."""
    work = [w for w in workloads(given.size(2000, 100)) if w.name in SINGLES]
    found = _in_server(given, contenders("no audit", "floor", "auditdb"), work, 4)
    rows = [
        {"change": name.upper(), "contender": row["contender"], "wal_bytes": row["wal_bytes"],
         "log_bytes": row["log_bytes"]}
        for name, measured in found.items() for row in measured["contenders"][1:]
    ]  # fmt: skip
    names = {"wal_bytes": "Write-ahead log", "log_bytes": "Log with its indexes"}
    return Found(
        {"Bytes added for each row": rows},
        [(f"{t}, bytes a row", bars(rows, c, "contender", "change")) for c, t in names.items()],
    )


def application(given: Run) -> Found:
    """Whole transactions, as an application's clients see them."""
    who = contenders("no audit", "by hand", "auditdb without context", "auditdb")
    with databases(given.dsn, who) as dsns:
        found = clients.run(
            dsns, rounds=given.rounds(10), transactions=given.size(400, 40)
        )  # fmt: skip
    return Found(
        found,
        [
            (f"{kind}: µs that a transaction takes longer", bars(rows[1:], "added_us", "contender"))
            for kind, rows in found.items()
        ],
    )


def connection(given: Run) -> Found:
    """What a new connection pays: its first statement, and its memory."""
    with databases(given.dsn, contenders(*session.MEASURED)) as dsns:
        found = session.run(dsns, rounds=given.rounds(100))
    first, memory = found["first_statement"], found["memory"]
    return Found(
        {"First statement of a connection": first, "Memory after writing to many tables": memory},
        [
            ("First statement, µs, minimum", bars(first, "us_min", "contender", "statement")),
            (f"MB more after writing to {session.MANY} tables",
             bars(memory[1:], "more_mb", "contender")),
        ],
    )  # fmt: skip


def client_cpu(given: Run) -> Found:
    """The processor time of a transaction in the application's process."""
    samples = cpu.measure(given.dsn, rounds=given.rounds(31), transactions=given.size(300, 20))
    rows = report.summary(samples, 1e6, added_to="bare")
    return Found({"µs of client CPU": rows}, panels(rows, ["least, added"], title="µs, {}"))


def settings(given: Run) -> Found:
    """What reading who acts from the settings of other tools costs."""
    with databases(given.dsn, contenders("auditdb")) as dsns:
        samples = claims.measure(dsns["auditdb"], given.rounds(11), given.size(300, 20))
    rows = report.summary(samples)
    return Found({"µs a row": rows}, panels(rows, ["least"], title="µs a row, {}"))


def safety(given: Run) -> Found:
    """What safety costs: every shape, beside former releases."""
    work = [*workloads(given.size(300, 20)), *former.shapes()]
    rows = former.measure(given.dsn, work, given.rounds(10))
    return Found(
        {"µs added to a row": rows},
        panels(rows, [c for c in rows[0] if c.endswith(", min")], "workload",
               title="µs added to a row, {}"),
    )  # fmt: skip


# What operating costs.


def writers(given: Run) -> Found:
    """Transactions a second of one and of eight writers."""
    with operate.prepared(given.dsn) as dsns:
        rows = operate.writers(dsns, 0.5 * min(1.0, given.scale), given.rounds(8))
    for row in rows:
        del row["waits"]
    return Found(
        {"Transactions a second": rows},
        panels(rows, operate.NAMES, "organisations", "clients",
               title="{}: transactions a second, by organisations and clients"),
    )  # fmt: skip


def maintenance(given: Run) -> Found:
    """How long writers wait while maintenance runs."""
    with operate.prepared(given.dsn) as dsns:
        rows = operate.maintenance(dsns, 1 + given.size(1), given.rounds(20))
    return Found(
        {"While maintenance runs": rows},
        panels(rows, ["longest_ms", "longest_lock_wait_ms"], "while", title="Of 8 writers, {}"),
    )


def bulk(given: Run) -> Found:
    """Many rows in one statement."""
    with operate.prepared(given.dsn) as dsns:
        rows = operate.bulk(dsns, (1, 10, 100, 1000, 10_000), given.rounds(8))
    for row in rows:
        row["rows"] = f"{row['rows']:,}"
    return Found(
        {"Rows in one statement": rows},
        panels(rows, ["added_us"], "statement", "rows", title="µs added to a row"),
    )


def indexes(given: Run) -> Found:
    """What indexes of the log cost the writer."""
    with operate.prepared(given.dsn) as dsns:
        rows = operate.indexes(dsns, given.rounds(8), given.size(1000, 20))
    for number, row in enumerate(rows):
        row["indexes"] = f"{number}: {row['indexes']}"
    plotted = [row | {"number": f"indexes {number}"} for number, row in enumerate(rows)]
    return Found(
        {"Beside the primary key": rows},
        panels(plotted, [f"{name} us" for name in SINGLES], "number", title="{} a row"),
    )


def tables(given: Run) -> Found:
    """Many tables: attaching them, commands, and memory of a connection."""
    count = (given.size(40, 2),)
    with operate.prepared(given.dsn) as dsns:
        attached = many.attach(dsns, count, given.rounds(3, 0.5))
    with operate.prepared(given.dsn) as dsns:
        taken = many.commands(dsns, count, given.rounds(3, 0.6))
    with operate.prepared(given.dsn) as dsns:
        memory = many.memory(dsns, (1, *count))
    return Found(
        {"Attaching": attached, "Commands": taken, "Memory of a connection": memory},
        [
            ("Attaching, s, minimum", bars(attached, "s_min", "run")),
            ("Commands, s, minimum", bars(taken, "s_min", "command")),
            ("Memory, MB more a table", bars(memory, "more_mb_a_table", "statements", "tables")),
        ],
    )


# What reading costs.


def reading(given: Run) -> Found:
    """What an admin asks, through row-level security."""
    with read.filled(given.dsn, given.size(500_000, 20_000)) as (target, rate):
        answers = read.answers_of({"now": target}, given.rounds(5, 0.7))["now"]
        python = read.python_layer(target, read.create_key(target))
    # It is what the most memory of this process grew by, which the chapters before had.
    del python["streaming_grew_mb"]
    found = {
        f"{size} organisation": [
            {k: answer[k] for k in ("question", "buffers", "execution_ms", "execution_min_ms",
                                    "planning_ms", "partitions")}
            for answer in answers[size]
        ]
        for size in ("largest", "median")
    }  # fmt: skip
    return Found(
        {**found, "In Python": report.numbers({"filled, rows a second": rate, **python})},
        [
            (f"{size}: ms, minimum", bars(rows, "execution_min_ms", "question"))
            for size, rows in found.items()
        ],
    )


def log_exports(given: Run) -> Found:
    """Exports of the whole log by the command line, beside a plain COPY."""
    with read.filled(given.dsn, given.size(300_000, 20_000)) as (target, _):
        found = whole.exports(target, read.create_key(target), given.rounds(4))
    rows = [{"": name, **cost} for name, cost in found.items()]
    return Found(
        {"Exports": rows},
        panels(rows, ["per_second_best", "client_cpu_us"], title="Events {}"),
    )


def admin_page(given: Run) -> Found:
    """Whole requests of the page of admins."""
    with read.filled(given.dsn, given.size(500_000, 20_000)) as (target, _):
        key = read.create_key(target)
        rows = report.summary(asyncio.run(page.measure(target, key, given.rounds(16))))
    return Found({"Milliseconds": rows}, panels(rows, ["median", "least"], title="ms, {}"))


# What leaves the database.


def ticks(given: Run) -> Found:
    """Ticks and the export."""
    with read.filled(given.dsn, given.size(300_000, 20_000)) as (target, _):
        found = {
            "Ticks": export.ticks(target, given.rounds(20, 0.2)),
            "To files": export.throughput(target),
            "Writers beside it": export.writers(
                target, given.rounds(11, 0.5), given.size(2000, 20)
            ),
            "Lag": export.lag(target, given.size(8, 3)),
            "Subscriptions": export.subscriptions(target, given.size(10_000, 1000)),
        }
    return Found(
        {title: report.numbers(measured) for title, measured in found.items()},
        [
            ("A tick of 600 events, ms", [(k.removesuffix(", ms"), v)
             for k, v in found["Ticks"].items() if k.endswith(", ms")]),
            ("To files, µs of CPU an event", [(k.partition("'")[0], v)
             for k, v in found["To files"].items() if "us an event" in k]),
            ("Age of events on standard output, s", [(k.removesuffix(", s"), v)
             for k, v in found["Lag"].items() if k.endswith(", s")]),
            ("Subscriptions, s of CPU", [(k.partition(":")[0], v)
             for k, v in found["Subscriptions"].items() if k.endswith("processor")]),
        ],
    )  # fmt: skip


def export_formats(given: Run) -> Found:
    """How fast the server makes bytes of events, and a client each format."""
    found = formats.measure(given.dsn, given.size(50_000, 2000), given.rounds(6))
    return Found({"µs of CPU an event": report.numbers(found)},
                 [("µs of CPU an event", list(found.items()))])  # fmt: skip


def seals(given: Run) -> Found:
    """Sealing, verifying and bundling."""
    with folder() as path, database(given.dsn, "bench_evidence") as dsn:
        rows, sizes = evidence.run(dsn, given.size(100_000, 2000), given.size(2000, 20), 5, path)
    return Found(
        {"Seconds": rows, "Sizes": report.numbers(sizes)},
        [
            *panels(
                [row for row in rows if row["events"] > 1000],
                ["client, s of CPU a million", "server, s of CPU a million"],
                title="{}",
            ),
            (
                "Bytes an event",
                [
                    (k.removesuffix(", bytes an event"), v)
                    for k, v in sizes.items()
                    if k.startswith("audit.")
                ],
            ),
        ],
    )


def archived(given: Run) -> Found:
    """Writing the archive, and asking it."""
    with folder() as path, database(given.dsn, "bench_archive") as dsn:
        rows, sizes = archive.run(dsn, given.size(100_000, 2000), given.size(1000, 20), path)
    # The most memory of this process is that of the chapters before.
    del sizes["MB of memory at most"]
    return Found(
        {"Archiving a month": rows, "Sizes": report.numbers(sizes)},
        panels(rows, ["events a second"], title="{}"),
    )


def five_years(given: Run) -> Found:
    """Reading an archive of five years."""
    with folder() as path:
        events = given.size(2_000_000, 60_000)
        rows = years.measure(path, events, 10_000, given.rounds(3))
    return Found(
        {f"An archive of {events:,} events": rows},
        panels(rows, ["least, s", "MB read"], "question", title="{}"),
    )


def centre(given: Run) -> Found:
    """Collecting another database's log."""
    found = collect.measure(given.size(50_000, 1000), given.rounds(20))
    return Found(
        {"Source and centre on one server": report.numbers(found)},
        [
            ("Events a second", [(k.partition(",")[0], v) for k, v in found.items()
             if k.endswith("a second")]),
            ("MB", [(k.partition(",")[0], v) for k, v in found.items() if "MB" in k]),
        ],
    )  # fmt: skip


def reconciled(given: Run) -> Found:
    """Comparing a table with its log."""
    found = reconcile.measure(given.dsn, given.size(50_000, 1000))
    return Found(
        {"auditdb reconcile": report.numbers(found)},
        [("Seconds", [("by the clock", found["seconds"]), ("CPU", found["client, s of CPU"])])],
    )


# What integrations cost.


def drivers(given: Run) -> Found:
    """A transaction of each driver, by hand and under a context."""
    with database(given.dsn, "bench_integrations") as dsn:
        rows = integrations.measure(dsn, list(integrations.CONTENDERS), given.rounds(31))
    return Found(
        {"A transaction, µs": rows}, panels(rows, ["more", "more, CPU"], "us", title="µs {}")
    )


def orms(given: Run) -> Found:
    """What Django's app and SQLAlchemy's events add."""
    with database(given.dsn, "bench") as dsn:
        frameworks.prepare(dsn)
        known = conninfo_to_dict(dsn)
        server = Server(
            host=str(known.get("host", "")), port=int(known.get("port") or 5432),
            user=str(known.get("user", "")), password="",
        )  # fmt: skip
        names = ["django", "sqlalchemy", *(["saved"] if packages.installed() else [])]
        found = {
            name: frameworks.measure_apart(
                name, server, given.rounds(20, 1 / (len(names) - number)), given.size(50, 5)
            )
            for number, name in enumerate(names)
        }
    return Found(
        {f"{name}, µs": rows for name, rows in found.items()},
        [
            (f"{name}: µs added, least", bars(rows, "least, added", "by", "us"))
            for name, rows in found.items()
        ],
    )


def _chapter(name: str, title: str, seconds: float, command: str, measure: Any) -> Chapter:
    return Chapter(
        name=name, title=title, seconds=seconds, command=f"python -m benchmarks.{command}",
        measure=measure,
    )  # fmt: skip


# In seconds, of 20 minutes in all.
CHAPTERS = [
    _chapter("shapes", "A captured row, by the shape of its table", 85,
             "capture --only shapes", shapes),
    _chapter("change", "What a change costs", 75, "capture --only server", change),
    _chapter("disk", "Disk and write-ahead log", 15, "capture --only server", disk),
    _chapter("compare", "Beside other packages", 95, "capture --only compare", compare),
    _chapter("application", "As an application sees it", 75,
             "capture --only application", application),
    _chapter("connection", "A new connection", 30, "capture --only session", connection),
    _chapter("cpu", "Client CPU of a context", 25, "cpu", client_cpu),
    _chapter("claims", "Settings of other tools", 25, "claims", settings),
    _chapter("former", "What safety costs: beside former releases", 60, "former", safety),
    _chapter("writers", "One writer and eight", 45, "operate --only writers", writers),
    _chapter("maintenance", "Maintenance beside writers", 40,
             "operate --only maintenance", maintenance),
    _chapter("bulk", "Many rows in one statement", 30, "operate --only bulk", bulk),
    _chapter("indexes", "What indexes cost the writer", 30, "operate --only indexes", indexes),
    _chapter("tables", "Many tables", 45, "operate --only attach (and commands, memory)", tables),
    _chapter("read", "What reading costs", 55, "read", reading),
    _chapter("log", "Exports by the command line", 40, "read --only export", log_exports),
    _chapter("page", "The page of admins", 35, "page", admin_page),
    _chapter("ticks", "Ticks and the export", 70, "export", ticks),
    _chapter("formats", "Formats of exports", 15, "formats", export_formats),
    _chapter("evidence", "Evidence", 40, "evidence", seals),
    _chapter("archive", "Writing the archive", 25, "archive", archived),
    _chapter("years", "Reading an archive of five years", 35, "years", five_years),
    _chapter("collect", "A centre of many databases", 25, "collect", centre),
    _chapter("reconcile", "Comparing tables with the log", 20, "reconcile", reconciled),
    _chapter("integrations", "Drivers under a context", 30, "integrations", drivers),
    _chapter("frameworks", "Django and SQLAlchemy", 35, "frameworks", orms),
]  # fmt: skip
