"""The project's database, and the project set up in this process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
import psycopg
from psycopg.conninfo import conninfo_to_dict

SETTINGS = "tests.integrations.django_project.settings"
DATA = """
grant usage on schema public to app;
grant all on all tables in schema public to app;
grant all on all sequences in schema public to app;
insert into organization (name) values ('Acme'), ('Globex');
insert into workflow (organization_id, name) select 1, 'w' || n from generate_series(1, 40) as n;
"""


def set_up() -> None:
    """Set Django up in this process, once; the zone of the process stays, which Django sets."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", SETTINGS)
    before = os.environ.get("TZ")
    django.setup()
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


def options(dsn: str, user: str, **more: Any) -> dict[str, Any]:
    """Return the entry of DATABASES for a role."""
    given: Any = conninfo_to_dict(dsn)
    return {
        "NAME": given["dbname"], "HOST": given["host"], "PORT": str(given["port"]),
        "USER": user, "PASSWORD": "secret", **more,
    }  # fmt: skip


@contextmanager
def using(entry: dict[str, Any]) -> Iterator[None]:
    """Let `default` be another database."""
    from django.db import connections

    entry = {"CONN_MAX_AGE": 0, "ATOMIC_REQUESTS": False, "OPTIONS": {}, **entry}
    connections["default"].close()
    if hasattr(connections["default"], "close_pool"):
        connections["default"].close_pool()
    connections.settings["default"].update(entry)
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        if hasattr(connections["default"], "close_pool"):
            connections["default"].close_pool()


def load_project(
    host: str, port: int, user: str, dbname: str, password: str | None, **_: object
) -> None:
    """Create the project's tables, by its own migrations, and rows in them."""
    del user, password
    dsn = psycopg.conninfo.make_conninfo("", host=host, port=port, dbname=dbname)
    set_up()
    from django.core.management import call_command

    with using(options(dsn, "app_owner")):
        call_command("migrate", verbosity=0)
    with psycopg.connect(dsn, user="app_owner", password="secret") as conn:
        conn.execute(DATA.encode())


def environment(**given: Any) -> dict[str, str]:
    """Return the environment of a process of the project."""
    return {**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "DJANGO_TEST": json.dumps(given)}
