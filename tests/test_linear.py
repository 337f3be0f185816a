"""What attaching and the doctor do grows with the number of attached tables, not with its square.

Counted and not timed: calls of the log's functions, and rows that were read.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.conftest import Database

FEW = 20
# Twice as many tables are twice the work, with some room for what statistics and caches change.
RATIO = 2.3
# Of as many tables beside those: each attach looks for mappings whose table is gone.
MORE = 1.1
TABLE = """
create table thing_{0} (
    id int primary key, organization_id int references organization, user_id int,
    other_thing_id int, name text not null, code text unique, state text, api_token text
)
"""
CALLS = "select sum(calls) from pg_stat_xact_user_functions where schemaname like 'audit%'"
ROWS = """
select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) from pg_stat_xact_all_tables
"""


def work(db: Database, statements: Iterable[str]) -> dict[str, int]:
    """Return how many calls and rows a new session needs for statements."""
    with db.connect() as conn, conn.transaction():
        conn.execute("set local track_functions = 'all'")
        for statement in statements:
            conn.execute(statement.encode())
        counts = [conn.execute(query.encode()).fetchone() for query in (CALLS, ROWS)]
    return {name: int(row[0]) for name, row in zip(("calls", "rows"), counts, strict=True) if row}


def attach(numbers: range) -> list[str]:
    """Return what attaches tables."""
    return [f"select audit.attach('thing_{n}', 'thing')" for n in numbers]


def test_twice_as_many_tables_are_twice_the_work(db: Database) -> None:
    doctor = ["select * from audit.doctor()"]
    with db.connect() as conn:
        for number in range(2 * FEW):
            conn.execute(TABLE.format(number).encode())
    none = work(db, doctor)
    first = work(db, attach(range(FEW)))
    few = work(db, doctor)
    second = work(db, attach(range(FEW, 2 * FEW)))
    many = work(db, doctor)
    for what in ("calls", "rows"):
        attaching = second[what] / first[what]
        assert attaching < MORE, (
            f"attaching beside others takes {attaching:.2f} times as many {what}"
        )
        looking = (many[what] - none[what]) / (few[what] - none[what])
        assert looking < RATIO, f"the doctor takes {looking:.2f} times as many {what}"
