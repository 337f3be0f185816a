"""The archive: whole months as Parquet files, which outlast the database; any engine reads them.

`Archiver`, `restore` and `list_months` do what `auditdb archive` and `auditdb restore` do. Readers
and the page continue into an `Archive`; `opened` queries one with DuckDB. They need the extra
`archive`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.archive.months import Month, list_months
    from auditdb.archive.open import opened
    from auditdb.archive.place import Place
    from auditdb.archive.read import Archive
    from auditdb.archive.restoring import restore
    from auditdb.archive.run import Archiver

__all__ = ["Archive", "Archiver", "Month", "Place", "list_months", "opened", "restore"]

__getattr__ = door(
    __name__,
    {
        "auditdb.archive.months": ["Month", "list_months"],
        "auditdb.archive.open": ["opened"],
        "auditdb.archive.place": ["Place"],
        "auditdb.archive.read": ["Archive"],
        "auditdb.archive.restoring": ["restore"],
        "auditdb.archive.run": ["Archiver"],
    },
)
