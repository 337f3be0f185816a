"""Asking an archive: DuckDB over its Parquet files, alone or together with the live log."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from auditdb.archive.format import COLUMNS, engine, literal
from auditdb.mapping.vocabulary import VOCABULARY

if TYPE_CHECKING:
    import duckdb
