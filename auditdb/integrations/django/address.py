"""The address of a database of the project, for psycopg 3 outside of Django."""

from __future__ import annotations

from typing import Any


def conninfo(connection: Any) -> str:
    """Return it as a conninfo string of libpq, with the password."""
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    given = connection.get_connection_params()
    return make_conninfo(
        "",
        **{name: value for name, value in given.items() if name in known and value is not None},
    )
