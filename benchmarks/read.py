"""Measures what reading the log costs as it grows, through row-level security as an admin reads it.

python -m benchmarks.read                       # an embedded server; 1 and 10 million events
python -m benchmarks.read --millions 1 10 100   # and a hundred, given disk and time
python -m benchmarks.read --only export         # nothing but exports, beside a plain COPY
python -m benchmarks.read --millions 5 --against tests/releases/3128cff.sql    # beside a release
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import auditdb
from auditdb.read.token import mint
from benchmarks.capture import address, database
from benchmarks.questions import Question, questions
from benchmarks.whole import exports, report_exports

MONTHS = 24
ORGANIZATIONS = 1000
DATABASE = "bench_read"
# Of whom is asked: the first has a tenth of all events, the last a handful.
SIZES = {"largest": 1, "median": ORGANIZATIONS // 2, "smallest": ORGANIZATIONS}

SETUP = f"""
create table membership (
    organization_id int not null, user_id int not null, role text not null,
    primary key (user_id, organization_id)
);
insert into membership select g, g, 'OWNER' from generate_series(1, {ORGANIZATIONS}) as g;
select audit.attach('membership', 'membership');
create table action_kind (kind int primary key, name text not null, target_type text not null);
insert into action_kind
select row_number() over () - 1, name, split_part(name, '.', 1) from (values
    ('workflow.modified'), ('workflow.modified'), ('workflow.modified'), ('workflow.modified'),
    ('workflow.created'), ('workflow.deleted'), ('auth.login'), ('auth.login'), ('auth.login'),
    ('auth.login'), ('auth.login'), ('auth.login'), ('auth.password_changed'),
    ('auth.email_changed'), ('membership.added'), ('membership.removed'),
    ('membership.role_changed'), ('membership.updated'), ('api_key.created'), ('api_key.revoked')
) as k (name);
"""

# Ids ascend with time, as in a log that grew. A tenth of the organisations has most of the events.
FILL = f"""
insert into audit.event (
    occurred_at, action, result, actor_id, actor_type, db_user, organization_id, target_type,
    target_id, subject_id, source, captured_from, old_values, new_values, details
)
select
    at, k.name, case when mod(n, 50) = 0 then 'failure' else 'success' end,
    'u' || o || '_' || (random() * 30)::int, 'user', 'app', o::text, k.target_type,
    o || '_' || (random() * 200)::int, 'u' || o || '_' || (random() * 30)::int,
    (array['web', 'api', 'saml', 'cli'])[1 + mod(n, 4)],
    case when k.target_type <> 'auth' then 'public.' || k.target_type end,
    jsonb_build_object('name', 'name ' || n), jsonb_build_object('name', 'name ' || n + 1),
    case when k.name = 'membership.role_changed'
        then '{{"previous_role": "MEMBER", "new_role": "ADMIN", "ip": "203.0.113.9"}}'::jsonb
        else '{{"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}}' end
from (
    select n, date_trunc('month', now()) - interval '{MONTHS - 1} months'
            + (n::float8 / %(total)s) * (now() - date_trunc('month', now())
                + interval '{MONTHS - 1} months') as at,
        1 + floor({ORGANIZATIONS} * power(random(), 3))::int as o, (random() * 19)::int as kind
    from generate_series(%(first)s::bigint, %(last)s::bigint) as n
) as e join action_kind as k using (kind)
order by n
"""
CHUNK = 500_000


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make the organisations, their admins, and the months that have gone by."""
    conn.execute(SETUP.encode())
    conn.execute("set role audit_owner")
    for back in range(1, MONTHS):
        month = f"(now() - interval '{back} months')::date"
        conn.execute(f"select audit_private.join_month({month})".encode())
    conn.execute("reset role")


def fill(conn: psycopg.Connection[Any], total: int) -> float:
    """Fill the log with so many events and return the rows that were written in a second."""
    started = time.perf_counter()
    for first in range(0, total, CHUNK):
        conn.execute(
            FILL.encode(), {"total": total, "first": first, "last": min(first + CHUNK, total) - 1}
        )
    rate = total / (time.perf_counter() - started)
    conn.execute("vacuum analyze audit.event")
    return rate


@contextmanager
def filled(dsn: str, total: int, release: Path | None = None) -> Iterator[tuple[str, float]]:
    """Yield the address of a database whose log holds so many events, and the rows per second.

    The log is that of a release, given as the script that `auditdb sql` printed then, or of now.
    """
    name = f"{DATABASE}_{release.stem}" if release else DATABASE
    with database(dsn, name) as target:
        if release is None:
            auditdb.install(target)
        else:
            with psycopg.connect(target) as conn:
                conn.execute(release.read_text("utf-8").encode())
        with psycopg.connect(target, autocommit=True) as conn:
            prepare(conn)
            rate = fill(conn, total)
        yield target, rate


def become(conn: psycopg.Connection[Any], key: str, organization: int, *, is_sql: bool) -> None:
    """Become an admin of an organisation until the transaction ends."""
    if is_sql:
        conn.execute("set local role audit_reader")
        token = mint(key, organization, organization)
        conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
    else:
        log = auditdb.reader(conn, key=key, viewer_id=organization, organization_id=organization)
        conn.execute(*log.become())


def ask(
    conn: psycopg.Connection[Any], key: str, organization: int, question: Question, repeats: int
) -> dict[str, Any]:
    """Return what one question costs: buffers, partitions and milliseconds, planning apart."""
    return summary(question, [explain(conn, key, organization, question) for _ in range(repeats)])


def explain(
    conn: psycopg.Connection[Any], key: str, organization: int, question: Question
) -> dict[str, Any]:
    """Return the plan of one question, as it ran."""
    with conn.transaction(force_rollback=True):
        become(conn, key, organization, is_sql=question.is_sql)
        query, values = question.build(conn, organization)
        statement = sql.SQL("explain (analyze, buffers, format json) {}").format(query)
        row = conn.execute(statement, values).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]
    return plan


def summary(question: Question, plans: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a question costs by the plans of all its runs: buffers and nodes by the last."""
    nodes = list(_nodes(plans[-1]["Plan"]))
    return {
        "question": question.name,
        "buffers": _buffers(plans[-1]["Plan"]),
        "planning_buffers": _buffers(plans[-1].get("Planning", {})),
        "execution_ms": round(statistics.median(p["Execution Time"] for p in plans), 2),
        "execution_min_ms": round(min(p["Execution Time"] for p in plans), 2),
        "planning_ms": round(statistics.median(p["Planning Time"] for p in plans), 2),
        "planning_min_ms": round(min(p["Planning Time"] for p in plans), 2),
        "partitions": len({n["Relation Name"] for n in nodes if _opens(n)}),
        "indexes": sorted(
            {_shape(n["Index Name"]) for n in nodes if "Index Name" in n and _runs(n)}
        ),
        "scans_whole": sorted(
            {
                n["Relation Name"]
                for n in nodes
                if n["Node Type"] == "Seq Scan" and _opens(n) and _buffers(n) > 0
            }
        ),
        "rows": plans[-1]["Plan"]["Actual Rows"],
    }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _opens(node: dict[str, Any]) -> bool:
    """Whether a node reads a partition of the log that holds events."""
    return str(node.get("Relation Name")).startswith("event_") and _runs(node)


def _runs(node: dict[str, Any]) -> bool:
    return int(node["Actual Loops"]) > 0


def _shape(index: str) -> str:
    """Return the name of a partition's index without the partition."""
    return re.sub(r"^event_(\d+_\d+|default)_", "", index)


def _buffers(plan: dict[str, Any]) -> int:
    return int(plan.get("Shared Hit Blocks", 0)) + int(plan.get("Shared Read Blocks", 0))


def python_layer(target: str, key: str) -> dict[str, Any]:
    """Return what a stream of the largest organisation costs, and the start of the command."""
    with psycopg.connect(target, autocommit=True) as conn:
        log = auditdb.reader(conn, key=key, viewer_id=1, organization_id=1)
        events = log.events()
        for _ in range(1000):
            next(events, None)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        count = sum(1 for _ in islice(events, 1_000_000))
        seconds = time.perf_counter() - started
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    command = [sys.executable, "-m", "auditdb", "log", "--viewer-id=1", "--organization-id=1"]
    cpu = []
    for _ in range(7):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, env={**os.environ, "AUDITDB_DSN": target, "AUDITDB_KEY": key},
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    return {
        "streamed_events": count,
        "streamed_per_second": round(count / seconds),
        "streaming_grew_mb": round(grown / 1024, 1),
        "auditdb_log_cpu_s": round(statistics.median(cpu), 2),
    }


def create_key(target: str) -> str:
    """Return a signing key of a database."""
    with psycopg.connect(target) as conn:
        row = conn.execute("select audit.create_key()").fetchone()
    assert row is not None
    return str(row[0])


def answers_of(targets: dict[str, str], rounds: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Ask every question of every database, in turn, for organisations of three sizes."""
    found: dict[str, dict[str, Any]] = {name: {} for name in targets}
    keys = {name: create_key(target) for name, target in targets.items()}
    with ExitStack() as stack:
        conns = {
            name: stack.enter_context(psycopg.connect(target)) for name, target in targets.items()
        }
        plans: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
        asked = list(product(SIZES.items(), questions(), targets))
        for _ in rounds:
            for (size, organization), question, name in asked:
                plan = explain(conns[name], keys[name], organization, question)
                plans[size, question.name, name].append(plan)
        for (size, _), question, name in asked:
            answer = summary(question, plans[size, question.name, name])
            found[name].setdefault(size, []).append(answer)
    return found


def report(title: str, answers: dict[str, Any]) -> None:
    """Print what each question cost."""
    for size in SIZES:
        print(f"  {title}, {size} organisation")
        for answer in answers[size]:
            print(
                f"    {answer['question']:28} {answer['buffers']:8} buffers "
                f"{answer['execution_ms']:9.2f} ms, at least {answer['execution_min_ms']:.2f}"
                f" (planning {answer['planning_ms']:.2f}) {answer['partitions']:3} partitions"
                f" {' '.join(answer['indexes'])}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.read", description=__doc__)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10], help="of events")
    parser.add_argument("--repeats", type=int, default=5, help="of each query (%(default)s)")
    parser.add_argument(
        "--against", type=Path, help="script of a release, whose log is asked the same in turn"
    )
    parser.add_argument("--only", choices=["export"], help="measure this, and write no file")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for read.json")
    options = parser.parse_args()

    result: dict[str, Any] = {"months": MONTHS, "organizations": ORGANIZATIONS, "sizes": {}}
    with address(options.dsn) as dsn:
        for millions in options.millions:
            with ExitStack() as stack:
                total = millions * 1_000_000
                target, rate = stack.enter_context(filled(dsn, total))
                exported = exports(target, create_key(target), range(options.repeats))
                print(f"{millions} million events")
                report_exports(exported)
                if options.only:
                    continue
                targets = {"now": target}
                if options.against:
                    before, _ = stack.enter_context(filled(dsn, total, options.against))
                    targets["before"] = before
                answers = answers_of(targets, range(options.repeats))
                python = python_layer(target, create_key(target))
            result["sizes"][millions] = {
                "rows_per_second": round(rate), **python, "exports": exported,
                **answers.pop("now"), **answers,
            }  # fmt: skip
            print(f"{millions} million events, filled at {rate:,.0f} rows/s; {python}")
            report("now", result["sizes"][millions])
            if options.against:
                report("before", result["sizes"][millions]["before"])
    if options.only:
        return
    options.out.mkdir(exist_ok=True)
    (options.out / "read.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
