"""Measures what it costs to read who acts from the settings of other tools.

python -m benchmarks.claims            # an embedded server
python -m benchmarks.claims --dsn ...  # any server; a database bench_auditdb is made and dropped

An UPDATE of a row in a loop in the server. The ways are interleaved; "not asked" is capture without
the question whether there is such a setting.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

import psycopg

from benchmarks import report
from benchmarks.capture import address, databases
from benchmarks.contenders import CONTENDERS
from benchmarks.cpu import CONTEXT
from benchmarks.workloads import ROWS

CLAIMS = json.dumps(
    {
        "sub": "6f4e3c1a-0000-4000-8000-000000000007",
        "role": "authenticated",
        "aud": "authenticated",
        "email": "ann@example.com",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"name": "Ann"},
        "session_id": "0b1e3c1a-0000-4000-8000-000000000007",
    }
)
ASKED = "context is null and audit_private.may_claim()"
# Each: whether capture asks, what is read, and the settings of the transaction.
WAYS: dict[str, tuple[bool, list[str], dict[str, str]]] = {
    "a context, not asked": (False, [], {"auditdb.context": CONTEXT}),
    "a context": (True, [], {"auditdb.context": CONTEXT}),
    "nothing set, not asked": (False, [], {}),
    "nothing set": (True, [], {}),
    "claims that nobody reads": (True, [], {"request.jwt.claims": CLAIMS}),
    "request.jwt.claims": (True, ["request.jwt.claims"], {"request.jwt.claims": CLAIMS}),
    "app.current_user_id": (True, ["app.current_user_id"], {"app.current_user_id": "4711"}),
}
LOOP = """do $bench$
declare
    _started timestamptz := clock_timestamp();
begin
    for _i in 1 .. {rows} loop
        update member set name = 'round {round}', quota = quota + 1 where id = _i;
    end loop;
    perform set_config('bench.elapsed',
        extract(epoch from clock_timestamp() - _started)::text, false);
end $bench$"""


def measure(dsn: str, rounds: Iterable[int], rows: int) -> dict[str, list[float]]:
    """Return the microseconds a row of each way, a number for each round after the first."""
    samples: dict[str, list[float]] = {name: [] for name in WAYS}
    names = list(WAYS)
    with psycopg.connect(dsn, autocommit=True) as conn:
        query = "select pg_get_functiondef('audit_private.append'::regproc)"
        (asking,) = conn.execute(query).fetchone() or ("",)
        assert ASKED in asking
        for number in rounds:
            for name in names[number % len(names) :] + names[: number % len(names)]:
                asks, settings, said = WAYS[name]
                conn.execute((asking if asks else asking.replace(ASKED, "false")).encode())
                conn.execute("select audit.read_context_from(%s)", [settings])
                with conn.transaction():
                    for setting, value in said.items():
                        conn.execute("select set_config(%s, %s, true)", [setting, value])
                    conn.execute(LOOP.format(rows=rows, round=number).encode())
                taken = conn.execute("select current_setting('bench.elapsed')::float8").fetchone()
                assert taken is not None
                if number > 0:
                    samples[name].append(taken[0] / rows * 1e6)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.claims", description=__doc__)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    parser.add_argument("--rounds", type=int, default=30, help="(default %(default)s)")
    parser.add_argument("--rows", type=int, default=500, help="of a round (%(default)s)")
    options = parser.parse_args()
    contender = next(c for c in CONTENDERS if c.name == "auditdb")
    with address(options.dsn) as dsn, databases(dsn, [contender]) as addresses:
        rows = min(options.rows, ROWS)
        samples = measure(addresses["auditdb"], range(options.rounds + 1), rows)
    print(f"Microseconds a row\n{report.table(report.summary(samples))}")


if __name__ == "__main__":
    main()
