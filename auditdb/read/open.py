"""Makes readers: for an admin of an organisation, and for an auditor."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection, Connection

from auditdb.read.reader import AsyncReader, Reader
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import Id


def reader(
    conn: Connection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60
) -> Reader:
    """Return a reader of an organisation's events on behalf of one of its admins or owners.

    Whether the viewer may read is decided by the database, live, at each read. One who may not sees
    an empty log: no error tells why. Each read is a transaction of its own (inside of another, a
    savepoint), read-only and as `audit_reader`, with a token of its own; it leaves no trace on the
    connection.

    Args:
        conn: a connection whose login is a member of `audit_reader`.
        key: a signing key, `key_id.secret`, from `AUDITDB_KEY` or a file.
        viewer_id: the user who reads, as the memberships have it. Authenticate them first.
        organization_id: the organisation whose events are read.
        lifetime: seconds for which a token is good, more than the clocks of the application and of
            the database may differ.

    Raises:
        InvalidInput: the key is malformed, or an id is empty.

    Example:
        >>> log = reader(conn, key=key, viewer_id=1, organization_id=1)  # doctest: +SKIP
        >>> log.page().events[0].action  # doctest: +SKIP
        'membership.role_changed'
    """
    return Reader(conn, Viewer(key, viewer_id, organization_id, lifetime))


def reader_async(
    conn: AsyncConnection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60
) -> AsyncReader:
    """Return a reader as `reader` does, on an asynchronous connection.

    Example:
        >>> log = reader_async(conn, key=key, viewer_id=1, organization_id=1)  # doctest: +SKIP
        >>> [event.action async for event in log.events()]  # doctest: +SKIP
    """
    return AsyncReader(conn, Viewer(key, viewer_id, organization_id, lifetime))


def auditor(conn: Connection[Any], *, organization_id: Id | None = None) -> Reader:
    """Return a reader of all events for an auditor: no key, no viewer.

    It reads also what nobody else can: the log of an organisation that was deleted, with its
    memberships, and events that belong to none. Otherwise it reads as `reader` does.

    Args:
        conn: a connection whose login is a member of `audit_auditor`.
        organization_id: the organisation whose events are read. Default: every event.

    Raises:
        InvalidInput: the id is no string, integer or UUID.

    Example:
        >>> for event in auditor(conn, organization_id=7).events():  # doctest: +SKIP
        ...     archive.write(event)
    """
    return Reader(conn, Auditor(organization_id))


def auditor_async(conn: AsyncConnection[Any], *, organization_id: Id | None = None) -> AsyncReader:
    """Return a reader as `auditor` does, on an asynchronous connection.

    Example:
        >>> log = auditor_async(conn, organization_id=7)  # doctest: +SKIP
        >>> [event.action async for event in log.events()]  # doctest: +SKIP
    """
    return AsyncReader(conn, Auditor(organization_id))
