"""Archive: whole months as Parquet files, which outlast the database and need nobody's word.

`Archiver`, `restore` and `list_months` do what `auditdb archive` and `auditdb restore` do. They
need the extra `archive`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.archive.months import Month, list_months
    from auditdb.archive.place import Place
    from auditdb.archive.restoring import restore
    from auditdb.archive.run import Archiver

__all__ = ["Archiver", "Month", "Place", "list_months", "restore"]

__getattr__ = door(
    __name__,
    {
        "auditdb.archive.months": ["Month", "list_months"],
        "auditdb.archive.place": ["Place"],
        "auditdb.archive.restoring": ["restore"],
        "auditdb.archive.run": ["Archiver"],
    },
)
