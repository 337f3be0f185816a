"""Viewer tokens: what is minted here is what the database accepts, and nothing else."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from auditdb import InvalidInput
from auditdb.read.token import mint
from tests.conftest import Database
from tests.viewer import sign


def organization_of(db: Database, token: str) -> Any:
    """Return which organisation the database lets the bearer of a token read."""
    with psycopg.connect(db.conninfo("app_reader")) as conn:
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        row = conn.execute("select audit.viewer_organization()").fetchone()
    assert row is not None
    return row[0]


def test_an_admins_token_is_accepted_for_their_organization_only(db: Database) -> None:
    assert organization_of(db, mint(db.key, 1, 1)) == "1"
    assert organization_of(db, mint(db.key, "3", "2")) == "2"
    assert organization_of(db, mint(db.key, 1, 2)) is None
    assert organization_of(db, mint(db.key, 2, 1)) is None


def test_a_token_lives_from_now_to_its_end(db: Database) -> None:
    now = time.time()
    assert organization_of(db, mint(db.key, 1, 1, now=now - 50)) == "1"
    assert organization_of(db, mint(db.key, 1, 1, now=now - 61)) is None
    assert organization_of(db, mint(db.key, 1, 1, lifetime=3600, now=now - 5)) == "1"
    assert organization_of(db, mint(db.key, 1, 1, lifetime=3600, now=now + 60)) is None


def test_a_token_is_void_from_the_second_in_which_it_expires(db: Database) -> None:
    while True:
        now = int(time.time())
        found = organization_of(db, sign(db.key, "1", "1", seconds=0))
        # Beyond this second it would be void with a second of tolerance too.
        if int(time.time()) == now:
            break
    assert found is None


def test_a_token_lives_for_an_hour_at_the_most(db: Database) -> None:
    assert organization_of(db, sign(db.key, "1", "1", seconds=3600)) == "1"
    assert organization_of(db, sign(db.key, "1", "1", seconds=3602)) is None


def test_a_token_ends_by_the_clock_also_within_a_transaction(db: Database) -> None:
    with psycopg.connect(db.conninfo("app_reader")) as conn:
        began = conn.execute("select extract(epoch from now())").fetchone()
        assert began is not None
        while int(time.time()) <= began[0]:
            pass
        # Void since this second, which began after the transaction did.
        token = sign(db.key, "1", "1", seconds=0)
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        assert conn.execute("select audit.viewer_organization()").fetchone() == (None,)


def test_a_token_longer_than_2000_characters_is_void_whoever_signed_it(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table member (organization_id text, user_id text, role text)")
    owner.execute("select audit.attach('member', 'membership')")
    for length, organization in ((1300, "1"), (1500, None)):
        user = "u" * length
        owner.execute("insert into member values ('1', %s, 'OWNER')", (user,))
        token = sign(db.key, user, "1")
        assert (len(token) > 2000) == (organization is None)
        assert organization_of(db, token) == organization


def test_a_token_of_another_key_is_void(db: Database) -> None:
    key_id, _, secret = db.key.partition(".")
    assert organization_of(db, mint(f"{key_id}.{secret[:-1]}", 1, 1)) is None
    assert organization_of(db, mint(f"{key_id}x.{secret}", 1, 1)) is None


def test_the_form_is_the_documented_one_and_its_mac_is_the_databases(db: Database) -> None:
    token = mint("k1.secret", "7", "a/b?ü", lifetime=60, now=1_700_000_000.9)
    message, _, mac = token.rpartition(".")
    assert message == "v1.k1.Nw.YS9iP8O8.1700000060"
    row = (
        db.connect()
        .execute(
            "select encode(audit_private.hmac_sha256(convert_to('secret', 'UTF8'), %s), 'hex')",
            (message.encode(),),
        )
        .fetchone()
    )
    assert row == (mac,)


def test_ids_of_any_alphabet_pass(db: Database) -> None:
    owner = db.connect()
    owner.execute(
        "create table member (organization_id text, user_id text, role text, "
        "primary key (organization_id, user_id)); "
        "alter table member owner to app_owner; "
        "insert into member values ('Ünïón ☂/?&', 'ü.7', 'OWNER')"
    )
    db.connect("app_owner").execute(
        "select audit.detach('membership'); select audit.attach('member', 'membership')"
    )
    assert organization_of(db, mint(db.key, "ü.7", "Ünïón ☂/?&")) == "Ünïón ☂/?&"


def test_a_key_read_from_a_file_may_end_in_a_newline(db: Database) -> None:
    assert organization_of(db, mint(f"{db.key}\n", 1, 1)) == "1"


@pytest.mark.parametrize("key", ["", "k1", "k1.", ".secret", "k1.se cret", "k1.se.cret", "k1.ü"])
def test_a_malformed_key_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"key_id\.secret; AUDITDB_KEY") as caught:
        mint(key, 1, 1)
    with pytest.raises(InvalidInput) as of_another:
        mint("another", 1, 1)
    assert str(caught.value) == str(of_another.value)


@pytest.mark.parametrize("lifetime", [0, -1, 3601])
def test_a_lifetime_that_the_database_would_refuse_is_refused_here(lifetime: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 3600"):
        mint("k1.secret", 1, 1, lifetime=lifetime)


@pytest.mark.parametrize(
    ("viewer", "organization", "says"),
    [
        ("", 1, "viewer_id is empty"),
        (1, "", "organization_id is empty"),
        (None, 1, "viewer_id is empty"),
        (b"1", 1, "viewer_id is a bytes"),
        ("a\x00", 1, "viewer_id holds a NUL"),
        ("☂" * 600, 1, "too long"),
    ],
)
def test_an_id_that_cannot_be_meant_is_named(viewer: Any, organization: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        mint("k1.secret", viewer, organization)
