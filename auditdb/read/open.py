"""Makes readers: for an admin of an organisation, and for an auditor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from psycopg import AsyncConnection, Connection

from auditdb.connection.checks import check_connection
from auditdb.read.reader import AsyncReader, Reader
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import Id

if TYPE_CHECKING:
    from auditdb.archive.read import Archive


@overload
def reader(
    conn: Connection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60,
    archive: Archive | None = None,
) -> Reader: ...  # fmt: skip
@overload
def reader(
    conn: AsyncConnection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60,
    archive: Archive | None = None,
) -> AsyncReader: ...  # fmt: skip
def reader(
    conn: Any, *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60,
    archive: Archive | None = None,
) -> Reader | AsyncReader:  # fmt: skip
    """Return a reader of an organisation's events on behalf of one of its admins or owners.

    Whether the viewer may read is decided by the database, live, at each read. One who may not sees
    an empty log: no error tells why. Each read is a transaction of its own (inside of another, a
    savepoint), read-only and as `audit_reader`, with a token of its own; it leaves no trace on the
    connection. What is exported is an event, as of `auditor`; what is looked at is not.

    Args:
        conn: a connection of psycopg whose login is a member of `audit_reader`; on an asynchronous
            one the reader is an `AsyncReader`.
        key: a signing key, `key_id.secret`, from `AUDITDB_KEY` or a file.
        viewer_id: the user who reads, as the memberships have it. Authenticate them first.
        organization_id: the organisation whose events are read.
        lifetime: seconds for which a token is good, more than the clocks of the application and of
            the database may differ.
        archive: where months are that were dropped: all that reads goes on there, with the same
            right.

    Raises:
        InvalidInput: the key is malformed, or an id is empty.

    Example:
        >>> log = reader(conn, key=key, viewer_id=1, organization_id=1)  # doctest: +SKIP
        >>> log.page().events[0].action  # doctest: +SKIP
        'membership.role_changed'
    """
    return _reader(conn, Viewer(key, viewer_id, organization_id, lifetime), archive)


@overload
def auditor(
    conn: Connection[Any], *, organization_id: Id | None = None, archive: Archive | None = None
) -> Reader: ...
@overload
def auditor(
    conn: AsyncConnection[Any], *, organization_id: Id | None = None, archive: Archive | None = None
) -> AsyncReader: ...
def auditor(
    conn: Any, *, organization_id: Id | None = None, archive: Archive | None = None
) -> Reader | AsyncReader:
    """Return a reader of all events for an auditor: no key, no viewer.

    It reads also what nobody else can: the log of an organisation that was deleted, with its
    memberships, and events that belong to none. Otherwise it reads as `reader` does.

    That it reads is an event, with the filters: `audit.viewed`, of which one in 15 minutes is kept
    for each actor and organisation; of an export `audit.export_started` and `audit.exported`. Who
    reads is the actor of the context, else the login. It is committed before the first event is
    handed out. Inside of a transaction of the caller it is part of that: who rolls it back has
    read, and nothing says so. On a standby, or in a read-only transaction, nothing is read.

    Args:
        conn: a connection of psycopg whose login is a member of `audit_auditor`, as in `reader`.
        organization_id: the organisation whose events are read. Default: every event.
        archive: as of `reader`.

    Raises:
        InvalidInput: the id is no string, integer or UUID.

    Example:
        >>> for event in auditor(conn, organization_id=7).events():  # doctest: +SKIP
        ...     archive.write(event)
    """
    return _reader(conn, Auditor(organization_id), archive)


def _reader(
    conn: Any, principal: Viewer | Auditor, archive: Archive | None
) -> Reader | AsyncReader:
    check_connection(conn)
    is_async = isinstance(conn, AsyncConnection)
    return (AsyncReader if is_async else Reader)(conn, principal, archive)
