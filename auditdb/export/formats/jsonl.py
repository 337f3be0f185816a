"""JSON lines: the canonical bytes of each event, described by docs/event-1.schema.json."""

from __future__ import annotations

from auditdb.export.formats.base import Format

JSONL = Format(name="jsonl", convert=bytes)
