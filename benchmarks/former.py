"""Measures capture beside that of former releases, for tables of several shapes.

python -m benchmarks.former             # an embedded server, docs/former.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

import auditdb
from benchmarks import contenders, inserver
from benchmarks.capture import address, database
from benchmarks.contenders import CONTEXT
from benchmarks.environment import environment
from benchmarks.report import markdown
from benchmarks.workloads import TABLES, Workload, workloads
from tests.conftest import ROLES

RELEASES = sorted((Path(__file__).parent.parent / "tests" / "releases").glob("*.sql"))
NOW = "now"
ROWS = 500
KB = (0.1, 1, 10, 100)

SHAPES = """
create domain address as text check (value like '%@%');
create table contact (id int primary key, organization_id int not null, email address not null,
    n int not null);
create table document (id int primary key, organization_id int not null, body jsonb not null,
    note text not null);
create table called (id int primary key, organization_id int not null, n int not null);
create function organization_of(id int) returns text language sql as 'select id::text';
create table fallen (id int primary key, organization_id int not null, n int not null);
insert into called select g, g % 50, 0 from generate_series(1, 500) as g;
insert into fallen select g, g % 50, 0 from generate_series(1, 500) as g;
insert into contact select g, g % 50, 'a@b.test', 0 from generate_series(1, 500) as g;
insert into document select g, g % 50, '{}', '' from generate_series(1, 1000) as g;
"""
TOUCHED = f"{inserver.TABLES}, contact, document, called, fallen"
EMAIL = "email = 'b@' || {round}"
ATTACH = f"""
{contenders.ATTACH}
select audit.attach('public.contact', 'contact');
select audit.attach('public.document', 'document');
select audit.attach('public.called', 'called',
    organization => 'public.organization_of(r.organization_id)');
select audit.attach('public.fallen', 'fallen');
alter table fallen add more int;
"""


def _loop(name: str, title: str, statement: str, rows: int, first: int = 1) -> Workload:
    body = f"for _i in {first} .. {first + rows - 1} loop\n{statement} where id = _i;\nend loop;"
    return Workload(name=name, title=title, rows=rows, body=body, floor="")


def shapes() -> list[Workload]:
    """Return the updates of one row of tables that are not plain."""
    found = [
        _loop("domain", "beside a column of a domain", "update contact set n = n + 1", ROWS),
        _loop("called", "a mapping calls a function", "update called set n = n + 1", ROWS),
        _loop("fallen", "a column was added: fallback", "update fallen set n = n + 1", ROWS),
        _loop("of_domain", "a column of a domain", f"update contact set {EMAIL}", ROWS),
    ]
    # As an editor's: words, numbers and lists, with a value that changes.
    item = '{"type": "step", "title": "Send a message", "position": 7, "options": [1, 2, 3]}'
    for number, kb in enumerate(KB):
        steps = f"array_fill('{item}'::jsonb, array[{max(1, int(kb * 10))}])"
        values = {
            "json": f"body = jsonb_build_object('n', _i + {{round}}, 'steps', to_jsonb({steps}))",
            "text": f"note = _i + {{round}} || repeat('Plain words, ', {int(kb * 80)})",
        }
        for kind, value in values.items():
            rows = 20 if kb == KB[-1] else 100
            statement = f"update document set {value}"
            # Rows of their own, so that what was there before is as long.
            first = 1 + 100 * (2 * number + (kind == "text"))
            found.append(_loop(f"{kind}_{kb}", f"{kind} of {kb} kB", statement, rows, first))
    return found


def _prepare(dsn: str, release: Path | None, name: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(TABLES.encode())
        conn.execute(SHAPES.encode())
    if name == NOW:
        auditdb.install(dsn)
    elif release is not None:
        with psycopg.connect(dsn) as conn:
            conn.execute(release.read_bytes())
    with psycopg.connect(dsn, autocommit=True) as conn:
        if release is not None or name == NOW:
            conn.execute(ROLES.encode())
            conn.execute(ATTACH.encode())
        conn.execute("vacuum analyze")


def measure(dsn: str, work: list[Workload], rounds: Iterable[int]) -> list[dict[str, Any]]:
    """Return the microseconds that each side adds to a row, for each workload."""
    sides: dict[str, Path | None] = {"no audit": None, **{p.stem: p for p in RELEASES}, NOW: None}
    micros: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        conns = {}
        for name, release in sides.items():
            own = stack.enter_context(database(dsn, f"bench_{name.replace(' ', '_')}"))
            _prepare(own, release, name)
            conns[name] = stack.enter_context(psycopg.connect(own, autocommit=True))
        for number in rounds:
            first = number % len(sides)
            order = [*sides][first:] + [*sides][:first]
            for workload in work:
                for name in order:
                    conn = conns[name]
                    conn.execute(f"vacuum {TOUCHED}".encode())
                    context = CONTEXT if name != "no audit" else ""
                    block = workload.block(round_number=number, context=context, floor=False)
                    conn.execute(block.encode())
                    row = conn.execute("select current_setting('bench.elapsed')::float8").fetchone()
                    assert row is not None
                    if number > 0:
                        micros[workload.name][name].append(row[0] * 1e6 / workload.rows)
    return [
        {"workload": workload.title} | {
            f"{name}, {what}": round(summary(of[name]) - summary(of["no audit"]), 1)
            for name in sides if name != "no audit"
            for what, summary in (("median", statistics.median), ("min", min))
        }
        for workload in work for of in [micros[workload.name]]
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.former", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the JSON")
    options = parser.parse_args()
    with address(None) as dsn:
        rows = measure(dsn, [*workloads(1000), *shapes()], range(options.rounds + 1))
        result = {"environment": environment(dsn), "rounds": options.rounds, "added": rows}
    print(markdown(rows))
    (options.out / "former.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
