"""What an integration adds on the client: a statement in autocommit, and a transaction.

The tables have no triggers, so that nothing but saying who acts is measured. `saved` is the whole:
what Django takes to save an object whose change is logged. The contenders of a framework take
turns, each with a connection of its own, in one process.

    python -m benchmarks.frameworks [--rounds 30] [--runs 200] [django] [sqlalchemy] [saved]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import make_conninfo

import auditdb
from benchmarks import packages, report
from benchmarks.capture import database
from benchmarks.contenders import CONTENDERS, METADATA, Contender
from tests.server import Server, running

# What is run, by its name: each takes the number of the run.
Work: TypeAlias = dict[str, Callable[[int], None]]
_entered = ExitStack()
ACTOR: Any = {"actor_id": "u_4711", "details": {"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}}
TABLE = """
create table member (id int primary key, name text not null);
insert into member select n, 'name' from generate_series(1, 100) as n;
vacuum analyze member;
"""


def django(server: Server) -> dict[str, Work]:
    """Return what Django does: plain, with auditdb's app, and with django-pghistory's context."""
    # pghistory knows the default database alone, which without it is nobody's.
    aliases = {"none": "none", "auditdb": "auditdb"}
    with_pghistory = "django-pghistory" in packages.versions()
    if with_pghistory:
        aliases["django-pghistory"] = "default"
    entry = {
        "ENGINE": "django.db.backends.postgresql", "NAME": "bench", "HOST": server.host,
        "PORT": str(server.port), "USER": server.user,
    }  # fmt: skip
    from django.conf import settings

    settings.configure(
        DATABASES={alias: dict(entry) for alias in ("default", *aliases.values())},
        INSTALLED_APPS=["auditdb.integrations.django"],
        AUDITDB={"DATABASES": ["auditdb"]},
    )
    from django import setup

    setup()
    from django.db import models, transaction

    class Member(models.Model):  # type: ignore[misc]
        id = models.IntegerField(primary_key=True)
        name = models.TextField()

        class Meta:
            app_label = "bench"
            db_table = "member"

    def work(alias: str) -> Work:
        members = Member.objects.using(alias)

        def statement(number: int) -> None:
            members.filter(pk=1 + number % 100).update(name=f"name {number}")

        def block(number: int) -> None:
            with transaction.atomic(using=alias):
                for other in range(3):
                    members.get(pk=1 + (number + other) % 100)
                statement(number)
                statement(number + 1)

        return {"statement": statement, "transaction": block}

    # Entered once: a request enters it once, and runs many statements.
    _entered.enter_context(auditdb.context(**ACTOR))
    if with_pghistory:
        import json

        import pghistory

        _entered.enter_context(pghistory.context(**json.loads(METADATA)))
    return {name: work(alias) for name, alias in aliases.items()}


class LogOfSignals:
    """Django's router: django-auditlog's own models live where its log is."""

    def db_for_read(self, model: Any, **_: Any) -> str | None:
        """Return the alias of a model's database, or none."""
        return "django-auditlog" if model._meta.app_label in packages.AUDITLOG_APPS else None

    db_for_write = db_for_read


def saved(server: Server) -> dict[str, Work]:
    """Return how Django changes an object, whose table has the triggers of each, or its signals."""
    logs = ("no audit", "auditdb", "django-pghistory")
    contenders = [c for c in CONTENDERS if c.name in logs]
    contenders.append(
        Contender(name="django-auditlog", install=packages.auditlog, log=("auditlog_logentry",))
    )
    databases = {}
    dsn = make_conninfo("", host=server.host, port=server.port, user=server.user)
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as conn:
        for contender in contenders:
            conn.execute(f"create database {contender.database}".encode())
            contender.prepare(make_conninfo(dsn, dbname=contender.database))
            # pghistory knows the default database alone.
            alias = "default" if contender.name == "django-pghistory" else contender.name
            databases[alias] = {
                "ENGINE": "django.db.backends.postgresql", "NAME": contender.database,
                "HOST": server.host, "PORT": str(server.port), "USER": server.user,
            }  # fmt: skip
    from django.conf import settings

    settings.configure(
        DATABASES=databases,
        DATABASE_ROUTERS=[LogOfSignals()],
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "auditlog",
            "auditdb.integrations.django",
        ],
        AUDITDB={"DATABASES": ["auditdb"]},
        USE_TZ=True,
    )
    from django import setup

    setup()
    import json

    import pghistory
    from auditlog.context import set_actor
    from auditlog.registry import auditlog
    from django.contrib.auth import get_user_model
    from django.db import models, transaction

    class Row(models.Model):  # type: ignore[misc]
        id = models.IntegerField(primary_key=True)
        organization_id = models.IntegerField()
        user_id = models.IntegerField()
        role = models.TextField()
        name = models.TextField()
        email = models.TextField()
        quota = models.IntegerField()
        active = models.BooleanField()
        updated_at = models.DateTimeField(auto_now=True)

        class Meta:
            abstract = True

    class Member(Row):
        class Meta:
            app_label = "bench"
            db_table = "member"

    class Registered(Row):
        class Meta:
            app_label = "bench"
            db_table = "member"

    auditlog.register(Registered)

    def work(alias: str) -> Work:
        model = Registered if alias == "django-auditlog" else Member

        def saves(number: int, objects: int) -> None:
            with transaction.atomic(using=alias):
                for other in range(objects):
                    member = model.objects.using(alias).get(pk=1 + (number + other) % 1000)
                    member.name, member.quota = f"name {time.perf_counter()}", member.quota + 1
                    member.save(using=alias)

        def created(number: int) -> None:
            with transaction.atomic(using=alias):
                member = model(
                    id=100_000 + number, organization_id=1, user_id=number, role="MEMBER",
                    name="name", email="mail@example.com", quota=1, active=True,
                )  # fmt: skip
                member.save(using=alias, force_insert=True)
                member.delete(using=alias)

        return {
            "one saved": lambda number: saves(number, 1),
            "ten saved": lambda number: saves(number, 10),
            "created, deleted": created,
        }

    _entered.enter_context(auditdb.context(**ACTOR))
    _entered.enter_context(pghistory.context(**json.loads(METADATA)))
    user = get_user_model().objects.create(username="u_4711")
    _entered.enter_context(set_actor(user, remote_addr="203.0.113.9"))
    works = {
        c.name: work("default" if c.name == "django-pghistory" else c.name) for c in contenders
    }
    for contender in contenders:
        works[contender.name]["created, deleted"](0)
        for log in contender.log[:1]:
            with psycopg.connect(make_conninfo(dsn, dbname=contender.database)) as conn:
                assert len(conn.execute(f"select from {log}".encode()).fetchall()) >= 2
    return works


def sqlalchemy(server: Server) -> dict[str, Work]:
    """Return what SQLAlchemy does: plain, instrumented, and with set_config by hand."""
    from sqlalchemy import URL, Column, Engine, Integer, MetaData, Table, Text, create_engine
    from sqlalchemy import text as sql

    from auditdb.integrations.sqlalchemy import instrument
    from auditdb.write.scope import current_claim

    url = URL.create(
        "postgresql+psycopg", server.user, host=server.host, port=server.port, database="bench"
    )
    member = Table(
        "member", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text)
    )
    by_hand = sql("select set_config('auditdb.context', :setting, true)")

    def work(engine: Engine, is_by_hand: bool = False) -> Work:
        def run(number: int, reads: int, writes: int) -> None:
            with engine.begin() as conn:
                if is_by_hand:
                    claim = current_claim()
                    conn.execute(by_hand, {"setting": claim.setting if claim else ""})
                for other in range(reads):
                    conn.execute(member.select().where(member.c.id == 1 + other)).all()
                for other in range(writes):
                    row = member.update().where(member.c.id == 1 + (number + other) % 100)
                    conn.execute(row.values(name=f"name {number}"))

        return {
            "statement": lambda number: run(number, 0, 1),
            "transaction": lambda number: run(number, 3, 2),
            "only reads": lambda number: run(number, 3, 0),
        }

    _entered.enter_context(auditdb.context(**ACTOR))
    instrumented = create_engine(url)
    instrument(instrumented)
    return {
        "none": work(create_engine(url)),
        "auditdb": work(instrumented),
        "by hand": work(create_engine(url), True),
    }


FRAMEWORKS: dict[str, Callable[[Server], dict[str, Work]]] = {
    "django": django,
    "sqlalchemy": sqlalchemy,
    "saved": saved,
}


def measure(contenders: dict[str, Work], rounds: Iterable[int], runs: int) -> list[dict[str, Any]]:
    """Return median and least microseconds of each, and what they are above the first.

    Also the processor time of this process, which a busy machine moves little.
    """
    names = list(contenders)
    kinds = list(contenders[names[0]])
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn in rounds:
        for kind in kinds:
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                run = contenders[name][kind]
                used = time.process_time()
                for number in range(runs):
                    started = time.perf_counter()
                    run(number)
                    if turn:  # The first warms up.
                        times[kind, name].append(1e6 * (time.perf_counter() - started))
                if turn:
                    cpu[kind, name].append(1e6 * (time.process_time() - used) / runs)
    rows = []
    for kind in kinds:
        clock = report.summary({n: times[kind, n] for n in names}, added_to=names[0])
        of_cpu = report.summary({n: cpu[kind, n] for n in names}, added_to=names[0])
        rows += [
            {"us": kind, "by": row.pop(""), **row, "CPU": ran["median"], "CPU, added":
             ran["median, added"]}
            for row, ran in zip(clock, of_cpu, strict=True)
        ]  # fmt: skip
    return rows


def _measured(name: str, server: Server, rounds: Iterable[int], runs: int) -> list[dict[str, Any]]:
    return measure(FRAMEWORKS[name](server), rounds, runs)


def measure_apart(
    name: str, server: Server, rounds: Iterable[int], runs: int
) -> list[dict[str, Any]]:
    """Measure a framework in a process of its own: Django is set up once."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_measured, name, server, rounds, runs).result()


def prepare(dsn: str) -> None:
    """Make the table."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in TABLE.strip().split("\n"):
            conn.execute(statement.encode())


def main() -> None:
    """Measure each framework on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("frameworks", nargs="*", default=list(FRAMEWORKS))
    given = parser.parse_args()
    with running() as server:
        dsn = make_conninfo("", host=server.host, port=server.port, user=server.user)
        with database(make_conninfo(dsn, dbname="postgres"), "bench") as own:
            prepare(own)
            for name in given.frameworks:
                found = measure_apart(name, server, range(given.rounds + 1), given.runs)
                print(f"{name}\n{report.table(found)}\n")


if __name__ == "__main__":
    main()
