"""Shared by all commands: the connection to the database, and printing."""

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
    """Connect to the database of the command line; commit at the end, or close on an error."""
    # psycopg logs lost and interrupted connections, but our own error line says the same.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    with connect(ctx.obj, application_name="auditdb") as conn:
        # Commands must see what others commit meanwhile, whatever default the database or role has.
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            yield conn
        except BaseException:
            conn.close()  # Otherwise psycopg would send a ROLLBACK to a server that may be gone.
            raise


def print_json(value: object) -> None:
    """Print indented JSON."""
    click.echo(plain_json(value, indent=2))


def print_lines(*lines: object) -> None:
    """Print lines with names and values from the database; escape what could drive a terminal."""
    for line in lines:
        click.echo(plain(line))


def print_note(text: str) -> None:
    """Print a possible mistake of the user on standard error."""
    click.echo(plain(f"note: {text}"), err=True)
