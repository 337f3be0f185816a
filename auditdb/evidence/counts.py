"""Compares the number of events in each month with the number of sealed ones.

Months that retention dropped, as an event of the log says, are not findings.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg

from auditdb.evidence.report import Findings
from auditdb.values.plain import counted


class Counts:
    """The counts of a verification.

    Args:
        conn: a connection of an auditor.
        findings: receives the findings.
    """

    def __init__(self, conn: psycopg.Connection[Any], findings: Findings) -> None:
        self._conn, self._findings, self._find = conn, findings, findings.add
        self._lost: dict[str, Counter[int]] = {}
        self._unsealed: dict[str, list[int]] = {}
        self._gone: Counter[str] = Counter()

    def gone(self, month: str, tick: int, events: int, *, whole: bool) -> None:
        """Note the missing events of a seal, and whether all of them are missing."""
        self._gone[month] += events
        if events and whole:
            self._lost.setdefault(month, Counter())[tick] += events

    def archived(self, month: str, events: int) -> None:
        """Note how many events of a seal are only in the archive."""
        self._gone[month] += events

    def unsealed(self, month: str, tick: int) -> None:
        """Note a tick whose events of a month were dropped before it was sealed."""
        self._unsealed.setdefault(month, []).append(tick)

    def dump(self) -> list[Any]:
        """Return the state, for `load`."""
        return [self._lost, self._unsealed, self._gone]

    def load(self, noted: list[Any]) -> None:
        """Restore the state from the result of `dump`, read from JSON."""
        self._lost = {month: Counter({int(tick): n for tick, n in ticks.items()})
                      for month, ticks in noted[0].items()}  # fmt: skip
        self._unsealed, self._gone = noted[1], Counter(noted[2])

    def compare(self) -> None:
        """Compare the number of events of each month with the number of sealed ones."""
        pending = self._pending()
        if pending is None:
            return
        stored = dict(self._conn.execute(
            f"""select audit_private.month_of(e.occurred_at)::text, count(*)
            from audit.event as e where not ({pending}) group by 1""".encode()
        ).fetchall())  # fmt: skip
        sealed = dict(self._conn.execute(
            """select coalesce(a.month, b.month)::text,
                (coalesce(a.events, 0) + coalesce(b.events, 0))::bigint
            from (select month, sum(cardinality(ids)) as events from audit.seal group by month) as a
                full join (
                    select m.month, m.events - coalesce((select sum(cardinality(s.ids))
                        from audit.seal as s where s.tick_id = m.tick_id and s.month = m.month), 0)
                        as events
                    from audit.tick_month as m
                    where m.tick_id = (select tick_id from audit.seal order by id desc limit 1)
                        and not (select is_last from audit.seal order by id desc limit 1)
                ) as b on b.month = a.month"""
        ).fetchall())  # fmt: skip
        dropped = {row[0] for row in self._conn.execute(
            "select target_id || '-01' from audit.event where action = 'audit.month_dropped'"
        )}  # fmt: skip
        for month, ticks in self._lost.items():
            if month in dropped and not stored.get(month):
                self._findings.report.dropped += ticks.total()
                continue
            for tick, events in ticks.items():
                self._find("missing", f"tick {tick} lacks all of {month[:7]}: "
                           f"{counted(events, 'event')}")  # fmt: skip
        for month, unsealed in self._unsealed.items():
            for tick in unsealed if month not in dropped else ():
                self._find("missing", f"events of tick {tick}, of {month[:7]}, were gone before it "
                           "was sealed")  # fmt: skip
        for month in sorted(stored.keys() | sealed.keys()):
            there = sealed.get(month, 0) - self._gone[month]
            if stored.get(month, 0) != there:
                self._name_added(month, pending, stored.get(month, 0) - there)
        self._refuse_future(pending)

    def _name_added(self, month: str, pending: str, more: int) -> None:
        rows = self._conn.execute(
            f"""select e.id, e.occurred_at::text from audit.event as e
                left join (select unnest(ids) as id from audit.seal where month = %(month)s) as s
                    on s.id = e.id
            where audit_private.month_of(e.occurred_at) = %(month)s and not ({pending})
                and s.id is null
            order by e.id""".encode(),
            {"month": month},
        ).fetchall()
        for number, at in rows:
            self._find("added", f"event {number} of {at} was never sealed, and claims a time that "
                       "was")  # fmt: skip
        if more > len(rows):
            self._find("added", f"{month[:7]} has {counted(more - len(rows), 'event')} twice")
        elif more < len(rows):
            self._find("missing", f"{month[:7]} lacks {counted(len(rows) - more, 'event')} "
                       "of the sealed ticks")  # fmt: skip

    def _pending(self) -> str | None:
        """Return the condition for events that no sealed tick holds yet; None before the first."""
        row = self._conn.execute(
            """select s.after_id, t.snapshot::text, t.upper_id, t.since::text,
                w.snapshot::text, (
                    select n.after_id from audit.series as n
                    where n.id > s.id and n.began <> 'continued' order by n.id desc limit 1)
            from audit.seal as l join audit.tick as t on t.id = l.tick_id
                join audit.series as s on s.id = t.series_id
                left join audit.tick as w on w.id = t.whole_id
            order by l.id desc limit 1"""
        ).fetchone()
        if row is None:
            return None
        after, snapshot, upper, since, whole, renewed = row
        ended = f"'{snapshot}'::pg_snapshot"
        if since != "-infinity":
            # An event with an earlier time may arrive late: the next whole tick takes it.
            ended = (
                f"case when e.occurred_at >= '{since}' then {ended} "
                f"else '{whole or snapshot}'::pg_snapshot end"
            )
        covered = f"pg_visible_in_snapshot(e.transaction_id, {ended})"
        if renewed is None:
            return f"e.id > {int(after)} and not {covered}"
        return (
            f"e.id > {int(renewed)} or e.id > {int(after)} "
            f"and not (e.id <= {int(upper)} and {covered})"
        )

    def _refuse_future(self, pending: str) -> None:
        try:
            with self._conn.transaction():
                self._conn.execute("select audit_private.refuse_restored()")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return  # A restored database has transaction ids of another server.
        rows = self._conn.execute(
            f"""select e.id from audit.event as e where ({pending})
            and e.transaction_id >= pg_snapshot_xmax(pg_current_snapshot())
            order by e.id""".encode()
        ).fetchall()
        for (number,) in rows:
            self._find("added", f"event {number} claims a transaction that has not been yet")
