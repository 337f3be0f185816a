"""Drivers: what auditdb does on a connection of psycopg, psycopg2 or asyncpg."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from auditdb.write.claim import Claim
from auditdb.write.event import NewEvent
from auditdb.write.failure import Attempt

Block: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]
# Keys are packages of a connection's class or of its base classes.
_MODULES = {
    "psycopg": "auditdb.drivers.psycopg",
    "psycopg2": "auditdb.drivers.psycopg2",
    "asyncpg": "auditdb.drivers.asyncpg",
}
_OTHERS = {
    "sqlalchemy": "instrument the engine with auditdb.integrations.sqlalchemy, and record and "
    "attempt with the functions of that module",
    "django": "use the functions of auditdb.integrations.django",
    "psycopg_pool": "give a connection of the pool: with pool.connection() as conn",
    "sqlite3": "auditdb is for PostgreSQL",
}


class Psycopg2Connection(Protocol):
    """A connection of psycopg2."""

    def cursor(self) -> Any:
        """Return a cursor."""

    def set_session(self, *args: Any, **kwargs: Any) -> None:
        """Set transaction characteristics; only psycopg2 has this method."""


class AsyncpgConnection(Protocol):
    """A connection of asyncpg, also one from a pool."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return one value."""

    def transaction(self) -> Any:
        """Return a block."""


class Driver(Protocol):
    """What the module of a driver provides. With async connections, results are awaited."""

    def check_connection(self, conn: object) -> None:
        """Refuse an object that is not a connection."""

    def open_context(self, conn: Any, claim: Claim) -> Block:
        """Return a transaction block under a claim."""

    def record(self, conn: Any, event: NewEvent, claim: Claim | None) -> Any:
        """Record an event, and return its id."""

    def open_attempt(self, conn: Any, attempt: Attempt) -> Block:
        """Return a transaction block that records how it fails."""


def driver_of(conn: object) -> Driver:
    """Return the driver of a connection.

    Raises:
        TypeError: auditdb does not know this driver; the message says what to give.
    """
    kind: type = type(conn)
    driver = _driver_of(kind)
    driver.check_connection(conn)
    return driver


@cache
def _driver_of(kind: type) -> Driver:
    packages = [cls.__module__.partition(".")[0] for cls in kind.__mro__]
    for package in packages:
        if package in _MODULES:
            driver: Any = import_module(_MODULES[package])
            return driver  # type: ignore[no-any-return]
    advice = next((_OTHERS[name] for name in packages if name in _OTHERS), None)
    raise TypeError(
        f"conn is a {kind.__name__}; "
        + (
            advice
            or "give a connection of psycopg, psycopg2 or asyncpg, as psycopg.connect() returns it"
        )
    )
