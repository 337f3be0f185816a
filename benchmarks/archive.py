"""Measures the archive: bytes an event, events a second, and the memory that it takes.

python -m benchmarks.archive [--events 300000] [--organizations 1000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import psycopg

import auditdb
from auditdb.archive import format
from auditdb.archive.place import Place
from auditdb.archive.run import Archiver
from benchmarks import report
from tests.server import running

# A row for each step, and numbers by what they are.
Measured: TypeAlias = tuple[list[dict[str, Any]], dict[str, float]]
# Of the month before last, in the order of time.
MONTH = "(date_trunc('month', now() at time zone 'UTC') - interval '2 months')::date"
FILL = """
insert into audit.event (
    occurred_at, action, result, actor_id, actor_type, db_user, organization_id, target_type,
    target_id, subject_id, source, captured_from, old_values, new_values, details
)
select b.starts + n / %(events)s::float8 * interval '28 days',
    (array['workflow.modified', 'auth.login', 'membership.role_changed', 'api_key.created'])[
        1 + mod(n, 4)],
    case when mod(n, 50) = 0 then 'failure' else 'success' end,
    'u' || o || '_' || (random() * 30)::int, 'user', 'app', o::text,
    (array['workflow', 'auth', 'membership', 'api_key'])[1 + mod(n, 4)],
    o || '_' || (random() * 200)::int, 'u' || o || '_' || (random() * 30)::int,
    (array['web', 'api', 'saml', 'cli'])[1 + (random() * 3)::int], 'public.workflow',
    jsonb_build_object('name', 'name ' || n), jsonb_build_object('name', 'name ' || n + 1),
    jsonb_build_object('ip', format('203.0.%%s.%%s', mod(o, 250), (random() * 250)::int),
        'request_id', gen_random_uuid(), 'user_agent',
        'Mozilla/5.0 (X11; Linux x86_64) Chrome/126.0')
from (
    select n, 1 + floor(%(organizations)s * power(random(), 3))::int as o
    from generate_series(0, %(events)s - 1) as n
) as e, audit_private.month_bounds(%(month)s) as b
order by n
"""


def run(dsn: str, events: int, organizations: int, folder: Path) -> Measured:
    """Fill a month, archive it, and return what each step took, and the sizes."""
    rows, sizes = [], {}
    auditdb.install(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        ((month,),) = conn.execute(f"select {MONTH}".encode()).fetchall()
        conn.execute("set role audit_owner")
        conn.execute("select audit_private.join_month(%s)", [month])
        conn.execute("reset role")
        conn.execute(
            FILL.encode(), {"events": events, "organizations": organizations, "month": month}
        )
        conn.execute("vacuum analyze audit.event")
        server = psutil.Process(conn.info.backend_pid)

        def clocks() -> tuple[float, float, float]:
            times = server.cpu_times()
            return time.perf_counter(), time.process_time(), times.user + times.system

        def tell(what: str, before: tuple[float, float, float]) -> None:
            wall, client, at_server = (b - a for a, b in zip(before, clocks(), strict=True))
            busy = max(client, at_server, 0.001)
            rows.append({
                "": what, "events a second": round(events / wall),
                "client, s of CPU": round(client, 1), "server, s of CPU": round(at_server, 1),
                "events a second of CPU": round(events / busy),
            })  # fmt: skip

        with format.engine() as (duck, work):
            path = folder / "events.parquet"
            before = clocks()
            format.load(conn, "e.occurred_at < now() - interval '1 month'", duck, work)
            format.write(duck, path)
            tell("PostgreSQL to Parquet", before)
            sizes["bytes an event"] = path.stat().st_size / events
            before = clocks()
            format.digest(duck, path)
            tell("digest of the file", before)
            path.unlink()
        before = clocks()
        assert list(Archiver(conn, Place(str(folder)), "bench").run())
        tell("auditdb archive, read back and compared", before)
        sizes["MB of memory at most"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return rows, sizes


def main() -> None:
    """Start a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--organizations", type=int, default=1000)
    given = parser.parse_args()
    with running() as server, tempfile.TemporaryDirectory() as path:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        report.show(*run(dsn, given.events, given.organizations, Path(path)))


if __name__ == "__main__":
    main()
