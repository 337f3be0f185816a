"""The viewer token: HMAC vectors, tokens signed by other tools, and tokens that were mutated."""

from __future__ import annotations

import os
import random
import shutil
import string
import subprocess
import time

import psycopg
import pytest

from tests.conftest import Database
from tests.viewer import sign

# Mutated tokens to try: `make fuzz` asks for 100,000.
TOKENS = int(os.environ.get("AUDITDB_FUZZ", "2000"))

# RFC 4231, sections 4.2 to 4.8: key, data, HMAC-SHA-256. The fifth is cut to 128 bits there.
RFC_4231 = [
    ("0b" * 20, b"Hi There".hex(),
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe".hex(), b"what do ya want for nothing?".hex(),
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    ("aa" * 20, "dd" * 50,
     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (bytes(range(1, 26)).hex(), "cd" * 50,
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ("0c" * 20, b"Test With Truncation".hex(), "a3b6167473100ee06e0c796c2955552b"),
    ("aa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ("aa" * 131, (b"This is a test using a larger than block-size key and a larger than "
                  b"block-size data. The key needs to be hashed before being used by the HMAC "
                  b"algorithm.").hex(),
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]  # fmt: skip

# What a shell can do: no language's library stands between.
SHELL = """
set -eu
key_id=${AUDITDB_KEY%%.*}
secret=${AUDITDB_KEY#*.}
b64() { printf %s "$1" | openssl base64 -A | tr '+/' '-_' | tr -d '='; }
message="v1.$key_id.$(b64 "$1").$(b64 "$2").$(($(date +%s) + 60))"
mac=$(printf %s "$message" | openssl dgst -sha256 -hmac "$secret" | sed 's/^.* //')
printf %s "$message.$mac"
"""


@pytest.mark.parametrize(("key", "data", "mac"), RFC_4231)
def test_hmac_is_that_of_rfc_4231(empty_db: Database, key: str, data: str, mac: str) -> None:
    row = (
        empty_db.connect()
        .execute(
            "select encode(audit_private.hmac_sha256(decode(%s, 'hex'), decode(%s, 'hex')), 'hex')",
            (key, data),
        )
        .fetchone()
    )
    assert row is not None and row[0].startswith(mac)


def organization(conn: psycopg.Connection[object], token: str) -> object:
    """Return what the database makes of a token."""
    row = conn.execute(
        "select audit.viewer_organization() from set_config('auditdb.viewer', %s, true)", (token,)
    ).fetchone()
    assert isinstance(row, tuple)
    return row[0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_token_signed_in_a_shell_with_openssl_is_accepted(db: Database) -> None:
    done = subprocess.run(
        ["sh", "-c", SHELL, "sign", "1", "1"],
        env={**os.environ, "AUDITDB_KEY": db.key}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with db.connect("app_reader", autocommit=False) as conn:
        assert organization(conn, done.stdout) == "1"


def mutate(rng: random.Random, good: str, others: list[str], secret: str) -> str:
    """Return a token that is not `good`, and that no key signed for what it says."""
    alphabet = (
        string.ascii_letters + string.digits + "-_.=+/ \t\n'\"\\%\u00e9\u0435\uff11\U0001f511"
    )
    token = rng.choice([good, *others])
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(token) + 1)
        parts = token.split(".")
        part = rng.randrange(len(parts))
        choice = rng.randrange(12)
        if choice == 0:
            token = token[:at] + rng.choice(alphabet) + token[at:]
        elif choice == 1:
            token = token[:at] + token[at + 1 :]
        elif choice == 2:
            token = token[:at] + rng.choice(alphabet) + token[at + 1 :]
        elif choice == 3:
            token = token[:at]
        elif choice == 4:
            token = token[at:]
        elif choice == 5:
            token = token[:at] + token[at : at + 2][::-1] + token[at + 2 :]
        elif choice == 6:
            token = token[:at] + token[at:].swapcase()
        elif choice == 7:
            parts[part] = rng.choice(rng.choice([good, *others]).split("."))
            token = ".".join(parts)
        elif choice == 8:
            parts.insert(part, parts[rng.randrange(len(parts))])
            token = ".".join(parts)
        elif choice == 9:
            del parts[part]
            token = ".".join(parts)
        elif choice == 10:
            parts[part] = rng.choice(["", "0", "-1", "9" * rng.randrange(1, 400), "A" * 64, secret,
                                      "f" * 64, "null", str(int(time.time()) + 50)])  # fmt: skip
            token = ".".join(parts)
        else:
            token = token * rng.randrange(2, 40)
        token = token or "."
    return token


def test_no_mutated_token_is_accepted_and_none_raises(db: Database) -> None:
    key = db.key

    def fresh() -> str:
        return sign(key, "1", "1", seconds=600)

    def stale() -> list[str]:
        # Rightly signed for what is not to be had: the mutations start from these as well.
        return [
            sign(key, "1", "2"), sign(key, "2", "1"), sign(key, "1", "1", seconds=-5),
            sign(key, "1", "1", seconds=4000), sign("0000." + key.split(".")[1], "1", "1"),
            sign(key.split(".")[0] + ".", "1", "1"),
        ]  # fmt: skip

    good, others = fresh(), stale()
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    with db.connect("app_reader", autocommit=False) as conn:
        conn.execute(
            "create function pg_temp.ask(token text) returns text language plpgsql as $$ begin"
            " perform set_config('auditdb.viewer', token, true);"
            " return audit.viewer_organization(); end $$"
        )
        tried = 0
        while tried < TOKENS:
            tokens = [mutate(rng, good, others, key) for _ in range(500)]
            tokens = [token for token in tokens if token != good][: TOKENS - tried]
            # The good one among them, to see that they are asked for at all.
            accepted = conn.execute(
                "select token from unnest(%s::text[]) as token"
                " where pg_temp.ask(token) is not null",
                ([*tokens, good],),
            ).fetchall()
            assert accepted == [(good,)], f"seed {seed}: {accepted[:3]}"
            tried += len(tokens)
            good, others = fresh(), stale()
