"""Formats of exported events."""

from __future__ import annotations

from auditdb.export.formats.base import Format
from auditdb.export.formats.cloudevents import CLOUDEVENTS
from auditdb.export.formats.csv import CSV
from auditdb.export.formats.jsonl import JSONL
from auditdb.export.formats.ocsf import OCSF

FORMATS: dict[str, Format] = {format.name: format for format in (JSONL, OCSF, CLOUDEVENTS, CSV)}
