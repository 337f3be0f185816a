"""Three databases into one: every event once, whatever happens to each."""

from __future__ import annotations

import psycopg

from tests.collect.conftest import Collection, query

RECORD = "select audit.record_event('auth.login', '7', target_id => %s)"


def test_three_sources_arrive_each_under_its_name_and_every_event_once(
    collection: Collection,
) -> None:
    for name in ("shop", "desk", "bank"):
        dsn = collection.source(name)
        query(dsn, RECORD, f"before {name}")
        assert collection.collect(name) == "collecting"
        query(dsn, RECORD, f"after {name}")
        query(dsn, "select audit.make_tick()")
    collection.settle()
    for name in collection.sources:
        assert collection.collected(name) == collection.events(name)
        assert [e[11] for e in collection.collected(name) if e[3] == "auth.login"] == [
            f"before {name}", f"after {name}"]  # fmt: skip
    assert query(collection.centre, "select count(*) from audit.event where action !~ '^audit'") \
        == [(0,)]  # fmt: skip
    assert collection.findings() == []
