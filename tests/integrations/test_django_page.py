"""The page of admins beside Django: the recipe of docs/page.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.conftest import Database
from tests.test_readme import blocks


def test_it_stands_beside_django(
    django_db: Database, project: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.contrib.auth import get_user_model
    from django.test import Client

    monkeypatch.setenv("AUDITDB_KEY", django_db.key)
    user = get_user_model().objects.create_user("ann", "ann@shop.test", "pw")
    conn = django_db.connect()
    conn.execute(
        "create table member (organization_id int, user_id int, role text,"
        " primary key (organization_id, user_id));"
        "select audit.attach('member', 'membership');"
    )
    conn.execute("insert into member values (7, %s, 'OWNER')", [user.pk])
    client = Client()
    client.force_login(user)
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    snippet = blocks("docs/page.md", "python")[1]
    names: dict[str, Any] = {
        "reader_dsn": django_db.conninfo("app_reader"),
        "organizations_of": lambda user: {7: "Acme"},
    }  # fmt: skip
    exec(snippet, names)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=names["application"])
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as asked:
            return [
                await asked.get("/audit/", headers={"cookie": cookie}),
                await asked.get("/audit/"),
            ]

    shown, nobody = asyncio.run(ask())
    assert shown.status_code == 200 and "added" in shown.text
    assert nobody.status_code == 401
