"""Whatever a superuser changes, is found; what nobody changed, is not.

`make tamper` runs 10,000 of each (AUDITDB_TAMPER).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from auditdb.evidence.check import Verifier
from auditdb.evidence.keys import PrivateKey
from auditdb.evidence.report import Report
from auditdb.evidence.seal import Sealer
from auditdb.evidence.state import State
from tests.conftest import Database
from tests.evidence import tampering

RUNS = int(os.environ.get("AUDITDB_TAMPER", "0"))


class Sealed:
    """A sealed log of some ticks and months, of which somebody else keeps the last checkpoint."""

    def __init__(self, db: Database, path: Path) -> None:
        self.conn = db.connect()
        self.key = PrivateKey.make("example.com/audit")
        self.sealer = Sealer(db.connect("app_auditor"), self.key, State(path / "state"))
        self.rng = random.Random(17)
        for number in range(6):
            self.act(number)
            self.sealer.run()
        self.note = (path / "state").read_text()

    def act(self, number: int) -> None:
        app = self.rng
        for n in range(self.rng.randint(1, 60) + 280 * (number == 0)):
            self.conn.execute(
                "insert into audit.event (occurred_at, action, result, actor_id, actor_type, "
                "organization_id, target_type, target_id, subject_id, source, new_values, details) "
                "values (now() + %s * interval '1 day' + random() * interval '1 hour', "
                "'workflow.modified', 'success', %s, 'user', %s, %s, 'w1', %s, 'web', %s, %s)",
                [app.choice([0, 0, 0, 30, 60]), f"user {n}", app.choice(["o1", "o2", "o3", None]),
                 app.choice(["user", "workflow", None]),
                 app.choice(["w1", "7", None]),
                 app.choice(['{"name": "A", "n": 1.50}', None]),
                 app.choice(['{"ip": "10.0.0.1"}', '{"ip": null, "é": "\\n\\u0001"}', None])],
            )  # fmt: skip
        self.conn.execute("update workflow set name = %s", [f"name {number}"])

    def verify(self) -> Report:
        return Verifier(self.conn, [self.key.key], [("kept", self.note)]).run()

    def tamper(self, what: tampering.Tampering, rng: random.Random) -> list[str] | None:
        """Return what is found of a tampering; nothing where it changed nothing."""
        before = tampering.fingerprint(self.conn)
        found: list[str] | None = None
        with self.conn.transaction(force_rollback=True):
            try:
                with self.conn.transaction():
                    what(self.conn, rng)
            except psycopg.errors.UniqueViolation:
                return None  # Another event is there already.
            if tampering.fingerprint(self.conn) != before:
                found = self.verify().findings
        return found


@pytest.fixture
def sealed(db: Database, tmp_path: Path) -> Sealed:
    sealed = Sealed(db, tmp_path)
    assert sealed.verify() == Report(events=sealed.verify().events, size=sealed.verify().size,
                                     signed=sealed.verify().size)  # fmt: skip
    tampering.disarm(sealed.conn)
    return sealed


def test_every_kind_of_tampering_is_found(sealed: Sealed) -> None:
    missed: list[str] = []
    done: Counter[str] = Counter()
    rng = random.Random(int(os.environ.get("AUDITDB_SEED", "0")))
    for run in range(RUNS or len(tampering.ALL) * 8):
        what = tampering.ALL[run % len(tampering.ALL)]
        seed = rng.getrandbits(64)
        found = sealed.tamper(what, random.Random(seed))
        if found is None:
            continue
        done[what.__name__] += 1
        if not found:
            missed.append(f"{what.__name__} {seed}")
    assert missed == []
    assert all(done[what.__name__] for what in tampering.ALL), done
    assert sealed.verify().findings == []
    if RUNS:
        print(f"{done.total()} tamperings, all found: {dict(done)}")


def test_nothing_is_found_in_what_nobody_changed(sealed: Sealed) -> None:
    for number in range(RUNS // 100 or 5):
        sealed.act(number)
        assert sealed.verify().findings == []
        sealed.sealer.run()
        assert sealed.verify().findings == []


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        ("update audit.event set actor_id = 'mallory' where id = %s", "changed: event {} is not"),
        ("update audit.event set details = '[]' where id = %s", "changed: event {} is not"),
        ("delete from audit.event where id = %s", "missing: event {} is gone"),
        ("update audit.event set id = 77777777 where id = %s", "missing: event {} is gone"),
    ],
)
def test_the_event_is_named(sealed: Sealed, tamper: str, said: str) -> None:
    (number,) = tampering.rows_of(sealed.conn, "select id from audit.event where id > 50 limit 1")[
        0
    ]
    sealed.conn.execute(tamper.encode(), [number])
    assert sealed.verify().findings[0].startswith(said.format(number))
    assert "between the checkpoints of" in sealed.verify().findings[0]


def test_an_event_in_place_of_another_is_named(sealed: Sealed) -> None:
    tampering.replace_an_event(sealed.conn, random.Random(1))
    findings = sealed.verify().findings
    assert [line.partition(":")[0] for line in findings] == ["missing", "added"]
    assert "event 900000" in findings[1]


def test_without_a_checkpoint_from_outside_a_backup_that_is_older_is_not_found(
    sealed: Sealed,
) -> None:
    """So nobody takes a checkpoint of the database itself for enough."""
    with sealed.conn.transaction(force_rollback=True):
        tampering.restore_an_older_backup(sealed.conn, random.Random(3))
        assert Verifier(sealed.conn, [sealed.key.key]).run().findings in ([], [
            line for line in Verifier(sealed.conn, [sealed.key.key]).run().findings
            if line.startswith("tree: tile/")
        ])  # fmt: skip
        assert any("are gone" in line for line in sealed.verify().findings)


def test_a_sealer_signs_no_other_history(sealed: Sealed, db: Database) -> None:
    from auditdb.evidence.seal import Fork

    size = sealed.verify().size
    for what in (tampering.restore_an_older_backup, tampering.truncate_the_tail):
        with sealed.conn.transaction() as block:
            what(sealed.conn, random.Random(5))
            sealed.sealer._conn = sealed.conn
            sealed.sealer._stored._conn = sealed.conn
            with pytest.raises(Fork, match="were signed"):
                sealed.sealer.run()
            raise psycopg.Rollback(block)
    with sealed.conn.transaction() as block:
        sealed.conn.execute(
            "update audit.seal set leaves = set_byte(leaves, 3, 7) where is_last and id > 5"
        )
        with pytest.raises(Fork, match=f"the leaves up to {size} are not those that were signed"):
            sealed.sealer.run()
        raise psycopg.Rollback(block)


def test_what_a_month_lost_by_retention_is_told_and_not_found(sealed: Sealed) -> None:
    before = sealed.verify()
    (name, events) = tampering.rows_of(
        sealed.conn, "select tableoid::regclass::text, count(*) from audit.event "
        "where occurred_at > date_trunc('month', now()) + interval '1 month' group by 1 limit 1",
    )[0]  # fmt: skip
    month = name[-7:].replace("_", "-")
    sealed.conn.execute(f"drop table {name}".encode())
    assert sealed.verify().findings != []
    sealed.conn.execute(
        "insert into audit.event (action, result, actor_type, source, target_type, target_id) "
        "values ('audit.month_dropped', 'success', 'system', 'system', 'audit', %s)",
        [month],
    )
    report = sealed.verify()
    assert report.findings == []
    assert report.dropped == events
    assert report.events == before.events - events
