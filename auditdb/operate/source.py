"""Reads the SQL of the package: the migrations, the files of the manifest, and the release list."""

from __future__ import annotations

import hashlib
import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path

from auditdb.errors import AuditError

# Those that bootstrap.sql creates.
ROLES = (
    "audit_owner", "audit_mapper", "audit_operator", "audit_writer", "audit_reader",
    "audit_auditor", "audit_backup",
)  # fmt: skip


def sql_directory() -> Traversable:
    """Return the directory of the .sql files: in the wheel, or in the checkout it is edited in."""
    packaged = importlib.resources.files("auditdb") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def read(name: str) -> str:
    """Return the text of a file of the SQL directory."""
    try:
        return sql_directory().joinpath(*name.split("/")).read_text("utf-8")
    except OSError as error:
        raise AuditError(
            f"{name} is missing: the package is incomplete, install it again"
        ) from error


def migrations() -> list[tuple[str, str]]:
    """Return name and text of each migration, in order; their names and sums are in CHECKSUMS."""
    names = [line.split()[1] for line in read("migrations/CHECKSUMS").splitlines()]
    return [(name.removesuffix(".sql"), read(f"migrations/{name}")) for name in names]


def release() -> dict[tuple[str, str], str]:
    """Return what the release makes the log of, kind and name, and the SHA-256 of each."""
    lines = (line.split(" ", 2) for line in read("RELEASE").splitlines())
    return {(kind, name): sha256 for sha256, kind, name in lines}


def build() -> str:
    """Return what tells this state of the release from others of the same version."""
    return hashlib.sha256(read("RELEASE").encode()).hexdigest()[:12]


def centre() -> str:
    """Return what makes a database the centre that collects others, as audit_owner."""
    names = "tables", "land", "read", "check", "drop"
    return "\n".join(read(f"collect/{name}.sql") for name in names)


def routines() -> str:
    """Return what fills audit_private.release, and the files of the manifest in its order."""
    rows = ",\n".join(
        "    ('{}', '{}', '{}')".format(kind, name.replace("'", "''"), sha256)
        for (kind, name), sha256 in release().items()
    )
    names = [line for line in read("manifest").splitlines() if not line.startswith("#")]
    return "\n".join(
        (
            # Its policy may be gone; guard.sql forces it again.
            "alter table audit_private.release no force row level security;",
            "delete from audit_private.release;",
            f"insert into audit_private.release (kind, name, sha256)\nvalues\n{rows};",
            "comment on table audit_private.release is 'What the release that was last installed"
            f" makes the log of, for audit.doctor(): build {build()}';",
            *map(read, names),
        )
    )
