"""The SQLAlchemy engine for a libpq address."""

from __future__ import annotations

import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict


def engine(dsn: str) -> sa.Engine:
    """Return an engine that connects through psycopg, whatever form the address has."""
    parameters = conninfo_to_dict(dsn)
    return sa.create_engine("postgresql+psycopg://", connect_args=parameters)
