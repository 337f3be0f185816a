"""Ticks: every committed event is in one of them, once, whatever the order of commits."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.conftest import Database

RECORD = "select audit.record_event('auth.login', 'o1')"


def tick(conn: psycopg.Connection[Any]) -> int | None:
    row = conn.execute("select audit.make_tick()").fetchone()
    assert row is not None
    return row[0] if row[0] is None else int(row[0])


def read(
    conn: psycopg.Connection[Any], cursor: str | None = None, at_most: int = 1000
) -> tuple[list[int], str | None]:
    """Return the ids of the events after a cursor, until there are no more, and the next one."""
    ids: list[int] = []
    while True:
        *events, last = conn.execute(
            "select (event).id, cursor, is_more from audit.events_since(%s, %s)", [cursor, at_most]
        ).fetchall()
        ids += [row[0] for row in events]
        cursor = last[1]
        if not last[2]:
            return ids, cursor


def logged(db: Database) -> list[int]:
    with psycopg.connect(db.dsn) as conn:
        return [row[0] for row in conn.execute("select id from audit.event")]


def agrees(db: Database) -> None:
    """What the ticks say agrees with the log, however it is read."""
    conn = db.connect("app_auditor")
    conn.execute("select audit.make_tick()")
    ids, _ = read(conn)
    assert Counter(ids) == Counter(logged(db))
    with psycopg.connect(db.dsn) as superuser:
        months = superuser.execute(
            "select audit_private.month_of(occurred_at), count(*) from audit.event group by 1"
        )
        sums = superuser.execute(
            "select month, sum(events)::bigint from audit.tick_month group by month"
        )
        assert sorted(months) == sorted(sums)
        wrong = superuser.execute(
            "select id from audit.tick as t where events <> "
            "(select sum(events) from audit.tick_month where tick_id = t.id)"
        )
        assert wrong.fetchall() == []


def test_what_commits_late_is_in_a_later_tick_and_lost_by_id(db: Database) -> None:
    early, late, reader = db.connect("app"), db.connect("app"), db.connect("app_auditor")
    tick(reader)
    _, cursor = read(reader)
    (last,) = reader.execute("select max(id) from audit.event").fetchone() or (0,)
    late.autocommit = False
    (late_id,) = late.execute(RECORD).fetchone() or (0,)
    (early_id,) = early.execute(RECORD).fetchone() or (0,)
    assert late_id < early_id
    tick(reader)
    ids, cursor = read(reader, cursor)
    naive = [i for (i,) in reader.execute("select id from audit.event where id > %s", [last])]
    assert ids == naive == [early_id]
    late.commit()
    tick(reader)
    ids, cursor = read(reader, cursor)
    naive = [i for (i,) in reader.execute("select id from audit.event where id > %s", [max(naive)])]
    assert (ids, naive) == ([late_id], [])
    assert read(reader, cursor)[0] == []
    agrees(db)
