"""What a monitoring system watches, as the text of OpenMetrics that Prometheus and others read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.operate.doctor import Finding
from auditdb.values.plain import plain

# Type and help of each family, in the order in which they are printed.
FAMILIES = {
    "auditdb_info": ("info", "The installed version."),
    "auditdb_recent_events": ("gauge", "Events of the last 24 hours."),
    "auditdb_organization_recent_events": (
        "gauge", "Events of the last 24 hours of the organisations that have the most."),
    "auditdb_recent_degraded_events": (
        "gauge", "Events of the last 24 hours that lost detail, by attached table."),
    "auditdb_default_events": (
        "gauge", "Events in the DEFAULT partition, counted up to 100000; normally 0."),
    "auditdb_months_ahead": ("gauge", "Months to come that have a partition."),
    "auditdb_last_maintenance_timestamp_seconds": (
        "gauge", "When maintenance last ran under a clock that fits the run before."),
    "auditdb_attached_tables": ("gauge", "Tables whose changes are captured."),
    "auditdb_problem_tables": (
        "gauge", "Attached tables that are gone, or whose columns changed since."),
    "auditdb_partition_size_bytes": (
        "gauge", "Size of a partition of the log, with its indexes."),
    "auditdb_subscriptions": ("gauge", "Subscriptions of the export, by their state."),
    "auditdb_subscription_lag_seconds": (
        "gauge", "Since when the first event waits that a subscription has not looked at."),
    "auditdb_subscription_lag_events": ("gauge", "Events that a subscription has not looked at."),
    "auditdb_subscription_delivered_events": ("gauge", "Events that the sink took."),
    "auditdb_subscription_set_aside_events": ("gauge", "Events that the sink refused."),
    "auditdb_subscription_missed_events": (
        "gauge", "Events that retention dropped before they were looked at, at the most."),
    "auditdb_findings": ("gauge", "Findings of auditdb doctor."),
}  # fmt: skip
UNITS = ("seconds", "bytes")
SEVERITIES = ("critical", "warning", "notice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A value at this moment.

    Attributes:
        name: what it is, such as `auditdb_partition_size_bytes`.
        labels: of what, such as a table.
        value: how many, in the unit that the name ends with.
    """

    name: str
    labels: dict[str, str]
    value: float


def read_metrics(conn: psycopg.Connection[Any], *, organizations: int = 20) -> list[Sample]:
    """Return what `audit.metrics()` says.

    Args:
        conn: a connection of a member of `audit_operator` or `audit_auditor`.
        organizations: how many of them, those with the most events of the last 24 hours.

    Raises:
        Refused: auditdb is not installed, or the role holds neither.

    Example:
        >>> read_metrics(conn)[0]  # doctest: +SKIP
        Sample(name='auditdb_info', labels={'version': '0.2.0'}, value=1.0)
    """
    with raises_audit_errors(conn, "audit_operator", "audit_auditor"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(Sample))
        return cursor.execute("select * from audit.metrics(%s)", [organizations]).fetchall()


def count_findings(findings: Iterable[Finding]) -> list[Sample]:
    """Return how many findings of the doctor there are of each severity."""
    found = [finding.severity for finding in findings]
    return [
        Sample(name="auditdb_findings", labels={"severity": s}, value=found.count(s))
        for s in SEVERITIES
    ]


def render(samples: Iterable[Sample]) -> str:
    r"""Return samples as the text of OpenMetrics.

    >>> print(render([Sample(name="auditdb_months_ahead", labels={}, value=3)]), end="")
    # TYPE auditdb_months_ahead gauge
    # HELP auditdb_months_ahead Months to come that have a partition.
    auditdb_months_ahead 3
    # EOF
    """
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines = []
    for name, (kind, about) in FAMILIES.items():
        family = name.removesuffix("_info") if kind == "info" else name
        unit = name.rpartition("_")[2]
        if name in by_name:
            lines.append(f"# TYPE {family} {kind}")
            lines += [f"# UNIT {family} {unit}"] * (unit in UNITS)
            lines.append(f"# HELP {family} {_escaped(about)}")
            lines += _lines(by_name[name])
    return "\n".join([*lines, "# EOF\n"])


def _lines(samples: Iterable[Sample]) -> list[str]:
    """Return a line for each series: those whose labels look alike are one, as parsers demand."""
    values: dict[str, float] = {}
    for sample in samples:
        # What drives a terminal is shown here as elsewhere: by its code.
        labels = ",".join(f'{name}="{_escaped(plain(v))}"' for name, v in sample.labels.items())
        series = f"{sample.name}{'{' + labels + '}' if labels else ''}"
        values[series] = values.get(series, 0) + sample.value
    return [f"{series} {value:.15g}" for series, value in values.items()]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
