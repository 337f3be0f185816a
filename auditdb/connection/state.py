"""The state of a connection."""

from __future__ import annotations

from typing import Any, TypeAlias

from psycopg import AsyncConnection, Connection
from psycopg.pq import PipelineStatus, TransactionStatus

AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]


def is_idle(conn: AnyConnection) -> bool:
    """Return whether a new block on the connection would be the outermost one."""
    return conn.pgconn.transaction_status == TransactionStatus.IDLE


def is_failed(conn: AnyConnection) -> bool:
    """Return whether a statement failed, so that only a rollback is possible."""
    return conn.pgconn.transaction_status == TransactionStatus.INERROR


def in_pipeline(conn: AnyConnection) -> bool:
    """Return whether the caller has put the connection into a pipeline."""
    return conn.pgconn.pipeline_status != PipelineStatus.OFF


def is_stuck(conn: AnyConnection) -> bool:
    """Return whether an interrupt left a statement running, so that the connection is unusable."""
    return conn.pgconn.transaction_status == TransactionStatus.ACTIVE
