"""The command auditdb export with sinks that fail, secrets, parts, poolers and other servers."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import auditdb.export.source
from auditdb.export import deliver
from auditdb.export.serve import Exporter
from auditdb.export.sinks.files import Directory
from tests.conftest import Database
from tests.export.receivers import Answer, Receiver, Request, receiver
from tests.export.test_exporter import filed
from tests.export.test_subscriptions import done, findings, lines_in, mine, record, run
from tests.pooler import pooler
from tests.server import Server


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no time worth the name after failures."""
    monkeypatch.setattr(deliver.Patience, "wait", lambda *_: 0.001)


def sent(web: Receiver) -> list[dict[str, Any]]:
    return [json.loads(line) for r in web.requests for line in r.body.splitlines()]


def url(web: Receiver, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{web.port}/x"


def in_ticks(db: Database) -> list[int]:
    with psycopg.connect(db.conninfo("app_auditor"), autocommit=True) as conn:
        rows = conn.execute("select (event).id from audit.events_since(null, 100000)").fetchall()
    return [id for (id,) in rows if id is not None]


def test_a_token_that_is_refused_pauses_and_says_so_in_a_line(
    empty_db: Database, web: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITDB_SINK_TOKEN", "old-token")
    web.decide = lambda request: Answer(
        200 if request.headers["authorization"] == "Bearer new-token" else 401
    )
    result = run(empty_db, "app_auditor", "export", "siem", "--to", url(web))
    assert result.exit_code == 1
    first, *_ = result.stderr.splitlines()
    assert first == (
        f"siem failed: 127.0.0.1:{web.port} answers 401 Unauthorized: "
        "the token or secret is missing or not valid"
    )
    assert "old-token" not in result.output and len(web.requests) == 1
    assert findings(empty_db)[0].startswith("failed: 127.0.0.1")
    result = run(empty_db, "app_auditor", "export", "siem")
    assert result.exit_code == 1 and "resume siem" in result.stderr and len(web.requests) == 1
    monkeypatch.setenv("AUDITDB_SINK_TOKEN", "new-token")
    web.requests.clear()
    done(empty_db, "app_owner", "subscription", "resume", "siem")
    done(empty_db, "app_auditor", "export", "siem")
    assert [int(line["id"]) for line in sent(web)] == in_ticks(empty_db)


@pytest.mark.usefixtures("quick")
def test_a_busy_receiver_is_tried_again_with_the_same_id(empty_db: Database, web: Receiver) -> None:
    web.script(Answer(503), Answer(act="reset"), Answer(429))
    done(empty_db, "app_auditor", "export", "siem", "--to", url(web))
    assert len(web.requests) == 4
    assert len({(r.headers["webhook-id"], r.body) for r in web.requests}) == 1


@pytest.mark.usefixtures("quick")
def test_a_receiver_that_is_down_is_given_up_and_nothing_is_lost(
    empty_db: Database, web: Receiver
) -> None:
    web.decide = lambda request: Answer(503)
    result = run(empty_db, "app_auditor", "export", "siem", "--to", url(web))
    assert result.exit_code == 1 and "answers 503 Service Unavailable" in result.stderr
    web.decide, web.requests = (lambda request: Answer()), []
    record(empty_db, ("auth.login", "1"))
    done(empty_db, "app_auditor", "export", "siem")
    assert [int(line["id"]) for line in sent(web)] == in_ticks(empty_db)


def test_poison_is_set_aside_with_a_report(empty_db: Database, web: Receiver) -> None:
    record(empty_db, *[("auth.login", str(n)) for n in range(40)])

    def decide(request: Request) -> Answer:
        return Answer(400, body=b"bad") if b'"organization_id":"17"' in request.body else Answer()

    web.decide = decide
    result = run(empty_db, "app_auditor", "export", "siem", "--to", url(web))
    assert result.exit_code == 0 and "was set aside" in result.stderr
    got = [
        int(line["id"]) for r in web.requests if decide(r).status == 200
        for line in map(json.loads, r.body.splitlines())
    ]  # fmt: skip
    ((name, problem, id, organization),) = (
        empty_db.connect()
        .execute(
            "select subscription, problem, event_id, organization_id from audit.list_set_aside() "
            "join audit.event on id = event_id"
        )
        .fetchall()
    )
    assert (name, organization) == ("siem", "17") and "answers 400 Bad Request: bad" in problem
    assert got == [n for n in in_ticks(empty_db) if n != id]
    assert findings(empty_db) == ["has 1 events set aside in 7 days, which its sink refused"]


def test_secrets_of_a_file_go_to_their_subscription_alone(
    empty_db: Database, web: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITDB_SINK_TOKEN", "of-one")
    file = tmp_path / "secrets.toml"
    file.write_text('[a]\ntoken = "of-a"\n')
    for name in ("a", "b"):
        done(empty_db, "app_auditor", "subscription", "create", name, "--to",
             f"http://127.0.0.1:{web.port}/{name}")  # fmt: skip
    done(empty_db, "app_auditor", "export", "--all", "--secrets", str(file))
    tokens = {r.path: r.headers.get("authorization") for r in web.requests}
    assert tokens == {"/a": "Bearer of-a", "/b": None}


@pytest.mark.parametrize("most", [1, 3, 7])
def test_a_large_tick_is_sent_in_parts_whose_names_sort(
    empty_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(auditdb.export.source, "_MOST", most)
    for part in range(3):
        record(empty_db, *[("auth.login", str(n)) for n in range(part * 5 + 1)])
        done(empty_db, "app_auditor", "export", "siem", "--to", tmp_path.as_uri())
    assert filed(tmp_path) == in_ticks(empty_db)
    names = [path.name for path in tmp_path.rglob("*.gz")]
    assert any(len(name.split("-")) == 3 for name in names)


def test_what_is_on_its_way_survives_a_new_size_of_chunks(
    empty_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an upgrade may bring it: the batch that was claimed is the same, whoever sends it."""
    record(empty_db, *[("auth.login", str(n)) for n in range(20)])

    def fails(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "_write", fails)
        run(empty_db, "app_auditor", "export", "siem", "--to", tmp_path.as_uri())
    row = empty_db.connect().execute("select pending from audit.subscription").fetchone()
    assert row is not None
    (pending,) = row
    assert pending["events"] >= 20
    auditdb.install(empty_db.dsn)
    monkeypatch.setattr(auditdb.export.source, "_MOST", 4)
    done(empty_db, "app_auditor", "subscription", "resume", "siem")
    done(empty_db, "app_auditor", "export", "siem")
    assert filed(tmp_path) == in_ticks(empty_db)
    assert (tmp_path / f"siem/{pending['name']}.jsonl.gz").exists()


def test_standard_output_gets_lines_and_nothing_else(empty_db: Database) -> None:
    record(empty_db, ("auth.login", "1"))
    out = subprocess.run(
        [sys.executable, "-m", "auditdb", "--dsn", empty_db.conninfo("app_auditor"), "export",
         "out", "--to", "-"], capture_output=True, check=True, text=True)  # fmt: skip
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert [int(line["id"]) for line in lines] == in_ticks(empty_db)
    assert out.stderr == f"out: {len(lines)} events in 1 batch\n"


@pytest.mark.parametrize("form", ["csv", "cloudevents"])
def test_other_formats(empty_db: Database, tmp_path: Path, form: str) -> None:
    record(empty_db, ("auth.login", "1"))
    done(empty_db, "app_auditor", "export", "x", "--to", tmp_path.as_uri(), "--format", form)
    import gzip

    (file,) = tmp_path.rglob("*.gz")
    text = gzip.decompress(file.read_bytes()).decode()
    assert ("version" in text.splitlines()[0]) if form == "csv" else ('"specversion"' in text)
    assert file.name.endswith(".csv.gz" if form == "csv" else ".jsonl.gz")


def test_it_follows_until_it_is_ended(empty_db: Database, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "auditdb", "--dsn", empty_db.conninfo("app_auditor"), "export",
             "s", "--to", "-", "--follow"], stdout=out, stderr=subprocess.PIPE)  # fmt: skip
    try:
        for n in range(3):
            record(empty_db, ("auth.login", str(n)))
            until = time.monotonic() + 30
            while f'"organization_id":"{n}"' not in log.read_text():
                assert time.monotonic() < until
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and stderr.startswith(b"s: ")


def test_events_of_no_month_are_sent_too(empty_db: Database, tmp_path: Path) -> None:
    conn = empty_db.connect()
    for at in ("-infinity", "infinity", "0044-03-15 BC", "20000-01-01"):
        conn.execute("insert into audit.event (occurred_at, action, result, actor_type, source)"
                     " values (%s, 'x.y', 'success', 'user', 'web')", [at])  # fmt: skip
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    times = [line["occurred_at"] for line in lines_in(tmp_path) if line["action"] == "x.y"]
    assert times[0] == "-infinity" and times[-1] == "infinity" and len(times) == 4


def test_ticks_that_the_database_does_not_know_are_said(empty_db: Database, tmp_path: Path) -> None:
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    empty_db.connect().execute("update audit.subscription set tick_id = 999")
    record(empty_db, ("auth.login", "1"))
    result = run(empty_db, "app_auditor", "export", "s")
    assert result.exit_code == 1 and "tick 999 was delivered, but this database knows" in (
        result.stderr
    )
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_exporter_says_that_the_database_went_back(empty_db: Database, tmp_path: Path) -> None:
    """As it finds it when it connects again after a failover or a recovery."""
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", tmp_path.as_uri())
    said: list[str] = []
    exporter = Exporter(
        empty_db.conninfo("app_auditor"), lambda _: Directory(tmp_path), names=["s"],
        follow=False, tell=said.append)  # fmt: skip
    exporter.served.places["s"] = 50
    asyncio.run(exporter.run())
    assert "s: tick 50 was delivered, and the database knows of 0" in said[0]
    said.clear()
    asyncio.run(exporter.run())
    assert said == [] and filed(tmp_path) == in_ticks(empty_db)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["splunk+https://h/"], "splunk wants a token"),
        (["gs://bucket/x"], "pip install gcsfs"),
        (["ftp://h/x"], "sftp:// is"),
        (["file:///nowhere-at-all"], "there is no directory /nowhere-at-all; create it first"),
        (["https://127.0.0.1:9/"], "127.0.0.1:9 cannot be reached"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_is_wrong_with_a_sink_is_said_in_a_line(
    empty_db: Database, given: list[str], said: str
) -> None:
    result = run(empty_db, "app_auditor", "export", "s", "--to", *given)
    assert result.exit_code in (1, 2) and said in result.stderr
    assert "Traceback" not in result.output and len(result.stderr.splitlines()) <= 2
    is_made = "s " in run(empty_db, "app_auditor", "subscription", "list").stdout
    assert is_made == ("cannot be reached" in said)


@pytest.mark.parametrize("role", ["app_owner", "app", "app_reader", "stranger"])
def test_only_an_auditor_exports(empty_db: Database, tmp_path: Path, role: str) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", tmp_path.as_uri())
    result = run(empty_db, role, "export", "s")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert "permission denied" in result.stderr and list(tmp_path.iterdir()) == []


def test_it_works_through_a_pooler(empty_db: Database, server: Server, tmp_path: Path) -> None:
    record(empty_db, ("auth.login", "1"))
    with pooler(server, size=2) as port:
        through = Database(make_conninfo(empty_db.dsn, port=port, hostaddr="127.0.0.1"))
        done(through, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
        record(empty_db, ("auth.login", "2"))
        done(through, "app_auditor", "export", "s")
    assert filed(tmp_path) == in_ticks(empty_db)


def test_two_exporters_beside_each_other_repeat_nothing(empty_db: Database, tmp_path: Path) -> None:
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", tmp_path.as_uri(),
         "--every", "0")  # fmt: skip
    command = [sys.executable, "-m", "auditdb", "--dsn", empty_db.conninfo("app_auditor"),
               "export", "s", "--follow"]  # fmt: skip
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        for n in range(30):
            record(empty_db, ("auth.login", str(n)))
            time.sleep(0.1)
        events = empty_db.connect().execute("select count(*) from audit.event").fetchone()
        until = time.monotonic() + 30
        while (len(filed(tmp_path)),) != events:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        for process in both:
            process.terminate()
            process.wait(30)
    assert filed(tmp_path) == in_ticks(empty_db)


def test_no_lock_and_no_claim_is_left(empty_db: Database, tmp_path: Path) -> None:
    done(empty_db, "app_auditor", "export", "s", "--to", tmp_path.as_uri())
    conn = empty_db.connect()
    query = ("select (select count(*) from pg_locks where locktype = 'advisory'), "
             "count(exporter), count(pending) from audit.subscription")  # fmt: skip
    assert conn.execute(query).fetchone() == (0, 0, 0)
    assert mine(lines_in(tmp_path)) == []


def test_the_exporter_holds_back_no_vacuum(empty_db: Database, tmp_path: Path) -> None:
    """Its lock lasts as long as it works, in a transaction without a snapshot."""
    command = [sys.executable, "-m", "auditdb", "--dsn", empty_db.conninfo("app_auditor"),
               "export", "s", "--to", tmp_path.as_uri(), "--follow"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        conn = empty_db.connect()
        # The other connections have a snapshot while they work.
        query = ("select a.backend_xid is null and a.backend_xmin is null "
                 "from pg_stat_activity as a join pg_locks as l on l.pid = a.pid and l.granted "
                 "and l.locktype = 'advisory' and l.objid::text = a.pid::text "
                 "where a.application_name = 'auditdb export' and a.state = 'idle in transaction'"
                 )  # fmt: skip
        found: list[bool] = []
        until = time.monotonic() + 30
        while len(found) < 5:
            rows = conn.execute(query).fetchall()
            found += [free for (free,) in rows]
            assert time.monotonic() < until
            time.sleep(0.1)
        assert all(found), found
    finally:
        process.terminate()
        process.wait(30)
