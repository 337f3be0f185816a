"""A source in other hands: it sends to the centre what it likes, and gets nothing but its own."""

from __future__ import annotations

import pytest

from auditdb.errors import Refused
from tests.collect.conftest import Collection, patiently, query

RECORD = "select audit.record_event('auth.login', '7', target_id => %s)"
EVERYTHING = "alter publication auditdb set (publish = 'insert, update, delete, truncate')"
FAILED = "select 1 from audit_collected.subscriptions() where errors > 0"


def copied(collection: Collection) -> None:
    """Wait until no copy is under way: dropping a subscription of the same server would hang."""
    copying = "select 1 from audit_collected.subscriptions() where copying > 0 or not is_working"
    patiently(lambda: query(collection.centre, copying) == [], "still copies")


def publish_account(collection: Collection, shop: str) -> None:
    for dsn in (shop, collection.centre):
        query(dsn, "create table public.account (id int)")
    query(shop, "insert into public.account values (1)")
    query(shop, "grant select on public.account to collector")
    query(shop, "alter publication auditdb add table public.account")


def test_a_source_that_publishes_more_tables_is_refused(collection: Collection) -> None:
    shop = collection.source("shop")
    publish_account(collection, shop)
    with pytest.raises(Refused, match=r"account .*publish --drop"):
        collection.collect("shop")
    assert query(collection.centre, "select * from public.account") == []
    assert query(collection.centre, "select 1 from pg_subscription as s join pg_database as d"
                 " on d.oid = s.subdbid where d.datname = current_database()") == []  # fmt: skip
    assert query(shop, "select 1 from pg_replication_slots"
                 " where database = current_database()") == []  # fmt: skip
    query(shop, "alter publication auditdb drop table public.account")
    assert collection.collect("shop") == "collecting"
    query(shop, RECORD, "1")
    collection.settle()
    copied(collection)


def test_a_source_that_adds_a_table_later_writes_nothing_to_it(collection: Collection) -> None:
    shop = collection.source("shop")
    collection.collect("shop")
    copied(collection)
    publish_account(collection, shop)
    assert collection.collect("shop") == "going on"
    query(shop, "insert into public.account values (2)")
    query(shop, RECORD, "1")
    collection.settle()
    copied(collection)
    assert query(collection.centre, "select * from public.account") == []
    assert collection.findings() == []
    # What auditdb does not do, somebody else may.
    query(collection.centre, "alter subscription auditdb_shop refresh publication")
    assert ("critical", "auditdb_shop", "writes to public.account as well") in collection.findings()
    copied(collection)


def test_what_was_interrupted_is_looked_at_before_it_goes_on(collection: Collection) -> None:
    shop = collection.source("shop")
    publish_account(collection, shop)
    query(shop, "select pg_create_logical_replication_slot('auditdb_shop', 'pgoutput')")
    query(collection.centre, f"create subscription auditdb_shop connection '{shop} user=collector'"
          " publication auditdb with (create_slot = false, enabled = false,"
          " slot_name = 'auditdb_shop')")  # fmt: skip
    with pytest.raises(Refused, match=r"account .*publish --drop"):
        collection.collect("shop")
    assert query(collection.centre, "select 1 from pg_subscription as s join pg_database as d"
                 " on d.oid = s.subdbid where d.datname = current_database()"
                 " and subenabled") == []  # fmt: skip
    assert query(collection.centre, "select * from public.account") == []
    query(shop, "select pg_drop_replication_slot('auditdb_shop')")


@pytest.mark.parametrize("change", [
    "delete from audit.series", "update audit.series set after_id = 9", "delete from audit.tick",
    "truncate audit.tick cascade", "delete from audit_private.organization_start",
    "update audit_private.organization_start set first_id = 0",
    "truncate audit_private.organization_start",
])  # fmt: skip
def test_a_source_that_publishes_changes_changes_nothing_of_the_centre(
    collection: Collection, change: str
) -> None:
    # Rows that are the same on both sides, as whoever owns a source can make them.
    made = "select audit.make_tick()"
    start = "insert into audit_private.organization_start values ('7', 1, '2026-01-01')"
    query(collection.centre, made)
    query(collection.centre, start)
    rows = """select (select array_agg(o::text) from audit_private.organization_start as o),
        (select array_agg(e::text) from audit.event as e),
        (select array_agg(t::text) from audit.tick as t),
        (select array_agg(s::text) from audit.series as s)"""
    shop = collection.source("shop")
    query(shop, made)
    query(shop, start)
    collection.collect("shop")
    collection.settle()
    copied(collection)
    before = query(collection.centre, rows)
    assert all(before[0])
    query(shop, EVERYTHING)
    for table in ("audit.tick", "audit.series", "audit_private.organization_start"):
        query(shop, f"alter table {table} disable trigger all")
    query(shop, change)
    patiently(lambda: query(collection.centre, FAILED) != [], "it is taken")
    assert query(collection.centre, rows) == before
