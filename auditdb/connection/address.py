"""Opens connections by an address from a user, and never shows its password.

Errors of libpq about an invalid address quote parts of it. If a password holds an unescaped "@" or
"/", libpq takes a part of it as a host, port or database, and quotes that part.
"""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from auditdb.errors import ConnectionFailed, InvalidInput

# Keys are the beginnings of messages of libpq; the rest of a message quotes the address.
_PROBLEMS = {
    'missing "="': 'there is a word without "="',
    "unterminated quoted string": "a quoted value does not end",
    "invalid connection option": "it names a parameter that libpq does not know",
    "unexpected spaces": "there is a space; write %20",
    "end of string reached": "the brackets of an IPv6 address are not closed",
    "IPv6 host address": "the IPv6 address is empty",
    "unexpected character": "the brackets of an IPv6 address are followed by neither : nor /",
    "extra key/value separator": 'there is one "=" too many in a parameter of the URI',
    "missing key/value separator": 'there is a parameter of the URI without "="',
    "invalid URI query parameter": "the URI has a parameter that libpq does not know",
    "invalid percent-encoded token": 'a "%" is not followed by two hexadecimal digits',
    "forbidden value %00": "%00 is not allowed",
}
_INTEGERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout",
)  # fmt: skip
# Variables that name the database, and the hint if none of them is set.
_NAMED = {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE"}
_NOWHERE = " Where is the database? Set AUDITDB_DSN, or PGHOST, PGUSER and PGDATABASE"
_SCHEME = re.compile(r"(?!postgres(?:ql)?://)[a-z][\w.+-]*://", re.IGNORECASE)
_ADVICE = (
    "(not shown: it may hold a password). In a URI write @ : / ? # % of a password as %40 %3A %2F "
    "%3F %23 %25, among key=value pairs quote it, or leave it to PGPASSWORD or a passfile"
)

_ODD = (
    "the connection failed, and its address may be malformed: a name in it holds @ or ://, as if "
    f"part of a password were taken for it {_ADVICE}"
)
# Overrides the default of the database: names and values may use any script.
_OPTIONS: dict[str, Any] = {"client_encoding": "utf8", "prepare_threshold": None}


def connect(conninfo: str, **options: Any) -> psycopg.Connection[Any]:
    """Connect as `psycopg.connect` does, but never show a password in an error.

    Statements are not prepared, because prepared statements do not work behind every pooler.

    Raises:
        InvalidInput: the address cannot be read, or a password in it is not escaped.
        ConnectionFailed: the server could not be reached, or refused the login.
    """
    is_odd = check(conninfo)
    try:
        return psycopg.connect(conninfo, **{**_OPTIONS, **options})
    except psycopg.Error as error:
        if not is_odd:
            advice = "" if conninfo or _NAMED & os.environ.keys() else _NOWHERE
            raise ConnectionFailed(" ".join(str(error).split()) + advice) from error
    # Raised outside of the except clause, because a traceback shows the context of an error.
    raise ConnectionFailed(_ODD)


async def connect_async(conninfo: str, **options: Any) -> psycopg.AsyncConnection[Any]:
    """Connect as `connect` does."""
    is_odd = check(conninfo)
    try:
        return await psycopg.AsyncConnection.connect(conninfo, **{**_OPTIONS, **options})
    except psycopg.Error as error:
        if not is_odd:
            raise ConnectionFailed(" ".join(str(error).split())) from error
    raise ConnectionFailed(_ODD)


def check(conninfo: str) -> bool:
    """Return whether an address may hold part of a password.

    Raises:
        InvalidInput: the address cannot be read, or a password in it is not escaped.
    """
    problem = _problem(conninfo)
    if problem is not None:
        raise InvalidInput(f"the connection string is malformed: {problem} {_ADVICE}")
    return any("@" in value or "://" in value for value in _named(conninfo).values())


def _problem(conninfo: str) -> str | None:
    """Return what is wrong with an address, without a quote from it."""
    if _SCHEME.match(conninfo):
        return "a URI begins with postgresql://, without the name of a driver"
    try:
        given = _named(conninfo)
    except UnicodeError:
        return "it is not text"
    except psycopg.Error as error:
        message = str(error).strip()
        known = (what for begin, what in _PROBLEMS.items() if message.startswith(begin))
        return next(known, "libpq cannot read it")
    for name in ("host", "hostaddr"):
        # A socket in the abstract namespace begins with an @.
        parts = given.get(name, "").split(",")
        if any("@" in part[1:] or "://" in part or re.search(r"\s", part) for part in parts):
            return f"its {name} is invalid"
    if not re.fullmatch(r"[0-9, ]*", given.get("port", "")):
        return "its port is not a number"
    for name in _INTEGERS:
        if not re.fullmatch(r"\s*-?[0-9]*\s*", given.get(name, "")):
            return f"its {name} is not a number"
    path = re.match(r"postgres(?:ql)?://[^/?]*([^?]*)", conninfo)
    return 'there is an "@" behind the host' if path and "@" in path[1] else None


def _named(conninfo: str) -> dict[str, str]:
    """Return the names in an address and in the PG* variables, without passwords and free text."""
    found = {
        option.keyword.decode(): option.val.decode(errors="replace")
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val is not None
    }
    found |= {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    free = ("user", "password", "options", "application_name", "fallback_application_name")
    return {name: value for name, value in found.items() if name not in free}


_URI = re.compile(r"\w+://\S*?:.*@\S*", re.DOTALL)
_PASSWORD = re.compile(r"\S*(?://|:\S.*@|pas\w*\s*=|pwd\s*=).*", re.DOTALL | re.IGNORECASE)
# The error of click if a user gives an address without --dsn.
_FORGOTTEN = re.compile(r"(No such command|Got unexpected extra arguments?) .*[=/:@].*", re.DOTALL)


def without_uri(text: str) -> str:
    """Return a message without the addresses in it that hold a password.

    >>> without_uri("there is no table postgresql://ann:secret@host/shop")
    'there is no table …'
    """
    return _URI.sub("…", text)


def without_password(text: str) -> str:
    """Return a usage error, cut before anything that may be an address, even a misspelt one.

    >>> without_password("No such command 'postgres//ann:secret@host'.")
    'No such command …'
    """
    return _PASSWORD.sub("…", _FORGOTTEN.sub(r"\1 …", text))
