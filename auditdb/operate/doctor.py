"""Finds ways to lose, forge or leak events, and fixes those that are safe to fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from auditdb._version import __version__
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError
from auditdb.operate.release import differences, installed_version, is_newer, is_this_build
from auditdb.operate.restored import restored_without
from auditdb.values.plain import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem of the log.

    Attributes:
        check_name: the name of the check: triggers, grants, partitions, …
        severity: `critical` (events are lost, or may have been), `warning` (weaker than designed)
            or `notice` (worth knowing).
        object: the table, function, role or key that it is about.
        problem: what is wrong with it, to be read after the object.
        why: why that matters.
        mend: the SQL or shell command that fixes it; after `--`, instructions for a person.
        fixable: whether `fix` runs that command.
    """

    check_name: str
    severity: str
    object: str
    problem: str
    why: str
    mend: str
    fixable: bool


def diagnose(conn: psycopg.Connection[Any]) -> list[Finding]:
    """Return the findings, the worst first; an empty list for a healthy log.

    It runs `audit.doctor()`, and also compares the log with the contents of this package. A
    difference that `audit.doctor()` does not report means that somebody also changed its reference
    data. After an incomplete restore, only that finding is returned.

    Args:
        conn: a connection of a member of `audit_operator` or `audit_auditor`, perhaps to a standby,
            because nothing is written.

    Raises:
        Refused: auditdb is not installed, or the role holds neither.

    Example:
        >>> diagnose(conn)  # doctest: +SKIP
        []
    """
    with raises_audit_errors(conn, "audit_operator", "audit_auditor"), pinned(conn):
        restored = restored_without(conn)
        if restored is not None:
            return [_restored(*restored)]
        cursor = psycopg.Cursor(conn, row_factory=class_row(Finding))
        found = cursor.execute("select * from audit.doctor()").fetchall()
        if any(finding.check_name in ("restore", "mapper") for finding in found):
            return found
        return _from_outside(conn, found) + found


def _restored(severity: str, problem: str) -> Finding:
    return Finding(
        check_name="restore", severity=severity, object="schema audit", problem=problem,
        why="Nothing else can be checked before this is fixed.",
        mend="auditdb install", fixable=False,
    )  # fmt: skip


def _from_outside(conn: psycopg.Connection[Any], found: list[Finding]) -> list[Finding]:
    """Return the findings of the comparison with the package."""
    version = installed_version(conn)
    if version is not None or not is_this_build(conn):
        return [
            Finding(
                check_name="release", severity="warning", object="audit.version()",
                problem=f"is {version}, and this package is {__version__}"
                if version is not None
                else f"is {__version__} of another build than this package",
                why="The log was compared with what the database says of that release alone.",
                mend="-- install the package of that version, or a later one"
                if version is not None and is_newer(version) else "auditdb install", fixable=False,
            )
        ]  # fmt: skip
    said = [(f.object, f.problem) for f in found]
    return [
        Finding(
            check_name="release", severity="critical", object=name,
            problem=f"{problem}, and audit.doctor() does not say so",
            why="Somebody changed it, and also the reference data in the database: "
            "do not trust any other check of this database.",
            mend="auditdb install", fixable=False,
        )
        for name, problem in differences(conn)
        if not any(name == object_ and text.startswith(problem) for object_, text in said)
    ]  # fmt: skip


def fix(conn: psycopg.Connection[Any], findings: Iterable[Finding]) -> list[str]:
    """Run the commands of the findings that are safe to fix, and return the result of each.

    They recreate and enable triggers, resolve mappings again from the given options, restore
    guards, and create partitions. Each is recorded as an event. A refused command does not stop the
    others; for instance, only the owner of a table may create its triggers.

    Args:
        conn: a connection of a member of `audit_operator` who owns the attached tables.
        findings: what `diagnose` returned.

    Example:
        >>> fix(conn, diagnose(conn))  # doctest: +SKIP
        ["select audit.reattach('membership')"]
    """
    done = []
    for command in dict.fromkeys(f.mend for f in findings if f.fixable):
        try:
            with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
                psycopg.Cursor(conn).execute(command.encode())
            done.append(command)
        except AuditError as error:
            if conn.closed:
                raise
            done.append(f"{command} -- refused: {error}")
    return done


def render(findings: Iterable[Finding]) -> str:
    """Return findings as plain text, a paragraph each.

    >>> render([])
    'healthy: nothing found'
    """
    return "\n\n".join(map(_paragraph, findings)) or "healthy: nothing found"


def _paragraph(found: Finding) -> str:
    about = f"{found.object or 'an object without a name'}: {found.problem}"
    lines = [f"{found.severity}: {about}", found.why, found.mend]
    return "\n    ".join(plain(line) for line in lines if line)
