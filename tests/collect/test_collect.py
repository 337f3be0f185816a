"""Three databases into one: every event once, whatever happens to each."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import auditdb
from auditdb.cli import main
from auditdb.collect import collect as work
from auditdb.collect.publish import publish_log, unpublish_log
from auditdb.errors import Refused
from auditdb.operator import diagnose, maintain, uninstall
from auditdb.read.token import mint
from auditdb.values.plain import counted
from tests.collect.conftest import Collection, address, dbname, patiently, query

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
        assert collection.targets(name) == [f"before {name}", f"after {name}"]
        told = "action, actor, target_id, transaction_id, series_id from {} order by occurred_at"
        assert query(
            collection.centre,
            f"select {told.format('audit_collected.log where database = %s')}", name,
        ) == query(collection.sources[name], f"select {told.format('audit.log')}")  # fmt: skip
    assert query(collection.centre, "select count(*) from audit.event where action !~ '^audit'") \
        == [(0,)]  # fmt: skip
    assert collection.findings() == []


def test_the_doctors_of_source_and_centre_are_content(collection: Collection) -> None:
    shop = collection.source("shop")
    query(shop, RECORD, "1")
    collection.collect("shop")
    collection.settle()
    for dsn in (shop, collection.centre):
        with psycopg.connect(dsn) as conn:
            found = diagnose(conn)
        told = "\n".join(f"{f.check_name} {f.severity} {f.object} {f.problem}" for f in found)
        assert told == ""


def test_an_erasure_reaches_the_centre_and_nothing_else_changes_there(
    collection: Collection,
) -> None:
    shop = collection.source("shop")
    query(shop, "select audit.record_event('auth.login', '7', actor_id => 'ann',"
          " actor_type => 'user', details => '{\"ip\": \"10.0.0.1\"}')")  # fmt: skip
    query(shop, RECORD, "kept")
    collection.collect("shop")
    collection.settle()
    kept = [e for e in collection.collected("shop") if e["target_id"] == "kept"]
    query(shop, "select audit.erase('she asked', subject_id => 'ann')")
    collection.settle()
    assert not query(collection.centre, "select 1 from audit_collected.event as e"
                     " where concat(e) ~ '10.0.0.1|ann'")  # fmt: skip
    assert query(collection.centre, "select 1 from pg_class where relname = 'event_shop'"
                 " and reloptions @> '{autovacuum_vacuum_threshold=0}'")  # fmt: skip
    (erased,) = query(collection.centre, "select details from audit_collected.event"
                      " where details ? 'erased'")  # fmt: skip
    assert erased == ({"erased": {"erasure": 1}},)
    assert [e for e in collection.collected("shop") if e["target_id"] == "kept"] == kept
    for change in ("update audit_collected.event set actor_id = null, details = null",
        # As an erasure would, had it named this event.
        "update audit_collected.event set actor_id = null, impersonator_id = null,"
        " subject_id = null, old_values = null, new_values = null,"
        " details = '{\"erased\": {\"erasure\": 1}}' where target_id = 'kept'",
                   "update audit_collected.event set details = '{\"erased\": {\"erasure\": 1}}'"
                   " where target_id = 'kept'",
                   "delete from audit_collected.event", "delete from audit_collected.event_shop",
                   "truncate audit_collected.event_shop", "truncate audit_collected.event",
                   "delete from audit_collected.tick"):  # fmt: skip
        query(shop, "select audit.make_tick()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            query(collection.centre, change)


def test_a_month_that_the_source_drops_stays_at_the_centre(collection: Collection) -> None:
    shop = collection.source("shop")
    query(shop, "insert into audit.event (occurred_at, action, result, actor_type, source)"
          " select now() - n * interval '1 month', 'auth.login', 'success', 'system', 'test'"
          " from generate_series(0, 6) as n")  # fmt: skip
    collection.collect("shop")
    collection.settle()
    all_of_it = collection.collected("shop")
    # What was in DEFAULT becomes months of its own, and the old ones go.
    with psycopg.connect(shop) as conn:
        maintain(conn, keep="2 months", force=True)
    assert len([e for e in all_of_it if e not in collection.events("shop")]) == 4
    query(shop, RECORD, "after")
    patiently(lambda: "after" in collection.targets("shop"), "it stopped")
    now = collection.collected("shop")
    assert [e for e in now if e in all_of_it] == all_of_it
    assert len({(e["id"], e["occurred_at"]) for e in now}) == len(now)


def test_the_centre_drops_old_events_and_still_hides_what_is_hidden(
    collection: Collection,
) -> None:
    shop, desk = collection.source("shop"), collection.source("desk")
    old = ("insert into audit.event (occurred_at, action, result, actor_type, source, target_id)"
           " select now() - n * interval '1 month', {action}, 'success', 'system', 'test', n::text"
           " from generate_series(0, 9) as n")  # fmt: skip
    for dsn in (shop, desk):
        query(dsn, old.format(action="'auth.login'"))
    for action in ("audit.erased", "audit.visibility_limited"):
        query(shop, "insert into audit.event (occurred_at, action, result, actor_type, source,"
              " target_id, new_values, details) values (now() - interval '5 years', %s, 'success',"
              " 'system', 'test', '8', '{\"keep\": \"1 mon\"}', '{\"event_ids\": []}')",
              action)  # fmt: skip
    query(shop, "insert into audit_private.organization_start values ('7', 1, '2026-01-01')")
    for name in ("shop", "desk"):
        collection.collect(name)
        collection.settle(name)
    drop = "select audit_collected.drop_events(%s, %s)"
    for values in (("shop", "1 month"), ("shop", None), ("none", "1 year"), (None, "1 year")):
        with pytest.raises(psycopg.Error, match=r"drop the present|no database is collected"):
            query(collection.centre, drop, *values)
    assert query(collection.centre, drop, "shop", "6 months") == [(3,)]
    left = collection.collected("shop")
    assert [e["action"] for e in left].count("auth.login") == 7
    assert {"audit.erased", "audit.visibility_limited"} <= {e["action"] for e in left}
    assert len(collection.collected("desk")) == len(collection.events("desk"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        query(collection.centre, "delete from audit_collected.event")
    (told,) = query(collection.centre, "select target_id, details ->> 'events' from audit.event"
                    " where action = 'audit.collected_dropped'")  # fmt: skip
    assert told == ("shop", "3")
    assert query(collection.centre, drop, "shop", "6 months") == [(0,)]
    query(shop, RECORD, "after")
    patiently(lambda: "after" in collection.targets("shop"), "it stopped")


def test_what_the_doctor_of_the_centre_compares_is_not_dropped(collection: Collection) -> None:
    shop = collection.source("shop")
    query(shop, "select audit.make_tick()")
    late = (
        "insert into audit.event (occurred_at, action, result, actor_type, source)"
        " values (now() - interval '1 year', 'auth.login', 'success', 'system', 'test')"
    )
    for _ in range(10):
        query(shop, late)
        query(shop, "select audit_private.add_tick(is_whole => true)")
    collection.collect("shop")
    collection.settle()
    (before,) = query(collection.centre, "select events, arrived from"
                      " audit_collected.between_ticks('shop')")  # fmt: skip
    assert before[0] == before[1] > 0
    (dropped,) = query(collection.centre, "select audit_collected.drop_events('shop', '2 months')")
    assert 0 < dropped[0] < 10
    assert query(collection.centre, "select events, arrived from"
                 " audit_collected.between_ticks('shop')") == [before]  # fmt: skip


def test_a_source_restored_from_backup_brings_ids_again_and_nothing_is_lost_or_double(
    collection: Collection,
) -> None:
    shop = collection.source("shop")
    query(shop, RECORD, "in the backup")
    backup = collection.database(template=dbname(shop))
    query(shop, RECORD, "also")
    collection.collect("shop")
    for n in range(3):
        query(shop, RECORD, f"lost {n}")
    query(shop, "select audit.make_tick()")
    collection.settle()
    before = collection.collected("shop")
    # As if of a dump: what tells the cluster is another. The former one is gone with its slot.
    query(backup, "update audit_private.installation set cluster = '1'")
    auditdb.install(backup)
    collection.publish(backup)
    for n in range(5):
        query(backup, RECORD, f"new {n}")
    query(backup, "select audit.make_tick()")
    query(collection.centre, "alter subscription auditdb_shop disable")
    slot = "pg_replication_slots where slot_name = 'auditdb_shop'"
    patiently(lambda: not query(shop, f"select 1 from {slot} and active"), "the slot is active")
    query(shop, f"select pg_drop_replication_slot(slot_name) from {slot}")
    collection.sources["shop"] = backup
    assert collection.collect("shop") == "copying anew"
    patiently(lambda: "new 4" in collection.targets("shop"), "not copied")
    after = collection.collected("shop")
    assert [e for e in after if e in before] == before
    assert sorted(collection.targets("shop")) == sorted(
        ["in the backup", "also", *(f"lost {n}" for n in range(3)), *(f"new {n}" for n in range(5))]
    )
    ids = "select target_id, series_id from audit_collected.log where action = 'auth.login'"
    old = ["in the backup", "also", "lost 0", "lost 1", "lost 2"]
    assert dict(query(collection.centre, ids)) == {
        **dict.fromkeys(old, 1),
        **{f"new {n}": 2 for n in range(5)},
    }
    twice = "group by id having count(distinct series) = 2"
    assert query(collection.centre, f"select 1 from audit_collected.event {twice}")
    # It goes on, and what is erased there is erased here, in its series alone.
    query(backup, "select audit.record_event('auth.login', '8', target_id => 'ann')")
    query(backup, "select audit.erase('asked', organization_id => '8')")
    query(backup, "select audit.make_tick()")
    patiently(lambda: any("erased" in (e["details"] or {}) for e in collection.collected("shop")),
              "not erased")  # fmt: skip
    assert [e for e in collection.collected("shop") if e in after] == after
    assert collection.findings() == []


def test_another_database_is_not_taken_for_a_source(collection: Collection) -> None:
    collection.source("shop")
    collection.collect("shop")
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.drop_source(conn, "shop")
    collection.source("shop")
    with pytest.raises(auditdb.errors.Refused, match="another than the one collected as shop"):
        collection.collect("shop")


def test_an_admin_reads_one_organisation_of_one_database_and_an_auditor_all(
    collection: Collection,
) -> None:
    key = query(collection.centre, "select audit.create_key()")[0][0]
    for name in ("shop", "desk"):
        dsn = collection.source(name)
        for organization in ("7", "8"):
            query(dsn, "select audit.record_event('auth.login', %s, target_id => %s)",
                  organization, f"{name} {organization}")  # fmt: skip
        collection.collect(name)
    collection.settle()
    query(collection.centre, "insert into audit_collected.admin values ('shop', '7', 'ann')")

    def seen(user: str, organization: str, role: str = "audit_reader") -> list[str]:
        told = "select target_id from audit_collected.log where category = 'auth' order by 1"
        with psycopg.connect(collection.centre) as conn:
            conn.execute(f"set local role {role}".encode())
            token = mint(key, user, organization)
            conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
            return [str(row[0]) for row in conn.execute(told)]

    assert seen("ann", "shop/7") == ["shop 7"]
    assert seen("bob", "shop/7") == []
    for organization in ("shop/8", "desk/7", "7", "/7", "shop/", "shop"):
        assert seen("ann", organization) == []
    assert seen("ann", "x", "audit_auditor") == ["desk 7", "desk 8", "shop 7", "shop 8"]
    for role in ("audit_writer", "audit_operator"):
        with psycopg.connect(collection.centre) as conn:
            conn.execute(f"set local role {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("select 1 from audit_collected.log")
    # What the source hides from its viewers is hidden here, and what a former organisation did.
    query(collection.sources["shop"], "select audit.limit_visibility('7', '1 hour')")
    query(collection.sources["shop"], "insert into audit.event (occurred_at, action, result,"
          " actor_type, source, organization_id, target_id) values (now() - interval '2 hours',"
          " 'auth.login', 'success', 'system', 'test', '7', 'older')")  # fmt: skip
    collection.settle()
    assert "older" in collection.targets("shop")
    assert seen("ann", "shop/7") == ["shop 7"]
    start = "insert into audit_private.organization_start (organization_id) values ('7')"
    query(collection.sources["shop"], start)
    patiently(lambda: seen("ann", "shop/7") == [], "a former organisation is shown")
    query(collection.centre, "delete from audit_collected.admin")


def test_the_log_tells_who_may_read_at_the_centre(collection: Collection) -> None:
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.furnish(conn)
        conn.execute("select audit_collected.add_source('shop')")
        conn.execute("set role audit_operator")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("insert into audit_collected.admin values"
                         " ('shop', '7', 'ann', now(), 'somebody else')")  # fmt: skip
        conn.execute("insert into audit_collected.admin (database, organization_id, user_id)"
                     " values ('shop', '7', 'ann')")  # fmt: skip
        conn.execute("delete from audit_collected.admin")
        conn.execute("reset role")
        said = {"database": "shop", "organization_id": "7", "user_id": "ann"}
        assert conn.execute(
            "select action, target_id, old_values, new_values from audit.event"
            " where action ~ 'central_admin' order by id"
        ).fetchall() == [
            ("audit.central_admin_added", "shop/7", None, said),
            ("audit.central_admin_removed", "shop/7", said, None),
        ]


def test_a_former_organisation_of_before_a_restore_is_not_shown(collection: Collection) -> None:
    key = query(collection.centre, "select audit.create_key()")[0][0]
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.furnish(conn)
        conn.execute("select audit_collected.add_source('shop')")
        series = [
            {"key": f"0000000{n}-0000-0000-0000-000000000000", "id": n, "began": began,
             "started_at": f"2026-01-0{n}T00:00:00Z", "timeline": 1, "database": 1,
             "after_id": after}
            for n, began, after in ((1, "installed", 0), (2, "restored", 40))
        ]  # fmt: skip
        put = """select audit_collected.put('shop', jsonb_populate_record(null::audit.event, %s))"""
        # Of series 1 until the restore, which goes back to 40.
        for known, ids in ((series[:1], (30, 80)), (series, (41, 60))):
            conn.execute("select audit_collected.note_series('shop', %s)", [Jsonb(known)])
            for number in ids:
                conn.execute(put, [Jsonb({
                    "id": number, "occurred_at": f"2026-01-0{len(known)}T01:00:00Z",
                    "transaction_id": "9", "action": "auth.login", "result": "success",
                    "actor_type": "system", "source": "test", "organization_id": "7",
                    "target_id": f"{len(known)} {number}", "db_user": "x"})])  # fmt: skip
        conn.execute("insert into audit_collected.admin values ('shop', '7', 'ann')")

        def seen() -> list[str]:
            with conn.transaction():
                conn.execute("set local role audit_reader")
                conn.execute("select set_config('auditdb.viewer', %s, true)",
                             [mint(key, "ann", "shop/7")])  # fmt: skip
                told = "select target_id from audit_collected.log order by 1"
                return [str(row[0]) for row in conn.execute(told.encode())]

        assert seen() == ["1 30", "1 80", "2 41", "2 60"]
        conn.execute("insert into audit_collected.organization_start"
                     " values ('shop', '7', 50, '2026-01-02 00:30Z')")  # fmt: skip
        assert seen() == ["2 60"]


def test_the_log_of_the_centre_has_the_columns_of_the_log(collection: Collection) -> None:
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.furnish(conn)
        for table, former in (("log", "audit.log"), ("event", "audit.event")):
            mine, its = (
                [c.name for c in conn.execute(f"table {t} limit 0".encode()).description or []]
                for t in (f"audit_collected.{table}", former)
            )
            assert mine == ["database", "series", *its]


def test_each_column_of_an_event_is_put(collection: Collection) -> None:
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.furnish(conn)
        (body,) = conn.execute(
            "select prosrc from pg_proc where oid = to_regproc('audit_collected.put')"
        ).fetchone() or ("",)
        for column in conn.execute("table audit.event limit 0").description or []:
            assert f"event.{column.name}" in body


def test_what_is_ended_is_nobodys_worry(collection: Collection) -> None:
    collection.source("shop")
    collection.collect("shop")
    query(collection.centre, "alter subscription auditdb_shop disable")
    query(collection.centre, "alter subscription auditdb_shop set (slot_name = none)")
    query(collection.centre, "drop subscription auditdb_shop")
    assert [f[0] for f in collection.findings()] == ["warning"]
    with pytest.raises(auditdb.errors.Refused, match="is there already"):
        collection.collect("shop")
    with psycopg.connect(collection.sources["shop"]) as conn:
        assert unpublish_log(conn) == ["auditdb_shop"]
    collection.publish(collection.sources["shop"])
    assert collection.collect("shop") == "collecting"
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.drop_source(conn, "shop")
    assert collection.findings() == []


def test_what_lost_its_subscription_is_ended(collection: Collection) -> None:
    collection.source("shop")
    collection.collect("shop")
    query(collection.centre, "alter subscription auditdb_shop disable")
    query(collection.centre, "alter subscription auditdb_shop set (slot_name = none)")
    query(collection.centre, "drop subscription auditdb_shop")
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        assert not work.drop_source(conn, "shop")
        assert collection.findings() == []
        assert work.list_sources(conn) == []
        with pytest.raises(auditdb.errors.Refused, match="no database is collected as shop"):
            work.drop_source(conn, "shop")
    with psycopg.connect(collection.sources["shop"]) as conn:
        assert unpublish_log(conn) == ["auditdb_shop"]


def test_rows_of_the_callers_connection_may_be_of_any_kind(collection: Collection) -> None:
    source = make_conninfo(collection.source("shop"), user="collector")
    with psycopg.connect(collection.centre, autocommit=True, row_factory=dict_row) as conn:
        assert work.collect_source(conn, "shop", source) == "collecting"
        patiently(lambda: [s.state for s in sources(collection)] == ["working"], "it copies")
        assert work.collect_source(conn, "shop", source) == "going on"


def test_a_centre_does_not_collect_itself_by_another_time_zone(collection: Collection) -> None:
    collection.publish(collection.centre)
    source = make_conninfo(collection.centre, user="collector", options="-c timezone=Asia/Tokyo")
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        with pytest.raises(auditdb.errors.Refused, match="is the centre itself"):
            work.collect_source(conn, "shop", source)


def test_pg_read_all_data_reads_no_partition(collection: Collection) -> None:
    shop = collection.source("shop")
    query(shop, RECORD, "secret")
    collection.collect("shop")
    collection.settle()
    with psycopg.connect(collection.centre) as conn:
        conn.execute("set local role pg_read_all_data")
        for table in ("log", "event", "event_shop", "tick", "series", "admin"):
            rows = conn.execute(f"select 1 from audit_collected.{table}".encode()).fetchall()
            assert rows == []


def test_the_doctor_of_the_centre_says_what_does_not_arrive(collection: Collection) -> None:
    shop = collection.source("shop")
    for n in range(4):
        query(shop, RECORD, str(n))
        query(shop, "select audit.make_tick()")
    collection.collect("shop")
    collection.settle()
    count = "select count(*) from audit_collected.tick"
    patiently(lambda: query(collection.centre, count) == [(4,)], "no ticks")
    patiently(lambda: collection.findings() == [], "something is said of what is well")
    # Somebody takes an event away that has arrived.
    query(collection.centre, "set session_replication_role = replica;"
          "alter table audit_collected.event_shop disable trigger all;"
          "delete from audit_collected.event_shop where target_id = '2';"
          "alter table audit_collected.event_shop enable always trigger refuse_change")  # fmt: skip
    assert [f[:2] for f in collection.findings()] == [("critical", "audit_collected.event")]
    query(collection.centre, "alter subscription auditdb_shop disable")
    assert ("critical", "auditdb_shop", "is disabled") in collection.findings()
    slots = "select problem from audit_private.check_slots()"
    patiently(lambda: "is read by nobody" in str(query(shop, slots)), "the source is silent")
    assert [s.state for s in sources(collection)] == ["disabled"]
    assert collection.collect("shop") == "going on"
    patiently(lambda: [s.state for s in sources(collection)] == ["working"], "it does not go on")


def sources(collection: Collection) -> list[work.Source]:
    with psycopg.connect(collection.centre) as conn:
        return work.list_sources(conn)


def test_what_the_centre_cannot_take_waits_and_is_not_lost(collection: Collection) -> None:
    shop = collection.source("shop")
    collection.collect("shop")
    collection.settle()
    # A source of a later release, with a column that the centre has not got yet.
    query(shop, "set role audit_owner; alter table audit.event add column later text")
    query(shop, "insert into audit.event (action, result, actor_type, source, target_id, later)"
          " values ('auth.login', 'success', 'system', 'test', 'late', 'x')")  # fmt: skip
    patiently(lambda: [s.state for s in sources(collection)] == ["failing"], "it does not fail")
    patiently(lambda: any(f[0] == "critical" and "does not work" in f[2]
                          for f in collection.findings()), "it is not said")  # fmt: skip
    query(collection.centre, "alter table audit.event add column later text")
    patiently(lambda: "late" in collection.targets("shop"), "it was lost")
    # And one of an earlier release, which lacks one that the centre has.
    desk = collection.source("desk")
    query(desk, RECORD, "early")
    collection.collect("desk")
    query(desk, RECORD, "early too")
    collection.settle("desk")
    assert collection.targets("desk") == ["early", "early too"]
    patiently(lambda: {s.state for s in sources(collection)} == {"working"}, "one does not work")


def test_large_transactions_arrive_whole_and_in_their_order(collection: Collection) -> None:
    shop = collection.source("shop")
    collection.collect("shop")
    with psycopg.connect(shop) as conn:
        conn.execute("select audit.record_event('auth.login', '7', target_id => n::text)"
                     " from generate_series(1, 5000) as n")  # fmt: skip
        query(shop, RECORD, "meanwhile")
        conn.execute("savepoint s")
        conn.execute("select audit.record_event('auth.login', '7') from generate_series(1, 100)")
        conn.execute("rollback to s")
    query(shop, "select audit.make_tick()")
    collection.settle()
    assert collection.collected("shop") == collection.events("shop")
    streamed = "select stream_txns > 0 from pg_stat_replication_slots where slot_name ~ '^auditdb_'"
    if query(shop, "select current_setting('server_version_num')::int >= 180000") == [(True,)]:
        # Where subscriptions stream unless they are told not to.
        patiently(lambda: (True,) in query(shop, streamed), "nothing was streamed")


def test_lines_of_the_export_can_be_put_where_there_is_no_replication(
    collection: Collection,
) -> None:
    shop = collection.source("shop")
    for n in range(3):
        query(shop, RECORD, f'"{n}"\n\\')
    lines = query(shop, "select audit.canonical(e, audit_private.series_of(e.id))"
                  " from audit.event as e")  # fmt: skip
    (series,) = query(shop, "select jsonb_agg(to_jsonb(s)) from audit.series as s")[0]
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.furnish(conn)
        conn.execute("set role audit_owner")
        conn.execute("select audit_collected.add_source('shop')")
        conn.execute("select audit_collected.note_series('shop', %s)", [Jsonb(series)])
        put = "select audit_collected.put('shop', jsonb_populate_record(null::audit.event, %s))"
        for is_new in (True, False):
            assert [conn.execute(put, line).fetchone() for line in lines] == [(is_new,)] * 4
    assert collection.collected("shop") == collection.events("shop")


def test_what_is_wrong_is_said_in_a_line(collection: Collection) -> None:
    plain = collection.database()
    auditdb.install(plain)
    collection.sources["shop"] = plain
    with pytest.raises(auditdb.errors.Refused, match="does not publish"):
        collection.collect("shop")
    with psycopg.connect(plain) as conn:
        with pytest.raises(auditdb.errors.Refused, match="there is no role"):
            publish_log(conn, "nobody_such")
        with pytest.raises(auditdb.errors.Refused, match="may not replicate"):
            publish_log(conn, "audit_reader")
    for name in ("Shop", "a b", "", "x" * 41, "../x"):
        collection.sources[name] = plain
        with pytest.raises(auditdb.errors.InvalidInput, match="is not a valid name"):
            collection.collect(name)
    collection.publish(collection.centre)
    collection.sources["centre"] = collection.centre
    with pytest.raises(auditdb.errors.Refused, match="is the centre itself"):
        collection.collect("centre")
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        with pytest.raises(auditdb.errors.Refused, match="no database is collected as shop"):
            work.drop_source(conn, "shop")
    collection.publish(plain)
    collection.collect("shop")
    with psycopg.connect(plain) as conn, pytest.raises(auditdb.errors.Refused, match="reads slot"):
        patiently(lambda: bool(query(
            plain, "select 1 from pg_replication_slots where active and database ="
            " current_database() and slot_name = 'auditdb_shop'")), "no slot")  # fmt: skip
        unpublish_log(conn)
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        assert work.drop_source(conn, "shop")
    with psycopg.connect(plain) as conn:
        assert unpublish_log(conn) == []
    assert query(plain, "select 1 from pg_publication") == []


def test_the_command_line_publishes_collects_lists_and_ends(collection: Collection) -> None:
    shop = collection.database()
    auditdb.install(shop)
    query(shop, "do $$ begin if to_regrole('collector') is null then"
          " create role collector login replication; end if; end $$")  # fmt: skip

    def run(dsn: str, *args: str) -> str:
        done = CliRunner().invoke(main, ["--dsn", dsn, *args])
        assert done.exit_code == 0, done.output
        return done.output

    assert "published to collector" in run(shop, "publish", "collector")
    assert "no source is collected here" in run(collection.centre, "collect")
    source = make_conninfo(shop, user="collector")
    assert "shop: collecting" in run(collection.centre, "collect", "shop", "--from", source)
    patiently(lambda: "shop: working" in run(collection.centre, "collect"), "it does not work")
    assert json.loads(run(collection.centre, "collect", "--json"))[0]["database"] == "shop"
    # An upgrade of the centre brings what is collected along.
    query(collection.centre, "set role audit_owner; drop view audit_collected.log")
    run(collection.centre, "install")
    query(shop, RECORD, "after")
    patiently(lambda: bool(query(collection.centre, "select 1 from audit_collected.log"
                                 " where target_id = 'after'")), "it stopped")  # fmt: skip
    assert "is no longer collected" in run(collection.centre, "collect", "shop", "--drop")
    assert "the log is no longer published" in run(shop, "publish", "--drop")
    for args in (["publish"], ["publish", "x", "--drop"], ["collect", "x"], ["collect", "--drop"],
                 ["collect", "x", "--from", "y", "--drop"]):  # fmt: skip
        assert CliRunner().invoke(main, ["--dsn", shop, *args]).exit_code == 2


def test_an_uninstall_of_the_centre_says_what_is_in_its_way_or_takes_it_along(
    collection: Collection,
) -> None:
    shop = collection.source("shop")
    query(shop, RECORD, "1")
    collection.collect("shop")
    collection.settle()
    uninstall(collection.centre, log="keep")
    assert collection.targets("shop") == ["1"]
    for _ in range(2):
        with pytest.raises(Refused, match=r"collects the logs of others.*drop schema"):
            uninstall(collection.centre, log="drop")
        assert collection.targets("shop") == ["1"]
        collection.end()
    query(collection.centre, "drop schema audit_collected cascade")
    uninstall(collection.centre, log="drop")


def test_an_uninstall_of_a_source_leaves_no_slot_that_fills_its_disk(
    collection: Collection,
) -> None:
    shop = collection.source("shop")
    collection.collect("shop")
    with pytest.raises(Refused, match=r"slot auditdb_shop .*collect shop --drop.*publish --drop"):
        uninstall(shop, log="drop")
    collection.end()
    with psycopg.connect(shop, autocommit=True) as conn:
        assert unpublish_log(conn) == []
    uninstall(shop, log="drop")


def test_a_collection_is_ended_while_it_copies_from_the_same_server(
    collection: Collection,
) -> None:
    collection.source("shop")
    for wait in (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6) * 2:
        collection.collect("shop")
        time.sleep(wait)
        with psycopg.connect(collection.centre, autocommit=True) as conn:
            conn.execute("set statement_timeout = '20s'")
            assert work.drop_source(conn, "shop")


def test_a_database_is_collected_under_one_name(collection: Collection) -> None:
    collection.source("shop")
    collection.collect("shop")
    collection.settle()
    collection.sources["desk"] = collection.sources["shop"]
    with pytest.raises(auditdb.errors.Refused, match="is collected as shop already"):
        collection.collect("desk")
    assert query(collection.centre, "select distinct database from audit_collected.event") == [
        ("shop",)
    ]
    # What is ended is counted twice as well.
    with psycopg.connect(collection.centre, autocommit=True) as conn:
        work.drop_source(conn, "shop")
    with pytest.raises(auditdb.errors.Refused, match="is collected as shop already"):
        collection.collect("desk")
    # A copy is another database, once it has a series of its own.
    copy = collection.database(template=dbname(collection.sources["shop"]))
    query(copy, "drop publication if exists auditdb")
    collection.publish(copy)
    collection.sources["desk"] = copy
    with pytest.raises(
        auditdb.errors.Refused, match=r"copy of shop, run there: select audit.make_tick\(\)"
    ):
        collection.collect("desk")
    query(copy, "select audit.make_tick()")
    assert collection.collect("desk") == "collecting"


def test_what_stands_in_the_way_of_publishing_is_said(collection: Collection) -> None:
    empty = collection.database()
    with (
        psycopg.connect(empty) as conn,
        pytest.raises(auditdb.errors.Refused, match="auditdb is not installed in this database"),
    ):
        publish_log(conn, "postgres")
    plain = collection.source("shop")
    query(plain, "do $$ begin if to_regrole('nobody_special') is null then"
          " create role nobody_special login; end if; end $$")  # fmt: skip
    for act in (lambda conn: publish_log(conn, "collector"), unpublish_log):
        with (
            psycopg.connect(make_conninfo(plain, user="nobody_special")) as conn,
            pytest.raises(auditdb.errors.Refused, match=r"(takes|needs) a superuser"),
        ):
            act(conn)


def test_a_list_does_not_say_0_of_what_was_not_counted_yet(collection: Collection) -> None:
    collection.source("shop")
    collection.collect("shop")
    collection.settle()

    def listed() -> str:
        return CliRunner().invoke(main, ["--dsn", collection.centre, "collect"]).output

    assert "events not counted yet" in listed()
    query(collection.centre, "analyze audit_collected.event_shop")
    assert f"about {counted(len(collection.events('shop')), 'event')}" in listed()


def test_a_list_is_for_a_superuser_of_a_database_with_auditdb(collection: Collection) -> None:
    dsn = collection.centre
    query(dsn, "drop role if exists passer_by")
    query(dsn, "create role passer_by login")
    collection.source("shop")
    collection.collect("shop")
    # It never advises to hold audit_owner, which could rewrite the log.
    with (
        psycopg.connect(dsn, user="passer_by") as conn,
        pytest.raises(auditdb.errors.Refused, match=r"needs a superuser$"),
    ):
        work.list_sources(conn)
    with (
        psycopg.connect(address(collection.server), autocommit=True) as conn,
        pytest.raises(auditdb.errors.Refused, match="is not installed in this database"),
    ):
        work.list_sources(conn)


def test_a_centre_that_copies_is_said_to_be_busy_and_nothing_is_left(
    collection: Collection,
) -> None:
    desk = collection.source("desk")
    with psycopg.connect(collection.centre) as copy:
        copy.execute("lock table audit.event in row exclusive mode")
        copy.execute("set local statement_timeout = '60s'")
        with pytest.raises(auditdb.errors.Refused, match="the centre is busy: a first copy"):
            collection.collect("desk")
    assert query(desk, "select count(*) from pg_replication_slots where database = "
                 "current_database()") == [(0,)]  # fmt: skip
