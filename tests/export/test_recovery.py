"""Recoveries: of a dump in another cluster, and to an earlier moment, with an exporter at work."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

import auditdb
from auditdb.cli import main
from auditdb.errors import AuditError
from auditdb.export import read
from tests.export.test_exporter import filed
from tests.export.test_ticks import RECORD, tick
from tests.server import SETTINGS, Server, running


def dsn_of(server: Server, dbname: str = "postgres") -> str:
    return f"host=127.0.0.1 port={server.port} user=postgres dbname={dbname}"


def run(dsn: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", dsn, *args])


def export(dsn: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    result = run(dsn, "export", "files", "--to", folder.as_uri())
    assert result.exit_code == 0, result.stderr


def record(dsn: str, events: int) -> list[int]:
    """Write events, each in a transaction of its own, and return their ids."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return [conn.execute(RECORD).fetchall()[0][0] for _ in range(events)]


def everything(dsn: str, cursor: str | None = None) -> tuple[list[Any], str | None]:
    """Return what an auditor reads from a cursor on, and the next cursor."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        tick(conn)
        events: list[Any] = []
        is_more = True
        while is_more:
            batch = read(conn, cursor, at_most=7)
            cursor, is_more = batch.cursor, batch.is_more
            events += batch.events
        return events, cursor


def logged(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as conn:
        return [i for (i,) in conn.execute("select id from audit.event order by id")]


def began(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        return [b for (b,) in conn.execute("select began from audit.series order by id")]


def reach(dsn: str, transaction_id: int) -> None:
    """Use transaction ids up to one."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create temporary table used (n int)")
        conn.execute(
            "do $$ begin for _n in 1 .. greatest(0, %s - pg_current_xact_id()::text::bigint) loop "
            "begin insert into used values (1); exception when division_by_zero then null; end; "
            "end loop; end $$".replace("%s", str(int(transaction_id))).encode()
        )


def tool(server: Server, name: str, *args: str, text: str | None = None) -> str:
    assert server.bin is not None
    done = subprocess.run(
        [server.bin / name, *args], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clusters() -> Iterator[tuple[Server, Server]]:
    """A cluster with a log, and another for its dump."""
    with running() as old, running() as new:
        if old.bin is None or not (old.bin / "pg_dump").exists():
            pytest.skip("no pg_dump for this server")
        auditdb.install(dsn_of(old))
        yield old, new


def test_a_dump_in_another_cluster_goes_on_where_it_was(
    clusters: tuple[Server, Server], tmp_path: Path
) -> None:
    old, new = map(dsn_of, clusters)
    reach(old, 20_000)
    record(old, 5)
    export(old, tmp_path / "files")
    before, cursor = everything(old)
    # No tick holds these, and the transaction ids that they have are used again there.
    between = record(old, 3)
    tool(clusters[0], "pg_dump", "-Fc", "-f", str(tmp_path / "dump"), "-d", old)
    record(old, 4)
    _, newer = everything(old)
    tool(clusters[1], "psql", "-qX", "-d", new,
         text=tool(clusters[0], "pg_dumpall", "--roles-only", "-d", old))  # fmt: skip
    tool(clusters[1], "pg_restore", "--exit-on-error", "-d", new, str(tmp_path / "dump"))

    reach(new, before[-1].transaction_id - 2)
    early = record(new, 3)
    refused = run(new, "export", "files")
    assert refused.exit_code == 1 and "auditdb install" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    auditdb.install(new)
    late = record(new, 5)
    export(new, tmp_path / "files")
    assert began(new) == ["installed", "restored"]

    after, end = everything(new, cursor)
    ids = [event.id for event in before + after]
    assert sorted(ids) == logged(new) and {*between, *early, *late} <= {e.id for e in after}
    # Of the old cluster the sink has what came before the dump, and nothing twice.
    assert sorted(filed(tmp_path / "files")) == logged(new)
    for _ in range(4):
        # The numbers of ticks pass those of the other cluster.
        record(new, 1)
        everything(new, end)
        with pytest.raises(AuditError, match="this database does not know"):
            everything(new, newer)
    in_series: dict[int, set[int | None]] = {}
    for event in before + after:
        in_series.setdefault(event.transaction_id, set()).add(event.series_id)
    assert {1, 2} in in_series.values(), "no transaction id came twice: nothing was tested"
    with psycopg.connect(new) as conn:
        rows = conn.execute("select id, series_id from audit.log").fetchall()
    assert {e.id: e.series_id for e in before + after}.items() <= dict(rows).items()
    # Who asks for a transaction of one series gets nothing of the other's.
    twice = next(number for number, series in in_series.items() if {1, 2} <= series)
    wanted = {(e.id, e.series_id) for e in before + after if e.transaction_id == twice}
    with psycopg.connect(new) as conn:
        for number in (1, 2):
            page = auditdb.auditor(conn).page(transaction_id=twice, series_id=number, baseline=True)
            assert {(e.id, number) for e in page.events} == {w for w in wanted if w[1] == number}


@contextmanager
def recovered(server: Server, point: str) -> Iterator[tuple[Any, str]]:
    """Yield what recovers a base backup of now to a moment, and the address that it gets."""
    assert server.bin is not None and server.data is not None
    data = Path(f"{server.data}-recovered")
    copy = replace(server, port=server.port + 1, data=data)
    try:
        copy.run("pg_basebackup", "-h", server.host, "-p", str(server.port), "-U", server.user,
                 "--checkpoint=fast", "--no-sync")  # fmt: skip

        def recover() -> None:
            with (data / "postgresql.conf").open("a") as conf:
                conf.write(
                    f"{SETTINGS}\nport = {copy.port}\nunix_socket_directories = '{data}'\n"
                    f"restore_command = 'cp {server.data}/pg_wal/%f %p'\n"
                    f"recovery_target_name = '{point}'\nrecovery_target_action = 'promote'\n"
                )
            (data / "recovery.signal").touch()
            copy.run("pg_ctl", "-w", "-t", "60", "-l", str(data / "log"), "start")
            with psycopg.connect(dsn_of(copy), autocommit=True) as conn:
                until = time.monotonic() + 60
                while conn.execute("select pg_is_in_recovery()").fetchone() == (True,):
                    assert time.monotonic() < until, "the recovery does not end"
                    time.sleep(0.05)

        yield recover, dsn_of(copy)
    finally:
        with suppress(RuntimeError):
            copy.run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(data, ignore_errors=True)


def test_a_recovery_to_an_earlier_moment_forgets_ticks_and_takes_none_for_another(
    tmp_path: Path,
) -> None:
    with running() as server:
        dsn = dsn_of(server)
        auditdb.install(dsn)
        record(dsn, 5)
        export(dsn, tmp_path / "files")
        with recovered(server, "before") as (recover, copy):
            record(dsn, 4)
            export(dsn, tmp_path / "files")
            kept, cursor = everything(dsn)
            between = record(dsn, 3)
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute("select pg_create_restore_point('before')")
            record(dsn, 6)
            export(dsn, tmp_path / "files")
            lost, newer = everything(dsn, cursor)
            sent = filed(tmp_path / "files")
            recover()

            fresh = record(copy, 5)
            export(copy, tmp_path / "files")
            there = logged(copy)
            assert began(copy) == ["installed", "continued"]
            after, end = everything(copy, cursor)
            assert sorted(e.id for e in kept + after) == logged(copy)
            assert {*between, *fresh} <= {e.id for e in after}
            used = {e.transaction_id for e in lost} & {e.transaction_id for e in after[-5:]}
            assert used, "no transaction id was used again: nothing was tested"
            for _ in range(4):
                record(copy, 1)
                everything(copy, end)
                with pytest.raises(AuditError, match="this database does not know"):
                    everything(copy, newer)
            # What was sent stays as it is; what comes then is in a folder of its own.
            folders = sorted((tmp_path / "files" / "files").iterdir())
            assert filed(folders[0]) == sent and len(folders) == 2
            again = filed(folders[1])
            assert len(set(again)) == len(again) and {*between, *fresh} <= set(again)
            assert set(sent) | set(again) >= set(there)
