"""Reads the log by ticks: every committed event once, in order, from a cursor on."""

from __future__ import annotations

from auditdb.export.reading import Batch, read, read_async

__all__ = ["Batch", "read", "read_async"]
