"""A log with two months of 2020 that are over, for tests of the archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from auditdb.archive.place import Place
from auditdb.archive.restoring import restore
from auditdb.archive.run import Archiver
from auditdb.operate.maintain import maintain
from tests.conftest import Database
from tests.evidence.test_seal import Setting
from tests.test_maintenance import yesterday

ROLE = """
do $$
begin
    if to_regrole('app_archiver') is null then
        create role app_archiver login password 'secret';
    end if;
end
$$;
grant audit_auditor, audit_operator to app_archiver;
"""
# What CSV, JSON and Parquet could each spoil.
ODD = ["", "\\N", '"', "a\nb", "a,b", "\\", "NULL", " x ", "ünï🦆", "\r\n", "'", None]
MONTHS = ("2020-03", "2020-04")


class Archived(Setting):
    """A sealed log and the directory of its archive."""

    def __init__(
        self, db: Database, path: Path, play: Callable[[Database], None] | None = None,
        seal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(db, path)
        self.root = path / "archive"
        self.root.mkdir()
        with psycopg.connect(db.dsn) as conn:
            conn.execute(ROLE.encode())
        (play or fill)(db)
        if seal:
            self.sealer.run()
        self.conn = db.connect("app_archiver")

    def archive(self, keep: str | None = None, **options: Any) -> list[str]:
        """Archive, and return what was said."""
        archiver = Archiver(self.conn, Place(str(self.root)), "app")
        return list(archiver.run(keep, **options))

    def restore(self, month: str) -> int:
        return restore(self.conn, month, Place(str(self.root)))

    def file(self, month: str, name: str = "events.parquet") -> Path:
        return self.root / "database=app" / f"month={month}" / name

    def manifest(self, month: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file(month, "manifest.json").read_text())
        return found

    def old(self) -> list[Any]:
        """Return the events of 2020, as text of every column."""
        with psycopg.connect(self.db.dsn) as conn:
            return conn.execute(
                "select e::text from audit.event as e where occurred_at < '2021-01-01' "
                "order by occurred_at, id"
            ).fetchall()

    def states(self) -> dict[str, str]:
        with psycopg.connect(self.db.dsn) as conn:
            return dict(conn.execute(
                "select to_char(month, 'YYYY-MM'), state from audit.archive order by 1"
            ).fetchall())  # fmt: skip

    def actions(self, action: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.db.dsn) as conn:
            return [row[0] for row in conn.execute(
                "select to_jsonb(e) from audit.event as e where action = %s order by id", [action]
            )]  # fmt: skip


def fill(db: Database, events: int = 60) -> None:
    """Write events of March and of April 2020, of three organisations, and sit out the clock."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        for month, first in ((3, -1000), (4, -500)):
            for n in range(events):
                odd = ODD[n % len(ODD)]
                values = json.dumps({"name": odd, "n": n})
                conn.execute(
                    """insert into audit.event (id, occurred_at, action, result, actor_id,
                        actor_type, source, organization_id, target_type, target_id, subject_id,
                        captured_from, old_values, new_values, details)
                    values (%s, make_timestamptz(2020, %s, 1 + %s %% 28, 12, %s %% 60, 1.000001,
                        'UTC'), 'test.old', 'success', %s, 'user', 'test', %s, 'thing', %s, %s, %s,
                        %s, %s, %s)""",
                    [first + n, month, n, n, "ann" if n % 5 == 0 else f"user-{n}",
                     (None, "o1", "o2")[n % 3], odd, "ann" if n % 7 == 0 else None, odd,
                     values if n % 2 else None, values, None if n % 4 else values],
                )  # fmt: skip
        conn.execute("select audit_private.begin_series('restored', audit_private.last_id())")
    settle(db)


def settle(db: Database) -> None:
    """Have months made for what was written, by a clock that is believed."""
    yesterday(db)
    maintain(db.connect("app_owner"))
