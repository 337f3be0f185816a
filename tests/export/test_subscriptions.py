"""Subscriptions in the database: who may do what, and what retention waits for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from auditdb.cli import main
from tests.conftest import Database

RECORD = "select audit.record_event(%s, %s)"


def run(db: Database, role: str | None, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.conninfo(role), *arguments])


def done(db: Database, role: str | None, *arguments: str) -> str:
    result = run(db, role, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def record(db: Database, *events: tuple[str, str]) -> None:
    conn = db.connect("app")
    for event in events:
        conn.execute(RECORD, event)


def lines_in(folder: Path) -> list[dict[str, Any]]:
    import gzip

    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def mine(lines: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Return action and organisation of what the application did."""
    return [(line["action"], line["organization_id"]) for line in lines
            if not line["action"].startswith("audit.")]  # fmt: skip


def test_export_makes_the_subscription_and_goes_on_where_it_was(
    empty_db: Database, tmp_path: Path
) -> None:
    record(empty_db, ("auth.login", "1"), ("auth.logout", "2"))
    export = ("export", "siem", "--to", tmp_path.as_uri())
    done(empty_db, "app_auditor", *export)
    assert mine(lines_in(tmp_path)) == [("auth.login", "1"), ("auth.logout", "2")]
    record(empty_db, ("auth.login", "3"))
    done(empty_db, "app_auditor", *export)
    done(empty_db, "app_auditor", "export", "siem")
    assert mine(lines_in(tmp_path)) == [
        ("auth.login", "1"), ("auth.logout", "2"), ("auth.login", "3"),
    ]  # fmt: skip
    ids = [int(line["id"]) for line in lines_in(tmp_path)]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)


def test_subscriptions_filter(empty_db: Database, tmp_path: Path) -> None:
    filters = {
        "org": ["--organization-id", "1"],
        "act": ["--action", "auth.login", "--action", "x.y"],
        "cat": ["--category", "auth", "--organization-id", "2"],
        "res": ["--result", "denied"],
        "new": ["--from", "now"],
    }
    record(empty_db, ("auth.login", "1"), ("auth.logout", "2"), ("x.y", "2"))
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    for name, given in filters.items():
        (tmp_path / name).mkdir()
        done(empty_db, "app_auditor", "subscription", "create", name, "--to",
             (tmp_path / name).as_uri(), *given)  # fmt: skip
    record(empty_db, ("x.y", "1"))
    done(empty_db, "app_auditor", "export", "--all")
    found = {name: mine(lines_in(tmp_path / name)) for name in filters}
    assert found == {
        "org": [("auth.login", "1"), ("x.y", "1")],
        "act": [("auth.login", "1"), ("x.y", "2"), ("x.y", "1")],
        "cat": [("auth.logout", "2")],
        "res": [],
        "new": [("x.y", "1")],
    }


def test_what_a_subscription_may_not_be_is_refused_in_a_line(empty_db: Database) -> None:
    create = ("subscription", "create")
    for given, said in {
        ("Bad Name", "--to", "-"): "the name of a subscription has a-z",
        ("a", "--to", "nowhere"): "is not the address of a sink",
        ("a", "--to", "https://u:p@host/"): "leave out user, password",
        ("a", "--to", "-", "--lapses-after", "soon"): "interval",
        ("a", "--to", "-", "--lapses-after", "1 second"): "lapses after an hour or more",
    }.items():
        result = run(empty_db, "app_auditor", *create, *given)
        assert result.exit_code in (1, 2) and said in result.stderr, result.output
        assert len(result.stderr.strip().splitlines()) == 1
    done(empty_db, "app_auditor", *create, "a", "--to", "-")
    assert (
        "subscription a exists already"
        in run(empty_db, "app_auditor", *create, "a", "--to", "-").stderr
    )
    assert "--to -" in run(empty_db, "app_auditor", "export", "a", "--to", "https://x/").stderr
    assert "there is no subscription b" in run(empty_db, "app_auditor", "export", "b").stderr
    assert run(empty_db, "app_auditor", "export").exit_code == 2


def test_only_who_may_read_events_sends_them_away(empty_db: Database) -> None:
    """An operator, who may not read events, could else have all of them sent to himself."""
    create = ("subscription", "create", "mine", "--to", "https://else.test/")
    for role in ("app_owner", "app", "app_reader", "stranger"):
        result = run(empty_db, role, *create)
        assert result.exit_code == 1 and "permission denied" in result.stderr
    done(empty_db, "app_auditor", *create)
    for role in ("app_owner", "app", "app_reader", "stranger", "app_auditor"):
        conn = empty_db.connect(role)
        for query in ("update audit.subscription set sink = 'x'", "delete from audit.subscription",
                      "insert into audit.subscription (name, sink, format) values ('x', '-', 'y')"
                      ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(query)
    conn = empty_db.connect("app_owner")
    for query in ("select audit.reset_subscription('mine')",
                  "select audit_private.claim_batches(1, '[]')",
                  "select audit_private.finish_batch(1, 'mine', '{}', 1)"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(query)
    for what in ("pause", "resume", "drop"):
        done(empty_db, "app_owner", "subscription", what, "mine")


def test_what_becomes_of_a_subscription_is_an_event(empty_db: Database) -> None:
    for arguments in (("create", "s", "--to", "https://h/", "--action", "a.b"), ("pause", "s"),
                      ("resume", "s"), ("reset", "s", "--to", "now"), ("drop", "s")):  # fmt: skip
        done(empty_db, "app_auditor", "subscription", *arguments)
    with psycopg.connect(empty_db.dsn) as conn:
        events = conn.execute(
            "select action, target_id, actor_id, new_values from audit.event "
            "where action ~ 'subscription' order by id"
        ).fetchall()
    assert [e[0] for e in events] == [
        "audit.subscription_created", *["audit.subscription_changed"] * 3,
        "audit.subscription_dropped",
    ]  # fmt: skip
    assert {e[1:3] for e in events} == {("s", "app_auditor")}
    assert events[0][3] == {"sink": "https://h/", "format": "jsonl", "filter": {"actions": ["a.b"]}}


def test_a_paused_one_is_not_served_and_says_so(empty_db: Database, tmp_path: Path) -> None:
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    done(empty_db, "app_owner", "subscription", "pause", "s")
    record(empty_db, ("auth.login", "1"))
    result = run(empty_db, "app_auditor", "export", "s")
    assert result.exit_code == 1 and "s is paused; auditdb subscription resume s" in result.stderr
    assert mine(lines_in(tmp_path)) == []
    done(empty_db, "app_owner", "subscription", "resume", "s")
    done(empty_db, "app_auditor", "export", "s")
    assert mine(lines_in(tmp_path)) == [("auth.login", "1")]


def test_a_reset_begins_anew(empty_db: Database, tmp_path: Path) -> None:
    record(empty_db, ("auth.login", "1"))
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    done(empty_db, "app_auditor", "subscription", "reset", "s", "--to", "start")
    for path in tmp_path.rglob("*.gz"):
        path.unlink()
    done(empty_db, "app_auditor", "export", "s")
    assert mine(lines_in(tmp_path)) == [("auth.login", "1")]
    record(empty_db, ("auth.logout", "1"))
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    done(empty_db, "app_auditor", "subscription", "reset", "s", "--to", "now")
    done(empty_db, "app_auditor", "export", "s")
    assert mine(lines_in(tmp_path)) == [("auth.login", "1")]


def test_how_far_each_came_is_shown_everywhere(empty_db: Database, tmp_path: Path) -> None:
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    record(empty_db, ("auth.login", "1"), ("auth.login", "2"))
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    (listed,) = json.loads(done(empty_db, "app_owner", "subscription", "list", "--json"))
    assert listed["lag_events"] == 2 and listed["lag_seconds"] > 0 and listed["delivered"] > 0
    status = json.loads(done(empty_db, "app_owner", "status", "--json"))
    assert status["subscriptions"][0]["name"] == "s"
    assert "2 events, " in done(empty_db, "app_owner", "subscription", "list")
    assert "2 events, " in done(empty_db, "app_owner", "status")
    metrics = done(empty_db, "app_owner", "status", "--format", "openmetrics")
    assert 'auditdb_subscription_lag_events{subscription="s"} 2' in metrics
    assert 'auditdb_subscriptions{state="active"} 1' in metrics
    report = json.loads(done(empty_db, "app_auditor", "export", "s", "--json"))
    assert report == [{"name": "s", "delivered": 2, "batches": 1, "problem": None}]


def findings(db: Database) -> list[str]:
    found = json.loads(run(db, "app_owner", "doctor", "--json").stdout)["findings"]
    return [f["problem"] for f in found if f["check_name"] == "subscriptions"]


def test_the_doctor_says_what_is_wrong_with_a_subscription(
    empty_db: Database, tmp_path: Path
) -> None:
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    assert findings(empty_db) == []
    superuser = empty_db.connect()
    record(empty_db, ("auth.login", "1"))
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    superuser.execute("alter table audit.tick disable trigger user")
    superuser.execute("update audit.tick set made_at = now() - interval '2 hours'")
    superuser.execute("alter table audit.tick enable always trigger refuse_change")
    superuser.execute("alter table audit.tick enable always trigger refuse_truncate")
    superuser.execute("update audit.subscription set missed = 7")
    assert [f.replace("02:00:00", "T") for f in findings(empty_db)] == [
        "is 1 events behind, for T", "missed up to 7 events, which retention dropped",
    ]  # fmt: skip
    superuser.execute("update audit.subscription set missed = 0, state = 'failed', problem = 'p'")
    superuser.execute("insert into audit_private.set_aside values ('s', 1, 1, now(), now(), 'no')")
    assert findings(empty_db) == [
        "failed: p", "has 1 events set aside in 7 days, which its sink refused",
    ]  # fmt: skip


def aged(db: Database) -> psycopg.Connection[Any]:
    """Give the log a month of 2020, and events of yesterday."""
    conn = db.connect()
    # Ids tell in which order events were written: these were before the install.
    conn.execute("alter sequence audit.event_id_seq restart 1000")
    month = conn.execute("select to_char(now(), '\"audit.event_\"YYYY_MM')").fetchone()
    assert month is not None
    for sql in ("disable trigger refuse_change", "enable always trigger refuse_change"):
        conn.execute(f"alter table {month[0]} {sql}".encode())
        conn.execute(f"update {month[0]} set id = id + 500 where {sql[0] == 'd'}".encode())
    for id, at in enumerate(("2020-01-15", "2020-01-16"), 1):
        conn.execute("insert into audit.event (id, occurred_at, action, result, actor_type, source)"
                     " values (%s, %s, 'x.y', 'success', 'user', 'web')", [id, at])  # fmt: skip
    conn.execute("insert into audit.event (occurred_at, action, result, actor_type, source) select "
                 "now() - interval '2 days', 'x.z', 'success', 'user', 'web' "
                 "from generate_series(1, 3)")  # fmt: skip
    done(db, "app_owner", "maintain")
    return conn


def maintained(db: Database, *given: str) -> str:
    return run(db, "app_owner", "maintain", "--keep", "24months", *given).output


def test_retention_waits_for_what_a_live_subscription_has_not_taken(
    empty_db: Database, tmp_path: Path
) -> None:
    aged(empty_db)
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", tmp_path.as_uri())
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    kept = "keep 2020-01: subscription s has not taken all of its events yet"
    assert f"would {kept}" in maintained(empty_db, "--dry-run")
    assert kept in maintained(empty_db)
    done(empty_db, "app_auditor", "export", "s")
    assert "dropped 2020-01: 2 events" in maintained(empty_db)
    assert sum(action == "x.y" for action, _ in mine(lines_in(tmp_path))) == 2


def test_retention_by_force_says_what_was_missed(empty_db: Database, tmp_path: Path) -> None:
    aged(empty_db)
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", tmp_path.as_uri())
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    assert "dropped 2020-01: 2 events" in maintained(empty_db, "--force")
    assert findings(empty_db) == ["missed up to 2 events, which retention dropped"]
    done(empty_db, "app_auditor", "export", "s")
    assert sum(action == "x.z" for action, _ in mine(lines_in(tmp_path))) == 3
    done(empty_db, "app_owner", "subscription", "resume", "s")
    assert findings(empty_db) == []


@pytest.mark.parametrize("end", ["drop", "lapse"])
def test_one_that_was_dropped_or_lapsed_keeps_retention_from_nothing(
    empty_db: Database, end: str
) -> None:
    superuser = aged(empty_db)
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    empty_db.connect("app_auditor").execute("select audit.make_tick()")
    if end == "drop":
        done(empty_db, "app_owner", "subscription", "drop", "s")
    else:
        superuser.execute("update audit.subscription set served_at = now() - interval '31 days'")
        assert "subscription s lapsed: not served since" in maintained(empty_db)
    said = maintained(empty_db)
    assert "dropped 2020-01" in said or superuser.execute(
        "select to_regclass('audit.event_2020_01') is null"
    ).fetchone() == (True,)


def test_a_subscription_does_not_lapse_under_a_clock_that_jumped(empty_db: Database) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    superuser = empty_db.connect()
    superuser.execute("update audit.subscription set served_at = now() - interval '400 days'")
    superuser.execute("update audit_private.installation set maintained_at = now() - "
                      "interval '400 days'")  # fmt: skip
    run(empty_db, "app_owner", "maintain")
    assert superuser.execute("select state from audit.subscription").fetchone() == ("active",)


def claim(conn: psycopg.Connection[Any], exporter: int, tick: int, pending: dict[str, Any]) -> bool:
    made = conn.execute("select created_at::text from audit.subscription").fetchone()
    assert made is not None
    claims = json.dumps([{"name": "s", "created_at": made[0], "tick_id": tick, "part": None,
                          "pending": pending}])  # fmt: skip
    query = "select * from audit_private.claim_batches(%s, %s)"
    return conn.execute(query, [exporter, claims]).fetchall() == [("s",)]


def batch(after: int, until: int) -> dict[str, Any]:
    return {"after": {"tick_id": after, "part": None}, "tick_id": until, "part": None,
            "name": f"0001-1f2e3d4c/{after + 1:012d}-{until:012d}", "events": 1,
            "series": "1f2e3d4c-0000-0000-0000-000000000000"}  # fmt: skip


def test_a_batch_is_claimed_once_and_where_it_stands(empty_db: Database) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    one, other = (empty_db.connect("app_auditor", autocommit=False) for _ in range(2))
    begin = "select audit_private.begin_exporting()"
    numbers = [row[0] for c in (one, other) for row in c.execute(begin)]
    conn = empty_db.connect("app_auditor")
    row = conn.execute("select tick_id from audit.subscription").fetchone()
    assert row is not None
    tick = row[0]
    first, second = batch(tick, tick + 1), batch(tick, tick + 2)
    assert not claim(conn, numbers[0], tick + 1, second)
    assert claim(conn, numbers[0], tick, first)
    # Another batch, or of another exporter, while the first one lives.
    assert not claim(conn, numbers[0], tick, second)
    assert not claim(conn, numbers[1], tick, first)
    one.close()
    until = time.monotonic() + 30
    while not claim(conn, numbers[1], tick, first):
        assert time.monotonic() < until
    finish = "select audit_private.finish_batch(%s, 's', %s, 5)"
    for number, expected in zip(numbers, (False, True), strict=True):
        assert conn.execute(finish, [number, json.dumps(first)]).fetchone() == (expected,)
    row = conn.execute("select tick_id, pending, delivered from audit.subscription").fetchone()
    assert row == (tick + 1, None, 5)
    assert not claim(conn, numbers[1], tick, first)


def test_a_batch_that_was_reset_meanwhile_counts_for_nothing(empty_db: Database) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    conn = empty_db.connect("app_auditor")
    row = conn.execute("select tick_id from audit.subscription").fetchone()
    assert row is not None
    pending = batch(row[0], row[0] + 1)
    assert claim(conn, 7, row[0], pending)
    done(empty_db, "app_auditor", "subscription", "reset", "s", "--to", "start")
    finish = "select audit_private.finish_batch(7, 's', %s, 5)"
    assert conn.execute(finish, [json.dumps(pending)]).fetchone() == (False,)
    assert conn.execute("select tick_id from audit.subscription").fetchone() == row


def test_a_problem_is_noted_where_the_exporter_died_and_not_where_another_lives(
    empty_db: Database,
) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "a", "--to", "-")
    conn, other = empty_db.connect("app_auditor"), empty_db.connect("app_auditor")
    other.autocommit = False
    (alive,) = other.execute("select audit_private.begin_exporting()").fetchone() or (0,)
    leave = "select audit_private.leave_batch(1, 'a', 'p', true)"
    for exporter, state in ((alive, "active"), (2_000_000, "failed")):
        with psycopg.connect(empty_db.dsn) as superuser:
            superuser.execute("update audit.subscription set exporter = %s", [exporter])
        conn.execute(leave)
        assert conn.execute("select state from audit.subscription").fetchone() == (state,)


def test_who_may_not_export_is_told_of_the_role_that_may(empty_db: Database) -> None:
    out = run(empty_db, "stranger", "export", "siem", "--to", "-")
    assert out.exit_code == 1
    assert '; run: grant audit_auditor to "' in out.stderr.splitlines()[-1]


def test_each_lags_by_what_lies_behind_its_own_place(empty_db: Database) -> None:
    conn = empty_db.connect("app_auditor")
    for n in range(4):
        record(empty_db, *[("auth.login", str(n))] * (n + 1))
        conn.execute("select audit.make_tick()")
        begin = "now" if n % 2 else "start"
        done(empty_db, "app_auditor", "subscription", "create", f"s{n}", "--to", "-",
             "--from", begin)  # fmt: skip
    conn.execute("select audit.make_tick()")
    naive = """
        select s.name, coalesce(sum(t.events), 0) from audit.subscription as s
            left join audit.tick as t on t.id > s.tick_id
        group by s.name order by s.name"""
    found = conn.execute("select name, lag_events from audit.list_subscriptions()").fetchall()
    assert found == conn.execute(naive).fetchall() and len({lag for _, lag in found}) == 3
