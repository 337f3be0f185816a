"""Archive and database as one log: what is proved and what is erased is so in both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import duckdb
import psycopg
import pytest

from auditdb.archive import format
from auditdb.archive.place import Place, hash_of
from auditdb.archive.source import Archive
from auditdb.errors import AuditError
from auditdb.evidence.bundle import Bundler
from auditdb.evidence.check import Verifier
from auditdb.evidence.erasure import count_archive_erasures, erase
from auditdb.evidence.report import Report
from auditdb.evidence.verify import verify as verify_bundle
from auditdb.operate.doctor import diagnose
from auditdb.operate.maintain import maintain
from auditdb.operator import hold_organization, release_organization
from tests.archive.months import MONTHS, Archived
from tests.conftest import Database
from tests.test_cli import good, run

KEEP = "24 months"


@pytest.fixture
def archived(db: Database, tmp_path: Path) -> Archived:
    made = Archived(db, tmp_path)
    made.archive(KEEP)
    assert set(made.states().values()) == {"dropped"}
    made.record(5)
    made.sealer.run()
    return made


def verify(archived: Archived) -> Report:
    note = (archived.path / "state").read_text()
    archive = Archive(archived.auditor, Place(str(archived.root)))
    try:
        return Verifier(
            archived.auditor, [archived.key.key], [("state", note)], archive=archive
        ).run()
    finally:
        archive.close()


def stored(archived: Archived, month: str) -> dict[int, dict[str, Any]]:
    with duckdb.connect() as duck:
        rows = duck.execute(f"select * from {format.file(archived.file(month))}")
        names = [column[0] for column in rows.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows.fetchall()}


def rewrite(archived: Archived, change: str, *, noted: bool) -> None:
    """Change the file of March as whoever holds the store does, or the database as well."""
    path = archived.file("2020-03")
    with duckdb.connect() as duck:
        duck.execute(f"create table event as select * from {format.file(path)}")
        duck.execute(change)
        format.write(duck, path)
    if noted:
        with psycopg.connect(archived.db.dsn) as conn:
            conn.execute("update audit.archive set sha256 = %s where month = '2020-03-01'",
                         [hash_of(path)])  # fmt: skip


def test_archived_months_are_verified_and_not_counted_as_gone(archived: Archived) -> None:
    report = verify(archived)
    assert (report.findings, report.archived, report.dropped) == ([], 120, 0)
    without = Verifier(archived.auditor, [archived.key.key]).run()
    assert (without.findings, without.archived, without.dropped) == ([], 0, 120)
    assert report.events == without.events + 120


def test_what_was_changed_in_the_archive_is_named(archived: Archived) -> None:
    rewrite(archived, "update event set result = 'failure' where id = -990", noted=True)
    first, second, third = sorted(verify(archived).findings)
    assert first.startswith("archive: 2020-03 is said to be in another file")
    assert second.startswith("archive: the manifest of 2020-03") and second.endswith(": sha256")
    assert third.startswith("changed: event -990 is not as it was sealed")


def test_what_was_removed_from_the_archive_is_named(archived: Archived) -> None:
    rewrite(archived, "delete from event where id = -990", noted=True)
    assert any("event -990 is gone" in finding for finding in verify(archived).findings)


ADDED = """insert into event by name select * replace ({id} as id, 'auth.login' as action,
    'somebody else' as target_id, null as details) from event where id = -990"""


def test_what_was_added_to_the_archive_is_named(archived: Archived) -> None:
    # Another event, and one that says that it is one that there is.
    rewrite(archived, ADDED.format(id=-5), noted=True)
    assert any("event -5 " in finding and "never sealed" in finding
               for finding in verify(archived).findings)  # fmt: skip
    rewrite(archived, ADDED.format(id=-990) + "; delete from event where id = -5", noted=True)
    assert any("event -990 twice" in finding for finding in verify(archived).findings)


def test_a_month_that_was_made_up_is_named(archived: Archived) -> None:
    made = archived.file("2019-01")
    made.parent.mkdir()
    with duckdb.connect() as duck:
        duck.execute(f"create table event as select * replace (-id as id) from "
                     f"{format.file(archived.file('2020-03'))}")  # fmt: skip
        format.write(duck, made)
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("""insert into audit.archive
            select (jsonb_populate_record(a, jsonb_build_object(
                'month', '2019-01-01', 'is_sealed', false, 'sha256', %s::text))).*
            from audit.archive as a where month = '2020-03-01'""", [hash_of(made)])  # fmt: skip
    assert any("2019-01" in finding and "never sealed" in finding
               for finding in verify(archived).findings)  # fmt: skip


def test_a_month_that_was_never_sealed_is_the_file_that_the_log_names(
    db: Database, tmp_path: Path
) -> None:
    made = Archived(db, tmp_path, seal=False)
    made.archive(KEEP)
    assert set(made.states().values()) == {"dropped"}
    made.sealer.run()
    assert verify(made).findings == []
    rewrite(made, "update event set result = 'failure' where id = -990", noted=True)
    first, second = sorted(verify(made).findings)
    assert "another file" in first and second.startswith("archive: the manifest of 2020-03")


def test_another_file_is_named(archived: Archived) -> None:
    rewrite(archived, "update event set result = 'failure' where id = -990", noted=False)
    findings = verify(archived).findings
    assert any(f.startswith("archive: the file of 2020-03") for f in findings)
    archived.file("2020-04").unlink()
    findings = verify(archived).findings
    assert any("the file of 2020-04 is not at" in f for f in findings)


def test_the_command_verifies_both(archived: Archived) -> None:
    said = good(
        archived.db, "verify", "--key", str(archived.key.key), "--archive", str(archived.root),
        role="app_auditor",
    )  # fmt: skip
    assert "120 read from the archive, 0 findings" in said
    rewrite(archived, "update event set result = 'failure' where id = -990", noted=True)
    result = run(
        archived.db, "verify", "--key", str(archived.key.key), "--archive", str(archived.root),
        role="app_auditor",
    )  # fmt: skip
    assert result.exit_code == 1 and "event -990" in result.stdout


def test_an_erasure_reaches_the_archive(archived: Archived) -> None:
    before = {month: stored(archived, month) for month in MONTHS}
    erase(archived.auditor, subject_id="ann", reason="request 1")
    # Until it ran, it says so.
    assert count_archive_erasures(archived.auditor) == 2
    told = archived.archive()
    assert [line for line in told if line.startswith("erased")] == [
        f"erased 19 events of {month} in the archive" for month in MONTHS
    ], told
    assert count_archive_erasures(archived.auditor) == 0
    for month in MONTHS:
        after = stored(archived, month)
        assert after.keys() == before[month].keys()
        for number, was in before[month].items():
            now = after[number]
            is_ann = "ann" in (was["actor_id"], was["subject_id"])
            assert (was != now) == is_ann
            if is_ann:
                taken = ("actor_id", "impersonator_id", "subject_id", "old_values", "new_values")
                assert all(now[name] is None for name in taken)
                assert json.loads(now["details"])["erased"].keys() == {"erasure", "commitment"}
                kept = format.COLUMNS.keys() - {*taken, "details", "target_id"}
                assert {n: was[n] for n in kept} == {n: now[n] for n in kept}
        assert b"ann" not in archived.file(month).read_bytes()
    archived.sealer.run()
    report = verify(archived)
    assert (report.findings, report.erased) == ([], 38)
    told_events = archived.actions("audit.erased")
    assert sum(e["details"]["events"] for e in told_events) == 38
    assert "ann" not in json.dumps(told_events)
    rows = archived.db.connect().execute("select count(*) from audit.archive_erasure").fetchone()
    assert rows == (0,)
    assert not [f for f in diagnose(archived.conn) if f.check_name in ("erasures", "archive")]
    assert archived.manifest("2020-03")["erasures"] != []
    assert archived.archive(KEEP) == []
    # What comes back is as it was erased.
    assert archived.restore("2020-03") == 60
    assert archived.findings() == []


def test_no_salt_of_what_was_erased_there_is_left(archived: Archived) -> None:
    erase(archived.auditor, subject_id="ann", reason="request 1")
    archived.archive()
    erased = {number for month in MONTHS for number, event in stored(archived, month).items()
              if "erased" in (event["details"] or "")}  # fmt: skip
    found = {}
    for ids, salts in archived.db.connect().execute("select ids, salts from audit.seal"):
        for at, number in enumerate(ids):
            found[number] = salts[at * 16 : at * 16 + 16]
    assert len(erased) == 38
    assert {n for n, salt in found.items() if not any(salt)} == erased


def test_autovacuum_takes_what_an_erasure_there_left(archived: Archived) -> None:
    erase(archived.auditor, subject_id="ann", reason="request 1")
    archived.db.connect().execute("alter table audit.seal reset (autovacuum_vacuum_threshold)")
    archived.archive()
    assert archived.db.connect().execute(
        "select relname from pg_class where relname in ('seal', 'archive_erasure')"
        " and reloptions @> '{autovacuum_vacuum_threshold=0}' order by 1"
    ).fetchall() == [("archive_erasure",), ("seal",)]  # fmt: skip


def test_what_is_held_stays_until_it_is_released(archived: Archived) -> None:
    hold_organization(archived.auditor, "o1", reason="case 1")
    erase(archived.auditor, subject_id="ann", reason="request 1")
    told = archived.archive()
    assert len(told) == 2 and all("is under legal hold" in line for line in told)
    assert count_archive_erasures(archived.auditor) == 2
    assert verify(archived).findings == []
    with pytest.raises(AuditError, match="erasure"):
        archived.restore("2020-03")
    release_organization(archived.auditor, "o1", reason="case 1")
    assert sum(line.startswith("erased") for line in archived.archive()) == 2


def test_an_erasure_of_nobody_there_leaves_the_files(archived: Archived) -> None:
    before = [archived.file(month).read_bytes() for month in MONTHS]
    erase(archived.auditor, subject_id="nobody", reason="request 1")
    assert count_archive_erasures(archived.auditor) == 2
    assert archived.archive() == []
    assert count_archive_erasures(archived.auditor) == 0
    assert [archived.file(month).read_bytes() for month in MONTHS] == before


def test_an_organization_is_erased_in_the_archive(archived: Archived) -> None:
    erase(archived.auditor, organization_id="o1", reason="the customer left")
    erase(archived.auditor, subject_id="ann", organization_id="o2", reason="request 2")
    archived.archive()
    for month in MONTHS:
        for event in stored(archived, month).values():
            is_erased = "erased" in (event["details"] or "")
            assert is_erased or event["organization_id"] != "o1"
            assert not (event["organization_id"] is None and is_erased)
            assert event["actor_id"] != "ann" or event["organization_id"] != "o2"
    assert verify(archived).findings == []


def test_what_is_archived_and_still_here_is_written_again(db: Database, tmp_path: Path) -> None:
    archived = Archived(db, tmp_path)
    archived.archive()
    erase(archived.auditor, subject_id="ann", reason="request 1")
    assert count_archive_erasures(archived.auditor) == 2
    told = maintain(archived.db.connect("app_owner"), keep=KEEP, force=True)
    assert told == [
        f"keep {month}: its archived file must be written again: let auditdb archive run"
        for month in MONTHS
    ]
    told = archived.archive()
    assert [line.partition(":")[0] for line in told] == [f"archived {month}" for month in MONTHS]
    for month in MONTHS:
        assert b"ann" not in archived.file(month).read_bytes()
    assert count_archive_erasures(archived.auditor) == 0
    assert archived.archive(KEEP) == [f"dropped {month}: 60 events" for month in MONTHS]
    assert verify(archived).findings == []


def test_the_command_says_what_waits(archived: Archived) -> None:
    would = run(archived.db, "erase", "--subject-id", "ann", role="app_auditor")
    assert would.exit_code == 0 and (
        "2020-03, 2020-04 are in the archive alone: what they hold of it is not counted"
        in would.stderr
    )
    said = good(archived.db, "erase", "--subject-id", "ann", "--reason", "request 1", "--yes",
                role="app_auditor")  # fmt: skip
    assert "months of the archive that may still hold erased data: 2" in said


def test_the_doctor_names_what_is_stuck(archived: Archived) -> None:
    erase(archived.auditor, subject_id="ann", reason="request 1")
    superuser = archived.db.connect()
    superuser.execute("update audit.archive_erasure set asked_at = now() - interval '3 days'")
    superuser.execute(
        "update audit.archive set state = 'pending', began_at = now() - interval '3 days', "
        "verified_at = null where month = '2020-04-01'"
    )
    found = {(f.object, f.problem.split(" ")[0]) for f in diagnose(archived.conn)
             if f.check_name == "archive"}  # fmt: skip
    assert found == {("2020-04", "is"), ("2020-03", "1"), ("2020-04", "1")}


def test_bundles_and_proofs_are_made_of_archived_months(archived: Archived, tmp_path: Path) -> None:
    archive = Archive(archived.auditor, Place(str(archived.root)))
    with pytest.raises(AuditError, match="missing: 40"):
        Bundler(archived.auditor).bundle("o1", tmp_path / "no.zip")
    count = Bundler(archived.auditor, archive).bundle("o1", tmp_path / "o1.zip")
    old = {
        row["id"] for month in MONTHS for row in stored(archived, month).values()
        if row["organization_id"] == "o1"
    }  # fmt: skip
    ZipFile(tmp_path / "o1.zip").extractall(tmp_path / "o1")
    assert f"{count} events" in verify_bundle(str(archived.key.key), tmp_path / "o1")
    lines = (tmp_path / "o1" / "events.jsonl").read_text("utf-8").splitlines()
    ids = {int(json.loads(json.loads(line)["skeleton"])["id"]) for line in lines}
    assert len(old) == 40 and old < ids and len(ids) == count
    assert Bundler(archived.auditor, archive).prove([min(old)], tmp_path / "one.zip") == 1
    ZipFile(tmp_path / "one.zip").extractall(tmp_path / "one")
    assert "1 event" in verify_bundle(str(archived.key.key), tmp_path / "one")
    rewrite(archived, "update event set details = '{}'", noted=False)
    other = Archive(archived.auditor, Place(str(archived.root)))
    with pytest.raises(AuditError, match="SHA-256 is another"):
        Bundler(archived.auditor, other).bundle("o1", tmp_path / "bad.zip")
    args = ("bundle", "--organization-id", "o2", "--archive", str(archived.root), "--output")
    assert "SHA-256 is another" in run(archived.db, *args, str(tmp_path / "o2.zip")).output


@pytest.mark.parametrize("change", [
    "alter table event drop details", "alter table event alter details type int using 1",
    "alter table event alter occurred_at type varchar using 'long ago'",
])  # fmt: skip
def test_a_file_of_other_columns_is_named(archived: Archived, change: str) -> None:
    path = archived.file("2020-03")
    with duckdb.connect() as duck:
        duck.execute(f"create table event as select * from {format.file(path)}")
        duck.execute(change)
        duck.execute(f"copy event to {format.literal(path)} (format parquet)")
    findings = verify(archived).findings
    assert any("2020-03" in f for f in findings), findings
