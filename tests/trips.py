"""Counts the times that a client waits for the server, from libpq's own trace of the protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg


@dataclass
class Trips:
    """How many answers were waited for, known when the block has ended."""

    count: int = 0


@contextmanager
def counted(conn: psycopg.Connection[Any]) -> Iterator[Trips]:
    """Count round trips: runs of messages from the backend, each of which follows one of ours."""
    trips = Trips()
    with tempfile.TemporaryFile("w+") as trace:
        conn.pgconn.trace(trace.fileno())
        try:
            yield trips
        finally:
            conn.pgconn.untrace()
        trace.seek(0)
        sides = [line.split("\t")[1] for line in trace if line.count("\t") > 1]
        trips.count = sum(side == "B" for side, _ in groupby(sides))
