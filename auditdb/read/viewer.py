"""Who reads the log: a viewer with a token, or an auditor."""

from __future__ import annotations

from typing import ClassVar, LiteralString

from auditdb.connection.begin import Statement
from auditdb.read.token import mint
from auditdb.values.convert import Id, as_text

# With the role audit_reader, rights of the login do not count, not even that of a superuser to
# bypass row-level security. Sorts and bitmap scans are off because the planner assumes that all
# organisations have the same size, and would fetch and sort all events instead of reading them in
# order. All settings end with the transaction.
_BECOME: LiteralString = """
select pg_catalog.set_config('transaction_read_only', 'on', true),
    pg_catalog.set_config('role', %s, true),
    pg_catalog.set_config('auditdb.viewer', %s, true),
    pg_catalog.set_config('enable_bitmapscan', 'off', true),
    pg_catalog.set_config('enable_sort', 'off', true),
    pg_catalog.set_config('jit', 'off', true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config('DateStyle', 'ISO', true)
"""


class Viewer:
    """An admin or owner of an organisation, who reads with a token."""

    role: ClassVar[str] = "audit_reader"
    organization_id: ClassVar[str | None] = None  # Row-level security leaves the one organisation.

    def __init__(self, key: str, viewer_id: Id, organization_id: Id, lifetime: int) -> None:
        self._key, self._viewer_id, self._organization_id = key, viewer_id, organization_id
        self._lifetime = lifetime
        self.become()

    def become(self) -> Statement:
        """Return the statement that makes the rest of a transaction the viewer's."""
        return _BECOME, (self.role, self.token())

    def token(self) -> str:
        """Return a fresh token."""
        return mint(self._key, self._viewer_id, self._organization_id, lifetime=self._lifetime)


class Auditor:
    """A member of audit_auditor, who reads every event, or those of one organisation."""

    role: ClassVar[str] = "audit_auditor"

    def __init__(self, organization_id: Id | None) -> None:
        self.organization_id = as_text("organization_id", organization_id)

    def become(self) -> Statement:
        """Return the statement that makes the rest of a transaction the auditor's."""
        return _BECOME, (self.role, self.token())

    def token(self) -> str:
        """Return that there is none."""
        return ""
