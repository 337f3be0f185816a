"""Compares the objects of the log with the release, from outside of the database.

Somebody who can change the log can also change audit.doctor() and the list that it compares with.
So this sends queries from the package, which read only the catalogs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

from auditdb._version import __version__
from auditdb.operate.source import build, read, release

# A month that was detached, or that a partition stands for, is no part of any release.
_MONTH = re.compile(r"audit\.event_\d{4,}_\d\d")
# Full signatures of functions that attach generates. A name that only contains one is foreign.
_GENERATED = re.compile(
    r"audit_private\.(?:"
    r"capture_\d+(?:_(?:insert|update|delete|truncate))?\(\) returns trigger"
    r"|(?:baseline|image)_\d+\(old anyelement, new anyelement\) returns jsonb"
    r"|fall_back_\d+\(op text, old anyelement, new anyelement, reason text\) returns jsonb"
    r"|read_\d+\(r anyelement\) returns text\[\]"
    r"|organization_\d+(?:\(r anyelement\)|_late\(inputs jsonb\)) returns text"
    r"|admin_\d+(?:\(organization text, viewer text\)|_exists\(\)) returns boolean)"
    # Who owns a partitioned table makes partitions that call them.
    r"|EXECUTE on function audit_private\.capture_\d+_(?:insert|update|delete|truncate)\(\) to .*"
    # Who owns a table hands its rows to it.
    r"|EXECUTE on function audit_private\.baseline_\d+\(anyelement,anyelement\) to audit_operator"
    # Who compares rows with events hands them to it.
    r"|EXECUTE on function audit_private\.image_\d+\(anyelement,anyelement\) to audit_auditor"
)


def standing_query() -> str:
    """Return the bodies of the functions of standing.sql, without the last, which calls them."""
    bodies = read("operate/standing.sql").split("$$")[1::2]
    return "\nunion all\n".join(body.strip().removesuffix(";") for body in bodies[:-1])


def differences(conn: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    """Yield the objects of the log that differ from this release, each with its problem.

    Generated functions are left to audit.doctor(), which is itself compared here.

    Args:
        conn: a connection with the pin, in a block that is rolled back.
    """
    cursor = psycopg.Cursor(conn)
    cursor.execute(
        "select set_config('quote_all_identifiers', 'off', true),"
        " set_config('bytea_output', 'hex', true), set_config('timezone', 'UTC', true)"
    )
    wanted, listed = release(), release()
    for kind, name, sha256, object_, _ in cursor.execute(standing_query().encode()).fetchall():
        known = wanted.pop((kind, name), None)
        if known is None and kind in ("policy", "grant"):
            # A month is read by backups, as DEFAULT is.
            known = listed.get((kind, _MONTH.sub("audit.event_default", name)))
        is_own = _GENERATED.fullmatch(name) or _MONTH.fullmatch(
            object_ if kind == "index" else name
        )
        if known == sha256 or (known is None and is_own):
            continue
        problem = "is none of auditdb's" if known is None else "is not as it was installed"
        yield _as_doctor_reports(kind, name, object_, problem)
    for kind, name in wanted:
        yield _as_doctor_reports(kind, name, name, "is missing")


def _as_doctor_reports(kind: str, name: str, object_: str, problem: str) -> tuple[str, str]:
    """Return object and problem as the checks of audit.doctor() say them."""
    if kind in ("policy", "index"):
        return object_, f"{kind} {name.rsplit(' on ', 1)[0]} {problem}"
    if kind == "grant":
        is_missing = problem == "is missing"
        return name, "was granted by install, and is missing" if is_missing else (
            "was not granted by auditdb"
        )
    return object_, problem


def installed_version(conn: psycopg.Connection[Any]) -> str | None:
    """Return the version in the database, if it differs from that of the package."""
    row = psycopg.Cursor(conn).execute(
        "select audit.version() || case when to_regnamespace('audit_private') is null"
        " then ' of before there was a schema audit_private' else '' end"
    )
    (version,) = row.fetchone() or ("",)
    return None if version == __version__ else str(version)


_BUILD = """
select exists (
    select from pg_class as c join pg_description as d on d.objoid = c.oid and d.objsubid = 0
    where c.relnamespace = to_regnamespace('audit_private') and c.relname = 'release'
        and d.classoid = 'pg_class'::regclass and d.description like '%%: build ' || %s)
"""


def is_this_build(conn: psycopg.Connection[Any]) -> bool:
    """Return whether the last install in the database was this build of the package."""
    return psycopg.Cursor(conn).execute(_BUILD, (build(),)).fetchone() == (True,)


def is_newer(version: str) -> bool:
    """Return whether the version of a database is later than that of the package.

    >>> is_newer("99.0"), is_newer("0.0.1 of before there was a schema audit_private")
    (True, False)
    """
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return numbers is not None and _parts(numbers[0]) > _parts(__version__)


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
