"""What an integration adds on the client: a statement in autocommit, and a transaction.

The tables have no triggers, so that nothing but saying who acts is measured. The contenders of a
framework take turns, each with a connection of its own, in one process.

    python -m benchmarks.frameworks [--rounds 30] [--runs 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import make_conninfo

import auditdb
from benchmarks.contenders import METADATA
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
    # pghistory knows the default database alone.
    aliases = {"none": "none", "auditdb": "auditdb", "django-pghistory": "default"}
    entry = {
        "ENGINE": "django.db.backends.postgresql", "NAME": "bench", "HOST": server.host,
        "PORT": str(server.port), "USER": server.user,
    }  # fmt: skip
    from django.conf import settings

    settings.configure(
        DATABASES={alias: dict(entry) for alias in aliases.values()},
        INSTALLED_APPS=["auditdb.integrations.django"],
        AUDITDB={"DATABASES": ["auditdb"]},
    )
    from django import setup

    setup()
    import json

    import pghistory
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
    _entered.enter_context(pghistory.context(**json.loads(METADATA)))
    return {name: work(alias) for name, alias in aliases.items()}


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
}


def measure(contenders: dict[str, Work], *, rounds: int, runs: int) -> None:
    """Print the median and the least microseconds of each, and what they are above the first."""
    names = list(contenders)
    for kind in contenders[names[0]]:
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                run = contenders[name][kind]
                for number in range(runs):
                    started = time.perf_counter()
                    run(number)
                    if turn:  # The first warms up.
                        times[name].append(1e6 * (time.perf_counter() - started))
        base = times[names[0]]
        for name in names:
            median, least = statistics.median(times[name]), min(times[name])
            more, at_least = median - statistics.median(base), least - min(base)
            print(
                f"  {kind:12} {name:18} median {median:6.0f} us {more:+5.0f}"
                f"   least {least:6.0f} us {at_least:+5.0f}"
            )


def main() -> None:
    """Measure each framework on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("frameworks", nargs="*", default=list(FRAMEWORKS))
    given = parser.parse_args()
    with running() as server:
        dsn = make_conninfo("", host=server.host, port=server.port, user=server.user)
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as conn:
            conn.execute("create database bench")
        with psycopg.connect(dsn, dbname="bench", autocommit=True) as conn:
            for statement in TABLE.strip().split("\n"):
                conn.execute(statement.encode())
        for name in given.frameworks:
            print(name)
            measure(FRAMEWORKS[name](server), rounds=given.rounds, runs=given.runs)


if __name__ == "__main__":
    main()
