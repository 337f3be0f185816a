"""The archive: whole months outside of the database, the same events, and none lost on the way."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir

import duckdb
import psycopg
import pytest
from psycopg.rows import dict_row

from auditdb.archive import format
from auditdb.archive.months import list_months
from auditdb.archive.open import opened
from auditdb.archive.place import Place
from auditdb.archive.restoring import _batches, restore
from auditdb.archive.run import Archiver
from auditdb.errors import AuditError, InvalidInput, Refused
from auditdb.operate.maintain import maintain
from auditdb.operator import hold_organization, release_organization
from tests.archive.months import MONTHS, Archived
from tests.conftest import Database
from tests.test_cli import error_of, good, run

# DuckDB itself looks for Ctrl+C only between parts of its work, of which this has few.
INTERRUPTED_QUERY = """
import os, signal, threading
from auditdb.archive.format import engine
from auditdb.archive.open import rows_of
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with engine() as (duck, _):
        duck.execute("create table e as select repeat(range::varchar, 9) as x from range(12000)")
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        rows_of(duck, "select count(*) from e, e as f, e as g where e.x || f.x || g.x = '1'")
except KeyboardInterrupt:
    print("interrupted")
"""
KEEP = "24 months"


@pytest.fixture
def archived(db: Database, tmp_path: Path) -> Archived:
    return Archived(db, tmp_path)


def lines_of(path: Path) -> list[tuple[object, ...]]:
    with duckdb.connect() as duck:
        names = ", ".join(f"{name}::varchar" for name in format.COLUMNS if name != "occurred_at")
        return duck.execute(
            f"select {names}, epoch_us(occurred_at) from {format.file(path)} as e order by e.id"
        ).fetchall()


def root(hashes: list[bytes]) -> bytes:
    """As RFC 9162 has it in 2.1.1."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + root(hashes[:half]) + root(hashes[half:])).digest()


def live(archived: Archived, month: str) -> list[tuple[object, ...]]:
    names = ", ".join(f"{name}::text" for name in format.COLUMNS if name != "occurred_at")
    return archived.db.connect().execute(
        f"""select {names}, (extract(epoch from occurred_at) * 1000000)::bigint
        from audit.event as e where to_char(occurred_at at time zone 'UTC', 'YYYY-MM') = %s
        order by e.id""".encode(),
        [month],
    ).fetchall()  # fmt: skip


def test_a_file_holds_every_column_of_every_event_as_it_is(archived: Archived) -> None:
    told = archived.archive()
    assert [line.split(",")[0] for line in told] == [
        f"archived {month}: 60 events" for month in MONTHS
    ]
    for month in MONTHS:
        assert lines_of(archived.file(month)) == live(archived, month)
        assert len(live(archived, month)) == 60
    assert archived.states() == dict.fromkeys(MONTHS, "verified")
    assert archived.archive() == []
    assert len(archived.actions("audit.month_archived")) == 2


def test_a_file_is_sorted_by_organization_and_time(archived: Archived) -> None:
    archived.archive()
    with duckdb.connect() as duck:
        rows = duck.execute(
            f"select organization_id, occurred_at, id from {format.file(archived.file('2020-03'))}"
        ).fetchall()
        kinds = dict(duck.execute(
            f"select column_name, column_type from (describe from "
            f"{format.file(archived.file('2020-03'))})").fetchall())  # fmt: skip
    assert rows == sorted(rows, key=lambda row: (row[0] is None, row[0] or "", row[1], row[2]))
    assert kinds == format.COLUMNS


def test_the_manifest_says_what_the_file_holds(archived: Archived) -> None:
    archived.archive()
    manifest = archived.manifest("2020-03")
    path = archived.file("2020-03")
    assert manifest["bytes"] == path.stat().st_size
    with format.engine() as (duck, _):
        assert format.digest(duck, path) == (manifest["events"], manifest["digest"])
    rows = (
        archived.db.connect()
        .execute(
            "select s.ids, s.leaves from audit.seal as s where month = '2020-03-01' order by id"
        )
        .fetchall()
    )
    hashes = [bytes(leaves)[at * 32 :][:32] for ids, leaves in rows for at in range(len(ids))]
    assert manifest["root"] == root(hashes).hex()
    ticks = [tick for series in manifest["series"] for tick in series["ticks"]]
    assert sum(tick[1] for tick in ticks) == 60 == manifest["events"]
    assert manifest["sealed"] and manifest["checkpoint"].startswith("example.com/audit\n")
    assert manifest["version"] == 1 and manifest["month"] == "2020-03"


def test_months_beyond_what_is_kept_leave_the_database(archived: Archived) -> None:
    told = archived.archive(KEEP)
    assert [line for line in told if line.startswith("dropped")] == [
        f"dropped {month}: 60 events" for month in MONTHS
    ]
    assert archived.old() == []
    assert archived.states() == dict.fromkeys(MONTHS, "dropped")
    assert archived.archive(KEEP) == []


def test_the_present_is_not_archived(archived: Archived) -> None:
    archived.record(3)
    archived.archive(KEEP)
    assert set(archived.states()) == set(MONTHS)


def test_retention_waits_for_the_archive(archived: Archived) -> None:
    owner = archived.db.connect("app_owner")
    # Of a log that was never archived, it waits for nothing.
    assert maintain(owner, keep=KEEP, dry_run=True)[-1] == "would drop 2020-04: 60 events"
    archived.conn.execute("select audit_private.begin_archive('file:///x', 'app')")
    assert maintain(owner, keep=KEEP) == [
        f"keep {month}: it is not archived yet: let auditdb archive run, or use force"
        for month in MONTHS
    ]
    assert len(archived.old()) == 120
    archived.conn.execute("select audit.move_archive(%s, 'app')", [archived.root.as_uri()])
    archived.archive()
    (line,) = archived.db.connect().execute(
        "select audit_private.unarchived('2020-03-01', 61)"
    ).fetchone() or ("",)
    assert "events of it came or changed since it was archived" in line
    assert maintain(owner, keep=KEEP) == [f"dropped {month}: 60 events" for month in MONTHS]
    assert archived.states() == dict.fromkeys(MONTHS, "dropped")
    # What retention dropped can be restored, too.
    assert archived.restore("2020-03") == 60


def test_a_month_comes_back_as_it_was(archived: Archived) -> None:
    before = archived.old()
    archived.archive(KEEP)
    assert archived.restore("2020-03") == 60
    assert archived.restore("2020-04") == 60
    assert archived.old() == before
    assert archived.findings() == []
    assert len(archived.actions("audit.month_restored")) == 2
    # It stays until it is asked to go.
    owner = archived.db.connect("app_owner")
    assert archived.archive(KEEP) == []
    assert maintain(owner, keep=KEEP)[-2:] == [
        f"keep {month}: it was restored from its archive: auditdb archive --restored lets it go, "
        "or use force" for month in MONTHS
    ]  # fmt: skip
    assert archived.old() == before
    assert archived.archive(KEEP, restored=True) == [
        f"dropped {month}: 60 events" for month in MONTHS
    ]
    assert archived.old() == []
    # No tick holds what came back a second time.
    archived.restore("2020-03")
    assert archived.conn.execute("select audit.make_tick()").fetchone() is not None
    query = "select sum(events) from audit.tick_month where month = '2020-03-01'"
    assert archived.conn.execute(query).fetchone() == (60,)


def test_only_what_was_archived_comes_back(archived: Archived) -> None:
    archived.archive(KEEP)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was not archived"):
        with archived.conn.transaction():
            archived.conn.execute("select audit_private.begin_restore('2019-01-01')")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="not the events"):
        with archived.conn.transaction():
            archived.conn.execute("select audit_private.begin_restore('2020-03-01')")
            archived.conn.execute(
                """select audit_private.take_back('[{"id": "1", "us": 1583020800000000,
                "transaction_id": "3", "action": "x.y", "result": "success", "actor_type": "user",
                "db_user": "x", "source": "x"}]')"""
            )
            archived.conn.execute("select audit_private.finish_restore('2020-03-01')")
    assert archived.old() == []


def test_a_changed_file_is_found_and_nothing_is_dropped(archived: Archived) -> None:
    archived.archive()
    before = archived.old()
    path = archived.file("2020-03")
    path.write_bytes(path.read_bytes() + b"x")
    told = archived.archive(KEEP)
    assert any("2020-03: " in line and "was changed" in line for line in told), told
    assert archived.old() == before[:60]


def test_what_somebody_else_wrote_is_left(archived: Archived) -> None:
    path = archived.file("2020-03")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"theirs")
    told = archived.archive(KEEP)
    assert "is not a file that this database wrote" in told[0]
    assert path.read_bytes() == b"theirs"
    assert archived.states()["2020-03"] == "pending"
    assert len(archived.old()) == 60


def test_what_comes_late_is_archived_and_not_dropped(archived: Archived) -> None:
    archived.archive()
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source) values"
            " ('2020-03-31 23:59Z', 'test.late', 'success', 'user', 'test')"
        )
    owner = archived.db.connect("app_owner")
    archived.conn.execute("select audit.make_tick()")
    archived.sealer.run()
    assert maintain(owner, keep=KEEP)[0].startswith(
        "keep 2020-03: 1 of its 61 events were written later than they say"
    )
    told = archived.archive(KEEP)
    assert told[0].startswith("archived 2020-03: 61 events")
    assert told[1].startswith("keep 2020-03: 1 of its 61 events were written later than they say")
    assert lines_of(archived.file("2020-03")) == live(archived, "2020-03")


def test_what_is_not_what_its_file_holds_is_not_dropped(archived: Archived) -> None:
    archived.archive()
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("alter table audit.event_2020_03 disable trigger refuse_change")
        conn.execute("update audit.event set result = 'failure' where id = -1000")
        conn.execute("alter table audit.event_2020_03 enable always trigger refuse_change")
    told = archived.archive(KEEP)
    assert told[0] == "keep 2020-03: its file holds other events, and will be written again"
    assert len(archived.old()) == 60


def test_legal_holds_and_subscriptions_are_waited_for(archived: Archived) -> None:
    hold_organization(archived.auditor, "o1", reason="case 1")
    told = archived.archive(KEEP)
    assert [line for line in told if line.startswith("keep")] == [
        f"keep {month}: organisation o1 is under legal hold, and it has events of then"
        for month in MONTHS
    ]
    assert len(archived.old()) == 120
    release_organization(archived.auditor, "o1", reason="case 1")
    archived.auditor.execute("select audit.subscribe('siem', '-')")
    told = archived.archive(KEEP)
    assert all("subscription siem has not taken" in line for line in told) and len(told) == 2
    assert len(archived.old()) == 120


def test_a_login_without_a_role_is_told_which(archived: Archived) -> None:
    place = Place(str(archived.root))
    for role, missing in (("app_auditor", "audit_operator"), ("app_owner", "audit_auditor")):
        with pytest.raises(Refused, match=f"grant {missing} to {role}"):
            list(Archiver(archived.db.connect(role), place).run())


def test_a_log_has_one_archive(archived: Archived, tmp_path: Path) -> None:
    archived.archive()
    with pytest.raises(Refused, match="are archived at"):
        list(Archiver(archived.conn, Place(str(tmp_path)), "app").run())
    with pytest.raises(InvalidInput, match="there is no directory"):
        Place(str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="leave out user"):
        Place("s3://key:secret@bucket/x")
    for url in ("s3://", "gs:///prefix"):
        with pytest.raises(InvalidInput, match="names no bucket"):
            Place(url)


def test_what_is_no_address_of_an_archive_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    # An empty variable of a script is not the directory that it runs in.
    for url in ("", " "):
        with pytest.raises(InvalidInput, match="give a directory, or s3://bucket/prefix"):
            Place(url)
    for url in ("http://[x", "://x", "[://x", "local:///tmp/x", "memory://x", "data://x", "s4://x",
                "s3:/bucket/x", "s3:bucket"):  # fmt: skip
        with pytest.raises(InvalidInput, match="is no place: give a directory, or s3://bucket"):
            Place(url)
    with pytest.raises(InvalidInput, match=r"file is no directory$"):
        Place("file")
    with pytest.raises(AuditError, match=r"cannot read .*: File name too long"):
        Place("x" * 5000)
    with pytest.raises(InvalidInput, match=r"no package for sftp:// is installed: .*paramiko"):
        Place("sftp://host/x")
    assert Place("S3://bucket/x").url == "s3://bucket/x"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_archives_at_a_time(archived: Archived) -> None:
    first = Archiver(archived.conn, Place(str(archived.root)), "app").run()
    next(first)
    second = Archiver(archived.db.connect("app_archiver"), Place(str(archived.root)), "app")
    with pytest.raises(Refused, match="another auditdb archive is at work"):
        list(second.run())
    list(first)
    assert list(second.run()) == []


def test_nobody_but_the_log_writes_its_archive(archived: Archived) -> None:
    archived.archive()
    for statement in ("update audit.archive set state = 'dropped'", "delete from audit.archive",
                      "insert into audit_private.restored_event select * from audit.event",
                      ):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            archived.conn.execute(statement)


def test_commands(archived: Archived) -> None:
    root = str(archived.root)

    def run_(*args: str) -> str:
        return good(archived.db, *args, role="app_archiver")

    told = run_("archive", "--to", root, "--keep", KEEP, "--database", "app")
    assert told.count("dropped") == 2
    told = run_("archive", "--status")
    assert "2020-03  dropped" in told and "sealed" in told
    assert '"month": "2020-03"' in run_("archive", "--status", "--json")
    assert run_("restore", "2020-03", "--archive", root) == "restored 2020-03: 60 events\n"
    result = run(archived.db, "restore", "2020-03", "--archive", root, role="app_archiver")
    assert "was not archived and then dropped" in error_of(result)
    assert "auditdb archive --status" in error_of(result)
    result = run(archived.db, "restore", "x", "--archive", root, role="app_archiver")
    assert "no month of the archive" in error_of(result, 2)
    result = run(archived.db, "archive", "--to", root, "--keep", "1 day", role="app_archiver")
    assert "at least 2 months" in error_of(result, 2)
    for args in (("--json",), ("--restored",)):
        result = run(archived.db, "archive", "--to", root, *args, role="app_archiver")
        assert f"{args[0]} goes with" in error_of(result, 2)


def test_the_status_of_a_log_without_an_archive_is_said(archived: Archived) -> None:
    assert good(archived.db, "archive", "--status", role="app_archiver") == (
        "no month is archived yet\n"
    )


def test_an_archive_moves_to_an_address_alone(archived: Archived, tmp_path: Path) -> None:
    archived.archive()
    for place, database in (
        (str(archived.root), "app"),
        (archived.root.as_uri(), ""),
        ("s3:", "x"),
    ):
        with pytest.raises(
            psycopg.errors.InvalidParameterValue,
            match="the address or the database name of the archive",
        ):
            archived.conn.execute("select audit.move_archive(%s, %s)", [place, database])
    moved = tmp_path / "moved"
    archived.root.rename(moved)
    with pytest.raises(Refused) as refused:
        list(Archiver(archived.conn, Place(str(moved)), "app").run())
    # What the message says works as it stands.
    statement = str(refused.value).partition("moved: ")[2]
    archived.conn.execute(statement.encode())
    archiver = Archiver(archived.conn, Place(str(moved)), "app")
    assert f"dropped {MONTHS[0]}: 60 events" in list(archiver.run(KEEP))


def test_what_comes_late_for_a_month_that_is_gone_is_said_to_be_that(archived: Archived) -> None:
    archived.archive(KEEP)
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source) values"
            " ('2020-03-31 23:59Z', 'test.late', 'success', 'user', 'test')"
        )
    owner = archived.db.connect("app_owner")
    while maintain(owner):
        pass
    for dry_run in (True, False):
        told = maintain(owner, keep=KEEP, dry_run=dry_run)
        assert any("2020-03: these events came after it was archived" in line for line in told), (
            told
        )


def test_a_large_value_goes_through(archived: Archived) -> None:
    large = "x" * 5_000_000
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (id, occurred_at, action, result, actor_type, source, details)"
            " values (-2000, '2020-03-31 23:59Z', 'test.late', 'success', 'user', 'test',"
            " jsonb_build_object('x', %s::text))",
            [large],
        )
    assert archived.archive()[0].startswith("archived 2020-03: 61 events")
    assert lines_of(archived.file("2020-03")) == live(archived, "2020-03")


def test_large_values_get_the_memory_that_they_take(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = format.digest

    def refuse(duck: duckdb.DuckDBPyConnection, path: Path) -> format.Digest:
        (limit,) = duck.execute("select current_setting('memory_limit')").fetchone() or ("",)
        if limit == "488.2 MiB":
            raise duckdb.OutOfMemoryException("Out of Memory Error: too little")
        return real(duck, path)

    monkeypatch.setattr(format, "digest", refuse)
    assert sum(line.startswith("dropped") for line in archived.archive(KEEP)) == 2


def test_large_values_come_back_few_at_once() -> None:
    with duckdb.connect() as duck:
        rows = duck.execute("select range as id, repeat('x', 9000000) as x from range(5)")
        assert [len(events) for events in _batches(rows)] == [2, 2, 1]
        rows = duck.execute("select range as id from range(2500)")
        assert [len(events) for events in _batches(rows)] == [1000, 1000, 500]


def test_what_duckdb_refuses_is_a_problem_of_a_month(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = format.write

    def refuse(duck: duckdb.DuckDBPyConnection, path: Path) -> None:
        monkeypatch.setattr(format, "write", write)
        duck.execute("copy event to '/nowhere/events.parquet'")

    monkeypatch.setattr(format, "write", refuse)
    told = archived.archive()
    assert told[0].startswith("2020-03: ") and "/nowhere" in told[0]
    assert told[1].startswith("archived 2020-04")


def test_a_disk_that_is_full_is_a_problem_of_a_month(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = format.load

    def refuse(*_: object) -> int:
        monkeypatch.setattr(format, "load", load)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(format, "load", refuse)
    told = archived.archive()
    assert told[0] == f"2020-03: cannot write to {gettempdir()}: No space left on device"
    assert told[1].startswith("archived 2020-04")


@pytest.mark.parametrize("url", ["", "s3://[x", "file:///tmp#b"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(InvalidInput):
        Place(url)


def test_an_interval_beyond_time_is_refused_once(archived: Archived) -> None:
    with pytest.raises(InvalidInput, match="'200000years' is no interval such as 6months"):
        archived.archive("200000years")
    assert archived.states() == {}


def test_a_database_without_auditdb_is_said_to_be_that(archived: Archived) -> None:
    with psycopg.connect(archived.db.conninfo("postgres"), dbname="postgres", autocommit=True) as c:
        for work in (
            lambda: list_months(c),
            lambda: restore(c, "2020-03", Place(str(archived.root))),
            lambda: list(Archiver(c, Place(str(archived.root))).run()),
        ):
            with pytest.raises(Refused, match="Run: auditdb install"):
                work()


def test_a_restore_from_elsewhere_says_where_the_file_was_put(
    archived: Archived, tmp_path: Path
) -> None:
    archived.archive(KEEP)
    (tmp_path / "other").mkdir()
    with pytest.raises(AuditError, match=f"auditdb archive put it at {archived.root.as_uri()}"):
        restore(archived.conn, MONTHS[0], Place(str(tmp_path / "other")))


def test_rows_of_the_caller_s_connection_may_be_anything(archived: Archived) -> None:
    archived.conn.autocommit = False
    with pytest.raises(InvalidInput, match="autocommit"):
        archived.archive(KEEP)
    archived.conn.autocommit = True
    archived.conn.row_factory, archived.conn.cursor_factory = dict_row, psycopg.RawCursor
    said = archived.archive(KEEP)
    assert sum(line.startswith("dropped") for line in said) == 2, said
    assert [month.name for month in list_months(archived.conn)] == list(MONTHS)
    with opened(str(archived.root), conn=archived.conn) as duck:
        (count,) = duck.execute("select count(*) from event where id < 0").fetchone() or (0,)
    assert count == 120
    assert archived.restore("2020-03") == 60
    assert archived.conn.row_factory is dict_row


def test_a_file_that_is_gone_is_named(archived: Archived) -> None:
    archived.archive(KEEP)
    archived.file("2020-03").unlink()
    with pytest.raises(AuditError, match="is not at"):
        archived.restore("2020-03")


def test_an_interrupt_within_duckdb_is_one() -> None:
    # DuckDB makes another error of it, which would be a traceback.
    with pytest.raises(KeyboardInterrupt), format.engine():
        raise RuntimeError("Query interrupted")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_QUERY], capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.stdout == "interrupted\n", done.stderr
