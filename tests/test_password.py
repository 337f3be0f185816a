"""Passwords of connection strings, malformed or not, appear in no error, not even in part."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

import auditdb
from auditdb import AuditError, ConnectionFailed, InvalidInput
from auditdb.cli import main
from tests.conftest import Database

# Pieces of a password that no message has a reason to say, joined by what breaks an address.
PIECES = ["hunter", "s3cret", "Zwiebel", "kanarie"]
BREAKERS = ["@", ":", "/", "?", "#", "%", "%zz", "%00", "&", "=", " ", "'", '"', "\\", "[", "]",
            ",", "//", "://", "@@", "", "é", "\t", "\n", ";", "="]  # fmt: skip
SHAPES = [
    "postgresql://ann:{}@127.0.0.1:1/shop",
    "postgres://ann:{}@127.0.0.1:1/shop?sslmode=disable",
    "postgresql://ann:{}@[::1]:1/shop",
    "postgresql//ann:{}@127.0.0.1:1/shop",
    "postgresql:/ann:{}@127.0.0.1:1/shop",
    "postgresql:ann:{}@127.0.0.1:1/shop",
    "http://ann:{}@127.0.0.1:1/shop",
    "ann:{}@127.0.0.1:1/shop",
    "postgresql://ann:{}@",
    "postgresql://127.0.0.1:1/shop?user=ann&password={}",
    "postgresql://127.0.0.1:1/shop?pasword={}",
    "host=127.0.0.1 port=1 user=ann password={}",
    "host=127.0.0.1 port=1 password={} user=ann",
    "host=127.0.0.1 port=1 user=ann password='{}'",
    "host=127.0.0.1 port=1 user=ann password='{}",
    "host=127.0.0.1 port=1 user=ann pasword={}",
    "host=127.0.0.1 port=1 user=ann password {}",
    "host=127.0.0.1 port=1 user=ann {}",
    "host=127.0.0.1 user=ann port={}",
    "host=127.0.0.1 port=1 connect_timeout={}",
    "host=127.0.0.1 port=1 dbname=postgresql://ann:{}@127.0.0.1/shop",
    "host=postgresql://ann:{}@127.0.0.1/shop",
]
DSNS = st.builds(
    lambda shape, pieces, breakers: shape.format(
        "".join(p + b for p, b in zip(pieces, [*breakers, ""], strict=False))
    ),
    st.sampled_from(SHAPES),
    st.permutations(PIECES),
    st.lists(st.sampled_from(BREAKERS), min_size=3, max_size=3),
)


def assert_silent(text: str) -> None:
    for piece in PIECES:
        assert piece not in text, text


@settings(max_examples=int(os.environ.get("AUDITDB_FUZZ", 400)), deadline=None)
@given(DSNS, st.sampled_from(["option", "variable", "command", "argument", "install"]))
@example("postgres//ann:hunters3cret@host/db", "option")
@example("postgresql://ann:s3cr%zzet@host/db", "option")
@example("postgresql://ann:hunter/s3cret@127.0.0.1:1/db", "option")
@example("postgresql://ann:hunter@s3cret@127.0.0.1:1/db", "option")
def test_no_piece_of_a_password_is_printed(dsn: str, way: str) -> None:
    env = {"AUDITDB_DSN": ""}
    if way == "variable":
        args, env = ["status"], {"AUDITDB_DSN": dsn}
    else:
        args = {
            "option": ["--dsn", dsn, "status"],
            "command": [dsn, "status"],
            "argument": ["status", dsn],
            "install": ["--dsn", dsn, "install"],
        }[way]
    result = CliRunner().invoke(main, args, env=env)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert_silent(result.output)


@settings(max_examples=200, deadline=None)
@given(DSNS)
def test_no_traceback_of_the_library_holds_a_piece(dsn: str) -> None:
    with pytest.raises(AuditError) as caught:
        auditdb.install(dsn)
    shown = "".join(traceback.format_exception(caught.value))
    assert_silent(shown)


VARIABLES = {
    "PGHOST": "postgresql://ann:hunters3cret@host/shop",
    "PGPORT": "s3cret",
    "PGDATABASE": "postgresql://ann:hunters3cret@host/shop",
    "PGSERVICE": "postgresql://ann:hunters3cret@host/shop",
    "PGPASSWORD": "hunters3cret",
    "PGCONNECT_TIMEOUT": "s3cret",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_no_variable_of_libpq_is_printed_that_may_hold_one(name: str) -> None:
    env = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": "1", name: VARIABLES[name]}
    done = subprocess.run(
        [sys.executable, "-m", "auditdb", "status"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("Error: ") and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert_silent(done.stderr)


def test_a_wrong_password_of_a_good_address_is_not_printed(db: Database) -> None:
    dsn = db.conninfo("app").replace("password=secret", "password=hunters3cret")
    result = CliRunner().invoke(main, ["--dsn", dsn + " dbname=nowhere", "status"])
    assert "nowhere" in result.stderr
    assert_silent(result.output)


def test_an_address_in_place_of_a_table_is_not_printed(db: Database) -> None:
    wrong = "postgresql://ann:hunters3cret@host/shop"
    for args in (("attach", wrong, "invoice"), ("detach", wrong), ("attach", wrong)):
        result = CliRunner().invoke(main, ["--dsn", db.dsn, *args])
        assert result.exit_code in (1, 2)
        assert_silent(result.output)


def test_the_error_says_what_is_wrong_and_how_to_mend_it() -> None:
    with pytest.raises(InvalidInput, match=r'a "%" is not followed .* as %40'):
        auditdb.install("postgresql://ann:s3cr%zzet@host/db")
    with pytest.raises(InvalidInput, match='there is a word without "="'):
        auditdb.install("host=127.0.0.1 password=two words")
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1.*port 1 failed"):
        auditdb.install("host=127.0.0.1 port=1")
