"""Writes sql/RELEASE from a database that was just installed: python -m tests.release."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.embedded import server

RELEASE = Path(__file__).resolve().parent.parent / "sql" / "RELEASE"


def release(dsn: str) -> str:
    """Return a line for each thing that the log of a new installation is made of."""
    query = """select sha256, kind, name from audit_private.standing()
        where audit_private.generated_for(name) is null and name !~ 'audit[.]event_[0-9]'
        order by kind, name collate "C" """
    with psycopg.connect(dsn) as conn:
        return "".join(" ".join(row) + "\n" for row in conn.execute(query))


@contextmanager
def database(address: str) -> Iterator[str]:
    """Yield the address of a database that is dropped at the end."""
    with psycopg.connect(address, dbname="postgres", autocommit=True) as conn:
        conn.execute("create database release")
        try:
            yield make_conninfo(address, dbname="release")
        finally:
            conn.execute("drop database release with (force)")


def write(dsn: str) -> None:
    """Install what there is, with the list of before, and write the list anew."""
    auditdb.install(dsn)
    RELEASE.write_text(release(dsn), "utf-8")


if __name__ == "__main__":
    with database(sys.argv[1]) if sys.argv[1:] else server() as address:
        write(address)
