"""Sealing and verifying over kills, interruptions, retention, restores and upgrades."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

import auditdb
from auditdb.errors import InvalidInput
from auditdb.evidence.check import Verifier
from auditdb.evidence.counts import Counts
from auditdb.evidence.keys import PrivateKey, write_key
from auditdb.evidence.report import Report
from auditdb.evidence.seal import Fork, Sealer
from auditdb.evidence.state import State
from auditdb.operate.maintain import maintain
from tests.conftest import Database
from tests.evidence import tampering
from tests.evidence.test_seal import RECORD, Setting, setting
from tests.export.test_subscriptions import aged, maintained
from tests.server import Server, running, standby
from tests.test_cli import error_of, run
from tests.test_restored import restored
from tests.test_upgrade_old import old

__all__ = ["old", "setting"]
KILLS = int(os.environ.get("AUDITDB_CRASH_KILLS", "20"))


class Interrupted(BaseException):
    """What a person does to a long verification."""


def seals(setting: Setting, many: int) -> None:
    """Fill some rows of audit.seal, each with a checkpoint."""
    for _ in range(many):
        setting.record(20)
        setting.sealer.run()


def interrupt(verifier: Verifier, after: int, resume: Path) -> None:
    """Verify, up to some rows of audit.seal."""
    left = after

    def progress(leaves: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted

    with pytest.raises(Interrupted):
        verifier.run(progress=progress, resume=resume)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditdb.evidence.resume._EVERY", 0.0)


def test_a_verification_goes_on_from_where_it_was(
    setting: Setting, often: None, tmp_path: Path
) -> None:
    seals(setting, 6)
    resume, note = tmp_path / "resume", (setting.path / "state").read_text()

    def verifier() -> Verifier:
        return Verifier(setting.auditor, [setting.key.key], [("state", note)])

    whole = verifier().run()
    interrupt(verifier(), 4, resume)
    compared: list[int] = []
    assert verifier().run(progress=compared.append, resume=resume) == whole
    assert len(compared) == 1 + 6 - 4
    assert not resume.exists()


@pytest.mark.parametrize("where", ["before", "after"])
def test_what_was_found_before_is_said_by_the_verification_that_goes_on(
    setting: Setting, often: None, tmp_path: Path, where: str
) -> None:
    seals(setting, 6)
    resume, superuser = tmp_path / "resume", setting.db.connect()
    tampering.disarm(superuser)
    at = "asc" if where == "before" else "desc"
    changed = f"(select id from audit.event where action = 'auth.login' order by id {at} limit 1)"
    superuser.execute(f"update audit.event set result = 'denied' where id = {changed}".encode())

    def verifier() -> Verifier:
        return Verifier(setting.auditor, [setting.key.key])

    whole = verifier().run()
    assert whole.findings[0].startswith("changed: event ")
    interrupt(verifier(), 4, resume)
    assert verifier().run(resume=resume) == whole


def test_a_verification_of_something_else_begins_anew(
    setting: Setting, often: None, tmp_path: Path
) -> None:
    seals(setting, 3)
    resume = tmp_path / "resume"
    interrupt(Verifier(setting.auditor, [setting.key.key]), 2, resume)
    note = (setting.path / "state").read_text()
    compared: list[int] = []
    Verifier(setting.auditor, [setting.key.key], [("state", note)]).run(
        progress=compared.append, resume=resume
    )
    assert len(compared) == 3
    resume.write_text("{}")
    with pytest.raises(InvalidInput, match="is not a progress file"):
        Verifier(setting.auditor, [setting.key.key]).run(resume=resume)


def test_a_checkpoint_that_came_meanwhile_is_compared(
    setting: Setting, often: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked at last was not signed then: it is now, and is no other."""
    seals(setting, 2)
    setting.record(20)
    setting.auditor.execute("select audit.make_tick()")
    setting.auditor.execute("select audit.seal_next()")
    resume = tmp_path / "resume"

    def die(self: Counts) -> None:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Counts, "compare", die)
        Verifier(setting.auditor, [setting.key.key]).run(resume=resume)
    done = setting.sealer.run()
    report = Verifier(setting.auditor, [setting.key.key]).run(resume=resume)
    assert (report.signed, report.findings, report.notices) == (done.size, [], [])


def sealer_of(db: Database, path: Path, **more: Any) -> Sealer:
    key = PrivateKey.make(more.pop("name", "example.com/audit"))
    return Sealer(db.connect("app_auditor"), key, State(path / f"state {key.key.id.hex()}"), **more)


def verified(sealer: Sealer, *more: str, keys: tuple[PrivateKey, ...] = ()) -> Report:
    assert isinstance(sealer._signer, PrivateKey)
    keys = (sealer._signer, *keys)
    notes = [("kept", sealer._state.path.read_text()), *((text, text) for text in more)]
    with psycopg.connect(sealer._conn.info.dsn, autocommit=True) as conn:
        return Verifier(conn, [key.key for key in keys], notes).run()


def test_retention_waits_for_what_is_not_sealed_where_somebody_seals(
    empty_db: Database, tmp_path: Path
) -> None:
    aged(empty_db)
    auditor = empty_db.connect("app_auditor")
    auditor.execute("select audit.make_tick()")
    assert "keep " not in maintained(empty_db, "--dry-run"), "nobody seals"
    sealer = sealer_of(empty_db, tmp_path)
    auditor.execute("select audit.seal_next(1)")
    kept = "keep 2020-01: not all of its events are sealed yet"
    assert f"would {kept}" in maintained(empty_db, "--dry-run")
    assert kept in maintained(empty_db)
    sealer.run()
    assert "dropped 2020-01: 2 events" in maintained(empty_db)
    sealer.run()
    report = verified(sealer)
    assert (report.findings, report.dropped) == ([], 2)


def test_what_retention_dropped_by_force_before_it_was_sealed_is_no_finding(
    empty_db: Database, tmp_path: Path
) -> None:
    conn = aged(empty_db)
    sealer = sealer_of(empty_db, tmp_path)
    auditor = empty_db.connect("app_auditor")
    auditor.execute("select audit.make_tick()")
    auditor.execute("select audit.seal_next(1)")
    assert "dropped 2020-01: 2 events" in maintained(empty_db, "--force")
    sealer.run()
    assert verified(sealer).findings == []
    tampering.disarm(conn)
    conn.execute("delete from audit.event where action = 'audit.month_dropped'")
    assert any("gone" in line for line in verified(sealer).findings)


def test_the_doctor_says_where_a_sealer_stopped(setting: Setting) -> None:
    def found() -> list[Any]:
        return [row[0] for row in setting.db.connect().execute(
            "select problem from audit_private.check_seals()")]  # fmt: skip

    setting.record(1)
    assert found() == [], "nobody seals"
    setting.sealer.run()
    setting.record(1)
    assert found() == []
    superuser = setting.db.connect()
    tampering.disarm(superuser)
    superuser.execute("update audit.tick set made_at = made_at - interval '3 hours'")
    superuser.execute("update audit.event set occurred_at = occurred_at - interval '2 hours'")
    assert len(found()) == 1 and "are not sealed" in found()[0]
    setting.sealer.run()
    assert found() == []


def test_an_older_backup_is_signed_no_more_but_as_another_log(
    setting: Setting, server: Server, tmp_path: Path
) -> None:
    seals(setting, 1)
    former = (setting.path / "state").read_text()
    with restored(setting.db, server) as there:
        # Here work goes on: the backup is older than what was signed.
        seals(setting, 1)
        last = (setting.path / "state").read_text()
        auditdb.install(there.dsn)
        there.connect("app").execute(RECORD, [50])
        state = State(setting.path / "state")
        with pytest.raises(Fork, match=r"older backup was restored.*--new-log"):
            Sealer(there.connect("app_auditor"), setting.key, state).run()
        assert state.path.read_text() == last
        # Nor where the state is lost.
        state = State(tmp_path / "lost")
        for new_log in (False, True):
            with pytest.raises(auditdb.Refused, match=r"sealed before, as example\.com/audit"):
                Sealer(there.connect("app_auditor"), setting.key, state, new_log=new_log).run()

        sealer = sealer_of(there, tmp_path, name="example.com/audit-2", new_log=True)
        assert sealer.run().added > 50
        assert sealer.run().added == 0
        assert verified(sealer).findings == []
        assert verified(sealer, former, keys=(setting.key,)).findings == []
        findings = verified(sealer, last, keys=(setting.key,)).findings
        assert len(findings) == 1 and "are not those of" in findings[0]


def test_a_key_that_is_not_given_is_no_finding_if_its_log_is_another(
    setting: Setting, tmp_path: Path
) -> None:
    seals(setting, 1)
    sealer = sealer_of(setting.db, tmp_path, name="example.com/audit-2", new_log=True)
    sealer.run()
    report = verified(sealer)
    assert report.findings == []
    assert report.notices == ["checkpoint 1 of the database is of another log, example.com/audit"]
    stranger = PrivateKey.make("example.com/other")
    (finding,) = Verifier(setting.auditor, [stranger.key]).run().findings
    assert finding == (
        "checkpoint: the keys that were given signed none, and so nothing is proved: give the "
        "verification key of example.com/audit, example.com/audit-2"
    )
    thief = PrivateKey.make("example.com/audit")
    (finding,) = Verifier(setting.auditor, [thief.key]).run().findings
    assert "is not believed" in finding


def test_events_of_an_older_release_are_sealed_and_hash_the_same_later(
    old: Database, tmp_path: Path
) -> None:
    auditdb.install(old.dsn)
    sealer = sealer_of(old, tmp_path)
    assert sealer.run().added > 3000
    assert verified(sealer).findings == []
    # As a later release does, and again.
    old.connect().execute("alter table audit.event add column later text default 'x'")
    auditdb.install(old.dsn)
    report = verified(sealer)
    assert (report.findings, report.events > 3000) == ([], True)


def test_maintenance_and_drains_raise_no_false_alarm(db: Database, tmp_path: Path) -> None:
    """Events of DEFAULT move to a month of their own, and stay what they are."""
    conn = db.connect()
    for at in ("2023-03-03", "2023-04-04", "infinity", "-infinity", "2023-03-01"):
        conn.execute("insert into audit.event (occurred_at, action, result, actor_type, source) "
                     "values (%s, 'x.y', 'success', 'user', 'web')", [at])  # fmt: skip
    sealer = sealer_of(db, tmp_path)
    sealer.run()
    for _ in range(2):
        maintain(db.connect("app_owner"))
        assert verified(sealer).findings == []
        sealer.run()
    assert verified(sealer).findings == []


def test_what_is_sealed_is_on_the_disk_before_it_is_signed(setting: Setting) -> None:
    """Whatever the login has set: its salts are random, so it could not be sealed again."""
    setting.record(3)
    setting.auditor.execute("set synchronous_commit = off")
    setting.auditor.execute("select audit.make_tick()")
    with setting.auditor.transaction():
        setting.auditor.execute("select audit.seal_next()")
        row = setting.auditor.execute("show synchronous_commit").fetchone()
        assert row == ("on",)
    assert setting.auditor.execute("show synchronous_commit").fetchone() == ("off",)


def test_a_promoted_standby_goes_on_where_it_has_what_was_signed(tmp_path: Path) -> None:
    with running() as server:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        auditdb.install(dsn)
        key, state = PrivateKey.make("example.com/audit"), State(tmp_path / "state")
        record = b"select audit.record_event('auth.login', 'o1') from generate_series(1, 20)"

        def findings(conn: psycopg.Connection[Any]) -> list[str]:
            return Verifier(conn, [key.key], [("state", state.path.read_text())]).run().findings

        with psycopg.connect(dsn, autocommit=True) as primary, standby(server) as port:
            primary.execute(record)
            Sealer(primary, key, state).run()
            with psycopg.connect(dsn.replace(str(server.port), str(port)), autocommit=True) as conn:
                (sent,) = primary.execute("select pg_current_wal_lsn()").fetchall()
                while conn.execute(
                    "select pg_last_wal_replay_lsn() >= %s::pg_lsn", sent
                ).fetchone() != (True,):
                    time.sleep(0.05)
                assert findings(conn) == [], "a standby is verified"
                with pytest.raises(auditdb.Refused, match="nothing can be written here"):
                    Sealer(conn, key, state).run()
                conn.execute("select pg_promote()")
                conn.execute(record)
                Sealer(conn, key, state).run()
                assert findings(conn) == []
                # The former primary is no continuation of what the new one signed.
                primary.execute(record)
                with pytest.raises(Fork):
                    Sealer(primary, key, state).run()


class Command:
    """`auditdb seal --every 1s`, as a service would run it."""

    def __init__(self, setting: Setting, key: Path) -> None:
        self.args = [
            sys.executable, "-m", "auditdb", "--dsn", setting.db.conninfo("app_auditor"), "seal",
            "--key-file", str(key), "--every", "1s", "--to", setting.public.as_uri(),
        ]  # fmt: skip
        self.log = (setting.path / "log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.args, stdout=self.log, stderr=self.log)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_sealers_that_are_killed_leave_no_fork_and_no_gap(setting: Setting) -> None:
    """Two of them, under writers, each killed again and again."""
    key = setting.path / "key"
    vkey = write_key(key, "example.com/audit")
    stop = threading.Event()

    def write() -> None:
        with setting.db.connect("app") as conn:
            while not stop.wait(0.01):
                conn.execute(RECORD, [random.choice([1, 5, 50])])

    writer = threading.Thread(target=write)
    writer.start()
    commands = [Command(setting, key), Command(setting, key)]
    kept = {""}
    chance = random.Random(5)
    try:
        for number in range(KILLS):
            # Each is killed at any moment, but the log is to come further between.
            until = time.monotonic() + 60
            while (note := setting.published()) in kept and time.monotonic() < until:
                time.sleep(chance.uniform(0.01, 0.5))
            kept.add(note)
            commands[number % 2].kill()
            kept.add(setting.published())
            commands[number % 2].start()
    finally:
        stop.set()
        writer.join()
        for command in commands:
            command.kill()
            command.log.close()
    assert "Traceback" not in (setting.path / "log").read_text()
    assert len(kept) > KILLS / 2, (setting.path / "log").read_text()
    from auditdb.evidence.keys import read_private

    sealer = Sealer(setting.auditor, read_private(key), State(key.with_name("key.state")))
    sealer.run()
    notes = [(f"kept {n}", note) for n, note in enumerate(sorted(kept - {""}))]
    report = Verifier(setting.auditor, [vkey], notes).run()
    assert (report.findings, report.notices, report.signed) == ([], [], report.size)
    superuser = setting.db.connect()
    query = "select count(*), count(distinct id) from (select unnest(ids) as id from audit.seal) s"
    (sealed,) = superuser.execute(query.encode()).fetchall()
    (logged,) = superuser.execute("select count(*), count(*) from audit.event").fetchall()
    assert sealed == logged


def test_what_is_given_wrongly_is_said_in_a_line(setting: Setting) -> None:
    setting.record(3)
    setting.sealer.run()
    vkey, path = str(setting.key.key), setting.path
    (path / "garbage").write_bytes(b"\xff\x00garbage")
    (path / "text").write_text("what is this\n")
    (path / "truncated").write_text((path / "state").read_text()[:60])
    (path / "other").write_text("# not a resume\n")
    (path / "vkey").write_text(f"{vkey}\n")

    def said(*given: str) -> str:
        done = run(setting.db, "verify", *given, role="app_auditor")
        assert isinstance(done.exception, SystemExit | None)
        return error_of(done, done.exit_code) if done.exit_code != 1 else error_of(done)

    assert "it is not a text file" in said("--key", vkey, "--checkpoint", str(path / "garbage"))
    for name in ("text", "truncated"):
        assert f"{path / name}: not a signed note" in said(
            "--key", vkey, "--checkpoint", str(path / name)
        )
    assert "no signature of the keys" in said(
        "--key", str(PrivateKey.make("x").key), "--checkpoint", str(path / "state")
    )
    for key in ("a+b", "a+b+c", vkey[:-2], str(path / "nowhere"), f"x{vkey}", ""):
        assert "Error: " in said("--key", key)
    (path / "sealing").write_text(setting.key.text())
    assert "this is the sealing key" in said("--key", str(path / "sealing"))
    assert "is not a time such as" in said("--key", vkey, "--since", "yesteryear")
    nowhere = path / "none" / "resume"
    assert f"cannot write {nowhere}" in said("--key", vkey, "--resume", str(nowhere))
    assert "is not a progress file" in said("--key", vkey, "--resume", str(path / "other"))
    assert "no directory" in said("--key", vkey, "--published", (path / "none").as_uri())
    assert "has no checkpoint" in said("--key", vkey, "--published", path.as_uri())
    assert "is invalid" in said("--key", vkey, "--published", "nowhere")
    found = run(setting.db, "verify", "--key", str(path / "vkey"), role="app_auditor")
    assert (found.exit_code, "0 findings" in found.stdout) == (0, True)
