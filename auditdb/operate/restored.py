"""Detects a restore without owners, roles or privileges, from outside of the database.

After such a restore audit.doctor() cannot report it: it has another owner, or nobody may call it.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from auditdb.operate.source import ROLES

# Reads only the catalogs, which everybody may read.
_QUERY = """
select pg_get_userbyid(n.nspowner)::text,
    array(
        select name from unnest(%s::text[]) as name
        where not exists (select from pg_roles where rolname = name)),
    not exists (
        select from aclexplode(n.nspacl) as x join pg_roles as r on r.oid = x.grantee
        where r.rolname in ('audit_operator', 'audit_auditor'))
from pg_namespace as n join pg_proc as p on p.pronamespace = n.oid and p.proname = 'doctor'
where n.nspname = 'audit'
"""


def restored_without(conn: psycopg.Connection[Any]) -> tuple[str, str] | None:
    """Return severity and problem if owners, roles or privileges of the log are missing.

    Args:
        conn: a connection with the pin.
    """
    row = psycopg.Cursor(conn, row_factory=tuple_row).execute(_QUERY, [list(ROLES)]).fetchone()
    if row is None:
        return None
    owner, missing, is_closed = row
    if owner != "audit_owner":
        return "critical", f"everything belongs to {owner}: a restore without owners"
    if missing:
        return "critical", f"there is no role {', '.join(missing)}: a restore without roles"
    if is_closed:
        return "warning", "nobody may use it: a restore without privileges"
    return None
