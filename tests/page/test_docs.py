"""docs/page.md: its snippets run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastapi
import flask
import httpx
import psycopg_pool
import pytest

from tests.conftest import Database
from tests.page.conftest import fetch, texts
from tests.test_readme import ROOT, blocks

PAGE = Path(ROOT, "docs", "page.md").read_text("utf-8")


def test_it_is_mounted_in_fastapi_with_a_pool(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITDB_KEY", shop.key)
    mount = blocks("docs/page.md", "python")[0]

    async def ask() -> list[httpx.Response]:
        api = fastapi.FastAPI()

        @api.middleware("http")
        async def known(request: Any, call_next: Any) -> Any:
            name = request.headers.get("x-user")
            request.state.user = (
                SimpleNamespace(id=int(name), team_id=1, team_name="Acme") if name else None
            )
            return await call_next(request)

        async with psycopg_pool.AsyncConnectionPool(
            shop.conninfo("app_reader"), min_size=1, max_size=2
        ) as pool:
            exec(mount, {"api": api, "pool": pool})
            transport = httpx.ASGITransport(app=api)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                return [
                    await client.get("/audit/", headers={"x-user": user} if user else {})
                    for user in ("1", "", "4")
                ]

    owner, nobody, stranger = asyncio.run(ask())
    assert owner.status_code == 200 and len(texts(owner.text)) == 8
    assert all(link.startswith("/audit/") for link in re.findall(r'href="(/[^"]*)"', owner.text))
    assert (nobody.status_code, stranger.status_code) == (401, 403)


def test_it_is_a_process_of_its_own_behind_flask(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITDB_KEY", shop.key)
    flask_app = flask.Flask("shop")
    flask_app.secret_key = "secret"

    @flask_app.get("/in/<user_id>")
    def sign_in(user_id: str) -> str:
        flask.session["user_id"] = user_id
        return ""

    def signed_in(user_id: str) -> str:
        client = flask_app.test_client()
        client.get(f"/in/{user_id}")
        cookie = client.get_cookie("session")
        assert cookie is not None
        return f"session={cookie.value}"

    monkeypatch.setitem(sys.modules, "shop", SimpleNamespace(flask_app=flask_app))
    names: dict[str, Any] = {
        "reader_dsn": shop.conninfo("app_reader"),
        "load_user": lambda found: SimpleNamespace(id=found, team_id=1, team_name="Acme"),
    }  # fmt: skip
    exec(blocks("docs/page.md", "python")[2], names)

    page = names["page"]
    (owner,) = fetch(page, "/", root="/audit", cookie=signed_in("1"))
    assert owner.status_code == 200 and len(texts(owner.text)) == 8
    assert all(link.startswith("/audit/") for link in re.findall(r'href="(/[^"]*)"', owner.text))
    (member,) = fetch(page, "/", root="/audit", cookie=signed_in("4"))
    (forged,) = fetch(page, "/", root="/audit", cookie=signed_in("1")[:-2])
    (nobody,) = fetch(page, "/", root="/audit")
    assert [got.status_code for got in (member, forged, nobody)] == [403, 401, 401]


def test_every_argument_and_column_that_it_names_is_there() -> None:
    import inspect

    from auditdb.web import Access, app

    table = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.M)
    named = set(re.findall(r"`(\w+)`", " ".join(table)))
    arguments = set(inspect.signature(app).parameters)
    assert named == arguments - {"connect", "key", "viewer"}
    assert {"zone", "language", "scheme", "is_staff"} <= set(inspect.signature(Access).parameters)
