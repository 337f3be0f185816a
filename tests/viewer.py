"""Signs viewer tokens and reads with them, as an application's backend would."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from tests.conftest import Database


def sign(key: str, user: str, organization: str, *, seconds: int = 60) -> str:
    """Return a token that lets `user` read `organization` for some seconds from now."""
    key_id, secret = key.split(".", 1)
    names = [
        base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
        for name in (user, organization)
    ]
    message = ".".join(["v1", key_id, *names, str(int(time.time()) + seconds)])
    mac = hmac.new(secret.encode("ascii"), message.encode("ascii"), hashlib.sha256).hexdigest()
    return f"{message}.{mac}"


def read(db: Database, user: str, organization: str, query: str) -> list[tuple[Any, ...]]:
    """Return what `query` gives to `user` of `organization`, on a connection of audit_reader."""
    with psycopg.connect(db.conninfo("app_reader")) as conn:
        conn.execute(
            "select set_config('auditdb.viewer', %s, true)", (sign(db.key, user, organization),)
        )
        return conn.execute(query.encode()).fetchall()
