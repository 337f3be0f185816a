"""An application that shows the log of the small application's organisations."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import psycopg
import pytest

from auditdb import auth, context, record
from auditdb.web import Access, app, beside
from tests.conftest import Database

# Users of the small application: the owner of 1, a member of it, the owner of 2.
OWNER, MEMBER, OTHER = "1", "2", "3"
PHONE = {"ip": "203.0.113.9", "user_agent": "Firefox", "request_id": "r-1"}


def day(db: Database) -> None:
    """Play what an admin wants to find."""
    app_conn = db.connect("app")
    record(app_conn, auth.login(OWNER, organization_id=1, source="web", details=PHONE))
    record(
        app_conn,
        auth.login(MEMBER, organization_id=1, source="web", result="failure",
                   details={"reason": "wrong password", "ip": "198.51.100.7"}),
    )  # fmt: skip
    with context(app_conn, actor_id=OWNER, source="web", details=PHONE):
        app_conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        app_conn.execute("update app_user set email = 'bob@new.test' where id = 2")
        app_conn.execute("insert into workflow (organization_id, name) values (1, 'Reminders')")
        app_conn.execute("update workflow set name = 'Gentle' where name = 'Reminders'")
    with context(app_conn, actor_id=MEMBER, impersonator_id="support-7", source="api"):
        app_conn.execute(
            "insert into api_key (organization_id, user_id, name, key_hash)"
            " values (1, 2, 'deploy', 'f00d')"
        )
    app_conn.execute(
        "select audit.record_event('membership.role_changed', '1', 'membership', '1,2', '2',"
        " 'denied', '2')"
    )
    with context(app_conn, actor_id=OTHER, source="web"):
        app_conn.execute("insert into workflow (organization_id, name) values (2, 'Secret plan')")


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, all takes long."""
    monkeypatch.setattr(beside, "LONG", 3600)


@pytest.fixture
def shop(db: Database) -> Database:
    """The small application after a day."""
    day(db)
    return db


@pytest.fixture
def site(shop: Database) -> Callable[..., Any]:
    """Make the application, for one who looks at it."""

    def make(viewer: Any = OWNER, organizations: Any = (1,), **given: Any) -> Any:
        look = {
            name: given.pop(name)
            for name in ("is_staff", "zone", "language", "scheme")
            if name in given
        }
        access = (
            Access(viewer_id=viewer, organizations=organizations, **look)
            if isinstance(viewer, str)
            else viewer
        )
        given = {"connect": shop.conninfo("app_reader"), "key": shop.key, **given}
        return app(viewer=lambda request: access, **given)

    return make


def fetch(application: Any, *paths: str, root: str = "", **headers: str) -> list[httpx.Response]:
    """Ask an application, mounted at a path, for some addresses."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=application, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            return [await client.get(f"{root}{path}", headers=headers) for path in paths]

    return asyncio.run(ask())


def texts(html: str, part: str = "what") -> list[str]:
    """Return the text of each row of the list."""
    cells = re.findall(rf'<td class="{part}"[^>]*>(.*?)</td>', html, re.DOTALL)
    return [" ".join(unescape(re.sub("<[^>]*>", "", cell)).split()) for cell in cells]


@pytest.fixture
def auditors(shop: Database) -> Iterator[None]:
    """The login of the page reads for the vendor's staff, too."""
    with psycopg.connect(shop.dsn, autocommit=True) as conn:
        conn.execute("grant audit_auditor to app_reader")
        yield
        conn.execute("revoke audit_auditor from app_reader")
