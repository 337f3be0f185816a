"""What a connection pays for capture: its first statement, and its memory.

Every statement here is the first of its kind on a connection that was just opened, or runs once on
each of many tables.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.contenders import CONTENDERS
from benchmarks.workloads import PLAIN, ROWS

MEASURED = ("no audit", "auditdb", "jsonb trigger")
MANY = 60
STATEMENTS = {
    "UPDATE": f"update member set {PLAIN.change.format(round=0)} where id = {{id}}",
    "INSERT": f"insert into member values ({PLAIN.new.format(id=300000)})",
    "DELETE": "delete from member where id = 300000",
}
# Of each table in turn, as an application does that uses all of them.
_EACH = """
do $$
begin
    {context}
    for _i in 1 .. {many} loop
        execute format('insert into m%s select {row}', _i);
        execute format('update m%s set {change} where id = 1', _i);
        execute format('delete from m%s where id = 1', _i);
    end loop;
end $$
"""


def private_kb(pid: int) -> int:
    """Return the kB of memory that a process has for itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+: +(\d+)", rollup))


def prepare(dsn: str, name: str) -> None:
    """Make the many tables, in the contender's own way."""
    attach = {
        "auditdb": "perform audit.attach(format('public.m%s', _i)::regclass, 'membership');",
        "jsonb trigger": "execute format('create trigger log_action after insert or update or "
        "delete on m%s for each row execute function log_action()', _i);",
    }
    with psycopg.connect(dsn) as conn:
        conn.execute(
            f"""do $$ begin for _i in 1 .. {MANY} loop
            execute format('create table m%s (like member including all)', _i);
            {attach.get(name, "")} end loop; end $$""".encode()
        )


def first_statements(dsns: dict[str, str], rounds: Iterable[int]) -> list[dict[str, Any]]:
    """Return how long the first statement of a new connection takes, and times no audit."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in rounds:
        for op, statement in STATEMENTS.items():
            for name in MEASURED:
                with psycopg.connect(dsns[name], autocommit=True) as conn:
                    query = statement.format(id=1 + number % ROWS).encode()
                    started = time.perf_counter()
                    conn.execute(query)
                    seconds[op, name].append(time.perf_counter() - started)
    return [
        {
            "statement": op,
            "contender": name,
            "us_median": round(1e6 * statistics.median(of)),
            "us_min": round(1e6 * min(of)),
            "times_no_audit_median": round(
                statistics.median(of) / statistics.median(seconds[op, "no audit"]), 2
            ),
            "times_no_audit_min": round(min(of) / min(seconds[op, "no audit"]), 2),
        }
        for (op, name), of in seconds.items()
    ]


def memory(dsns: dict[str, str]) -> list[dict[str, Any]]:
    """Return the private MB of a connection that wrote to each of many tables."""
    rows: list[dict[str, Any]] = []
    change = PLAIN.change.format(round=0).replace("'", "''")
    new = PLAIN.new.format(id=1).replace("'", "''").replace("%", "%%")
    for name in MEASURED:
        prepare(dsns[name], name)
        context = next(c.context for c in CONTENDERS if c.name == name)
        with psycopg.connect(dsns[name], autocommit=True) as conn:
            block = _EACH.format(context=context, many=MANY, row=new, change=change)
            conn.execute(block.encode())
            mb = private_kb(conn.info.backend_pid) / 1024
        rows.append(
            {
                "contender": name,
                "tables": MANY,
                "private_mb": round(mb, 1),
                "more_mb": round(mb - rows[0]["private_mb"], 1) if rows else 0.0,
            }
        )
    return rows


def run(dsns: dict[str, str], *, rounds: Iterable[int]) -> dict[str, Any]:
    """Return what the first statement takes, and what many tables do to memory."""
    return {"first_statement": first_statements(dsns, rounds), "memory": memory(dsns)}
