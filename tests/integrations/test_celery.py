"""Celery without Django: a task acts as who published it, on the connection that it opens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from psycopg_pool import ConnectionPool

import auditdb
from auditdb.integrations.celery import instrument
from auditdb.write.scope import current_claim
from tests.conftest import Database


@pytest.fixture
def tasks(db: Database) -> Iterator[Any]:
    """An app of Celery whose broker is this process's memory, and a task that writes."""
    instrument()
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="rename", shared=False)
    def rename(name: str) -> None:
        with psycopg.connect(db.conninfo("app")) as conn, auditdb.context(conn):
            conn.execute("update workflow set name = %s", [name])

    db.connect("app").execute("insert into workflow (organization_id, name) values (1, 'first')")
    app.rename = rename
    yield app
    app.close()


def test_a_task_acts_as_who_published_it(db: Database, tasks: Any) -> None:
    with start_worker(tasks, pool="solo", perform_ping_check=False):
        with auditdb.context(actor_id=7, impersonator_id=1, details={"ip": "192.0.2.1"}):
            tasks.rename.delay("ann's").get(timeout=10)
        tasks.rename.delay("nobody's").get(timeout=10)
    anns, nobodys = db.events("action = 'workflow.modified'")
    assert (anns["actor_id"], anns["impersonator_id"]) == ("7", "1")
    assert (anns["source"], anns["details"]["ip"]) == ("system", "192.0.2.1")
    assert anns["details"]["task"] == "rename"
    assert (nobodys["actor_id"], nobodys["actor_type"]) == (None, "system")
    assert current_claim() is None


def test_a_task_that_fails_leaves_no_actor_behind(db: Database, tasks: Any) -> None:
    with start_worker(tasks, pool="solo", perform_ping_check=False):
        with auditdb.context(actor_id=7), pytest.raises(TypeError):
            tasks.send_task("rename", kwargs={"name": "a", "x": 1}).get(timeout=10)
        tasks.rename.delay("b").get(timeout=10)
    (event,) = db.events("action = 'workflow.modified'")
    assert event["actor_id"] is None


def test_the_recipe_of_the_page_runs(db: Database) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
    (block,) = re.findall(r"### Tasks of Celery.*?```python\n(.*?)```", page, re.DOTALL)
    address = '"shop", broker="redis://"'
    assert address in block
    with ConnectionPool(db.conninfo("app"), open=True) as pool:
        known: dict[str, Any] = {"pool": pool, "__name__": "recipe"}
        exec(block.replace(address, '"shop", broker="memory://", backend="cache+memory://"'), known)
        with start_worker(known["tasks"], pool="solo", perform_ping_check=False):
            with auditdb.context(actor_id=7):
                known["promote"].delay(2, "ADMIN").get(timeout=10)
    (event,) = db.events("action = 'membership.role_changed'")
    assert (event["actor_id"], event["subject_id"], event["source"]) == ("7", "2", "system")


def test_it_needs_no_django() -> None:
    code = "import sys; sys.modules['django'] = None; import auditdb.integrations.celery as c; "
    assert (
        subprocess.run([sys.executable, "-c", code + "c.instrument()"], check=False).returncode == 0
    )
