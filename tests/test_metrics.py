"""Metrics: their text is OpenMetrics, their numbers are those of the log, and they are cheap."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import auditdb
from auditdb.cli import main
from auditdb.operate.maintain import maintain
from auditdb.operate.metrics import FAMILIES, Sample, read_metrics, render
from tests.conftest import Database
from tests.test_floods import write
from tests.test_maintenance import fill, months_ago

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL}(?:,(?=\w))?)*)\}})? (-?[0-9.e+-]+)")


def unescaped(found: re.Match[str]) -> str:
    return {"\\\\": "\\", '\\"': '"', "\\n": "\n"}[found[0]]


def parse(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read OpenMetrics text as strictly as its specification asks for; return the samples."""
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    families: dict[str, dict[str, str]] = {}
    current = ""
    for line in text.removesuffix("# EOF\n").split("\n")[:-1]:
        if meta := re.fullmatch(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)", line):
            kind, family, value = meta.groups()
            if family != current:
                # The samples of a family are one block.
                assert family not in families
                current, families[family] = family, {}
            assert kind not in families[family]
            families[family][kind] = value
            assert kind != "UNIT" or family.endswith("_" + value)
            assert kind != "TYPE" or value in ("gauge", "info")
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        name, labels, number = sample[1], sample[2] or "", sample[5]
        suffix = "_info" if families[current]["TYPE"] == "info" else ""
        assert name == current + suffix
        # Ends like those of other types would be taken for them.
        assert not current.endswith(("_total", "_count", "_sum", "_bucket", "_created", "_info"))
        pairs = re.findall(LABEL, labels)
        key = name, frozenset((k, re.sub(r'\\[\\"n]', unescaped, v)) for k, v in pairs)
        assert len(dict(pairs)) == len(pairs) and key not in found
        found[key] = float(number)
    return found


def exported(db: Database, *args: str, role: str = "app_auditor") -> dict[Any, float]:
    done = CliRunner().invoke(
        main, ["--dsn", db.conninfo(role), "status", "--format", "openmetrics", *args]
    )
    assert done.exit_code == 0, done.output
    return parse(done.stdout)


def one(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_the_numbers_are_those_of_the_log(db: Database) -> None:
    before = one(exported(db), "auditdb_recent_events")
    write(db, "7", 2, 30)
    write(db, "8", 2, 20)
    write(db, "8", 30, 500)
    write(db, None, 2, 5)
    db.connect("app_owner").execute("alter table workflow rename name to title")
    db.connect("app").execute("insert into workflow (organization_id, title) values (1, 'x')")
    found = exported(db)
    assert one(found, "auditdb_info", version=auditdb.__version__) == 1
    assert one(found, "auditdb_recent_events") == before + 30 + 20 + 5 + 1
    assert one(found, "auditdb_organization_recent_events", organization="7") == 30
    assert one(found, "auditdb_organization_recent_events", organization="8") == 20
    assert one(found, "auditdb_default_events") == 0
    assert one(found, "auditdb_months_ahead") == 3
    assert one(found, "auditdb_attached_tables") == 6
    assert one(found, "auditdb_problem_tables") == 1
    assert one(found, "auditdb_partition_size_bytes", partition="event_default") > 0
    assert ("auditdb_findings", frozenset({("severity", "critical")})) not in found


def test_events_that_lost_detail_are_counted_by_table(db: Database) -> None:
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (action, result, actor_type, source, captured_from, details) "
            "select 'a.b', 'success', 'user', 'web', 'public.workflow', '{\"degraded\": {}}' "
            "from generate_series(1, 3)"
        )
    assert one(exported(db), "auditdb_recent_degraded_events", table="public.workflow") == 3


def test_the_last_maintenance_is_told_in_seconds(empty_db: Database) -> None:
    maintain(empty_db.connect("app_owner"))
    last = one(exported(empty_db), "auditdb_last_maintenance_timestamp_seconds")
    assert abs(time.time() - last) < 600


def test_so_many_organisations_as_asked_for_the_largest_first(empty_db: Database) -> None:
    for number in range(1, 26):
        write(empty_db, str(number), 1, number)

    def shown(*args: str) -> set[str]:
        return {
            dict(labels)["organization"] for name, labels in exported(empty_db, *args)
            if name == "auditdb_organization_recent_events"
        }  # fmt: skip

    assert shown() == {str(number) for number in range(6, 26)}
    assert shown("--organizations", "2") == {"24", "25"}
    assert shown("--organizations", "0") == set()


HOSTILE = 'a"b\\c\nd{e="f",}#\u20ac'


def test_hostile_names_stay_inside_of_their_labels(empty_db: Database) -> None:
    write(empty_db, HOSTILE, 1, 4)
    write(empty_db, "\x1b[2J\r", 1, 3)
    found = exported(empty_db)
    names = {dict(labels).get("organization") for _, labels in found} - {None}
    assert len(names) == 2
    assert not [c for name in names for c in name or "" if not c.isprintable()]
    assert [n for n in found if n[0].startswith("f")] == []


def test_organizations_that_look_alike_are_one_series(empty_db: Database) -> None:
    write(empty_db, "acme\x1b", 1, 4)
    write(empty_db, "acme\\x1b", 1, 3)
    found = exported(empty_db)
    assert one(found, "auditdb_organization_recent_events", organization="acme\\x1b") == 7


def test_a_naive_rendering_breaks_the_parser() -> None:
    naive = f'auditdb_x{{organization="{HOSTILE}"}} 1'
    assert SAMPLE.fullmatch(naive) is None


def test_findings_are_counted_if_asked_for(db: Database) -> None:
    db.connect("app_owner").execute("alter table workflow disable trigger auditdb_update")
    found = exported(db, "--findings")
    assert one(found, "auditdb_findings", severity="critical") == 1
    assert one(found, "auditdb_findings", severity="warning") == 0


def test_every_metric_has_a_type_and_a_help(db: Database) -> None:
    db.connect("app_auditor").execute("select audit.subscribe('s', '-')")
    said = {sample.name for sample in read_metrics(db.connect("app_owner"))}
    assert said <= FAMILIES.keys()
    assert FAMILIES.keys() - said <= {
        "auditdb_findings", "auditdb_recent_degraded_events", "auditdb_organization_recent_events",
    }  # fmt: skip


def test_large_numbers_are_exact() -> None:
    text = render([Sample(name="auditdb_partition_size_bytes", labels={"partition": "p"},
                          value=123456789012345)])  # fmt: skip
    assert text.splitlines()[-2].endswith(" 123456789012345")


def test_json_is_as_before(db: Database) -> None:
    runs = [CliRunner().invoke(main, ["--dsn", db.conninfo("app_owner"), "status", *args])
            for args in (["--json"], ["--format", "json"])]  # fmt: skip
    assert json.loads(runs[0].stdout) == json.loads(runs[1].stdout)


@pytest.mark.parametrize("role", ["app", "app_reader", "stranger"])
def test_only_operators_and_auditors_read_metrics(db: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(role).execute("select * from audit.metrics()")


def test_metrics_read_the_months_of_a_day_and_no_others(empty_db: Database) -> None:
    fill(empty_db, months_ago(empty_db, 5))
    fill(empty_db, months_ago(empty_db, 7))
    maintain(empty_db.connect("app_owner"))
    with psycopg.connect(empty_db.dsn) as conn:
        conn.execute("select * from audit.metrics()")
        scanned = conn.execute(
            "select relname from pg_stat_xact_user_tables where relname ~ '^event_[0-9]' "
            "and coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0"
        ).fetchall()
    names = {"event_" + months_ago(empty_db, n).replace("-", "_") for n in (0, 1)}
    assert scanned and {name for (name,) in scanned} <= names


def test_the_command_counts_findings_where_nothing_else_loaded_the_doctor(db: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "auditdb", "--dsn", db.dsn, "status", "--format", "openmetrics",
         "--findings"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "auditdb_findings{" in done.stdout
