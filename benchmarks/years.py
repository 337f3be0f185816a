"""Measures reading an archive of five years: 60 months of files, which it writes first.

python -m benchmarks.years [--millions 10 100] [--organizations 10000] [--folder DIRECTORY]

Each question is asked by a process of its own: seconds, bytes that it read (of /proc/self/io), and
the most memory that it took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from auditdb.archive import format
from auditdb.archive.open import opened
from auditdb.archive.place import EVENTS, folder
from auditdb.archive.read import Archive
from benchmarks import report

MONTHS = [f"{2021 + n // 12}-{n % 12 + 1:02}" for n in range(60)]
# Few organisations have most of the events.
FILL = """
copy (
    select {first} + n as id,
        timestamptz '{month}-01 00:00:00+00' + to_microseconds(cast(n * {gap} as bigint))
            as occurred_at,
        (1000 + n)::ubigint as transaction_id,
        ['workflow.modified', 'auth.login', 'api_key.created', 'membership.role_changed'][
            1 + least(n % 40, 3)] as action,
        if(n % 50 = 0, 'failure', 'success') as result,
        'u' || o || '_' || (n % 30) as actor_id, 'user' as actor_type,
        null::varchar as impersonator_id, 'app' as db_user, o::varchar as organization_id,
        ['workflow', 'user', 'api_key', 'membership'][1 + least(n % 40, 3)] as target_type,
        o || '_' || (hash(n) % 200) as target_id, 'u' || o || '_' || (n % 31) as subject_id,
        ['web', 'api', 'saml', 'cli'][1 + n % 4] as source, 'public.workflow' as captured_from,
        '{{"name": "name ' || n || '"}}' as old_values,
        '{{"name": "name ' || (n + 1) || '"}}' as new_values,
        '{{"ip": "203.0.' || (o % 250) || '.' || (hash(n + 1) % 250) || '", "request_id": "'
            || md5(n::varchar) || '", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/126"'
            || if(n % 40 >= 3, ', "previous_role": "MEMBER", "new_role": "ADMIN"', '') || '}}'
            as details,
        null::varchar as db_role
    from (
        select range as n, 1 + floor({organizations} * pow(random(), 3))::int as o
        from range({events})
    )
    order by organization_id, occurred_at, id
) to {path} (format parquet, compression zstd, row_group_size {group})
"""
NOBODY_HIDES: dict[str, Any] = {
    "database": "bench", "months": MONTHS, "organization_id": "5000", "first_id": None,
    "since": None, "series": [1], "after_ids": [0],
}  # fmt: skip


def fill(root: Path, events: int, organizations: int) -> int:
    """Write the months; return how long the files are."""
    size = 0
    each = events // len(MONTHS)
    with format.engine("2GB") as (duck, _):
        for number, month in enumerate(MONTHS):
            path = root / folder("bench", month) / EVENTS
            path.parent.mkdir(parents=True)
            gap = timedelta(days=28) // timedelta(microseconds=1) / each
            duck.execute(FILL.format(
                first=number * each, month=month, gap=gap, organizations=organizations,
                events=each, path=format.literal(path), group=format.GROUP,
            ))  # fmt: skip
            size += path.stat().st_size
    return size


def first_page(root: str) -> Any:
    """The newest 50 events of an organisation."""
    return _rows(root, {})


def history(root: str) -> Any:
    """The newest 50 events of one target."""
    return _rows(root, {"target_type": "workflow", "target_id": "5000_7"})


def page_of_a_past_year(root: str) -> Any:
    """50 events of an organisation before a moment three years ago."""
    at = datetime(2023, 1, 15, tzinfo=UTC)
    return len(Archive(root).rows(NOBODY_HIDES, {}, 50, older_than=(at, 0), newer_than=None))


def role_changes(root: str) -> Any:
    """All changes of a role in an organisation, in five years."""
    return _asked(root, "select count(*) from audit.role_change where organization_id = '5000'")


def counts(root: str) -> Any:
    """Events a month, of all organisations."""
    return _asked(root, "select count(*) from (select date_trunc('month', occurred_at), count(*) "
                  "from event group by 1)")  # fmt: skip


QUESTIONS = {
    question.__name__: question
    for question in (first_page, page_of_a_past_year, history, role_changes, counts)
}


def _rows(root: str, filters: Any) -> int:
    return len(Archive(root).rows(NOBODY_HIDES, filters, 50, older_than=None, newer_than=None))


def _asked(root: str, sql: str) -> Any:
    with opened(root) as duck:
        return duck.execute(sql).fetchall()[0][0]


def ask(name: str, root: str) -> None:
    """Ask one question in this process, and print what it took."""
    before, began = of_process("io", "rchar:"), time.perf_counter()
    found = QUESTIONS[name](root)
    took = time.perf_counter() - began
    print(json.dumps({
        "found": found, "seconds": took, "bytes": of_process("io", "rchar:") - before,
        "memory": of_process("status", "VmHWM:") * 1024,
    }))  # fmt: skip


def of_process(file: str, name: str) -> int:
    """Return a number that the system has of this process: bytes read, most memory in kB."""
    return int(Path("/proc/self", file).read_text().split(name)[1].split()[0])


def measure(
    root: Path, events: int, organizations: int, rounds: Iterable[int]
) -> list[dict[str, Any]]:
    """Write an archive, ask it, and return what each question took."""
    began = time.perf_counter()
    size = fill(root, events, organizations)
    print(f"{events:,} events: {size / 1e9:.2f} GB, {size / events:.1f} bytes an event; "
          f"written in {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in QUESTIONS}
    for _ in rounds:
        for name, of in runs.items():
            command = [sys.executable, "-m", "benchmarks.years", "--ask", name, "--folder"]
            of.append(json.loads(subprocess.check_output([*command, root])))
    rows = []
    for name, of in runs.items():
        best = min(of, key=lambda run: float(run["seconds"]))
        rows.append({
            "question": name.replace("_", " "), "found": best["found"],
            "first, s": round(of[0]["seconds"], 2), "least, s": round(best["seconds"], 2),
            "MB read": round(best["bytes"] / 1e6, 1), "MB of memory": round(best["memory"] / 1e6),
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure archives of several sizes, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--folder", help="where the archives are written for a while")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(given.ask, given.folder)
        return
    for millions in given.millions:
        with tempfile.TemporaryDirectory(dir=given.folder) as path:
            found = measure(Path(path), millions * 1_000_000, given.organizations, range(3))
            print(report.table(found), flush=True)


if __name__ == "__main__":
    main()
