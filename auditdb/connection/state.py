"""What a connection is in the middle of."""

from __future__ import annotations

from typing import Any, TypeAlias

from psycopg import AsyncConnection, Connection
from psycopg.pq import PipelineStatus, TransactionStatus

AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]


def is_idle(conn: AnyConnection) -> bool:
    """Return whether a block on the connection would be the outermost, with none around it."""
    return conn.pgconn.transaction_status == TransactionStatus.IDLE


def is_failed(conn: AnyConnection) -> bool:
    """Return whether a statement failed, so that nothing but a rollback is possible."""
    return conn.pgconn.transaction_status == TransactionStatus.INERROR


def in_pipeline(conn: AnyConnection) -> bool:
    """Return whether the caller has put the connection into a pipeline."""
    return conn.pgconn.pipeline_status != PipelineStatus.OFF


def is_stuck(conn: AnyConnection) -> bool:
    """Return whether an interrupt left a statement under way, so that nobody can use the rest."""
    return conn.pgconn.transaction_status == TransactionStatus.ACTIVE
