"""What commands share: a connection to the database, and ways to print."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import psycopg

from auditdb.connection.address import connect
from auditdb.values.plain import plain, plain_json


@contextmanager
def connection(ctx: click.Context) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database of the command line; commit at the end, or else just leave."""
    # What psycopg logs of a connection that is lost or interrupted, our own line says.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    with connect(ctx.obj, application_name="auditdb") as conn:
        # What arrives meanwhile has to be seen, whatever the database or the role sets.
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            yield conn
        except BaseException:
            conn.close()  # Or psycopg would send a ROLLBACK to a server that may be gone.
            raise


def print_json(value: object) -> None:
    """Print indented JSON."""
    click.echo(plain_json(value, indent=2))


def print_lines(*lines: object) -> None:
    """Print lines that may hold names and values of the database, safe on a terminal."""
    for line in lines:
        click.echo(plain(line))


def print_note(text: str) -> None:
    """Print on standard error what may be a mistake, and is none for certain."""
    click.echo(plain(f"note: {text}"), err=True)
