"""Archive: whole months as Parquet files, which outlast the database and need nobody's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.archive.open import opened
    from auditdb.archive.read import Archive

__all__ = ["Archive", "opened"]

__getattr__ = door(
    __name__, {"auditdb.archive.open": ["opened"], "auditdb.archive.read": ["Archive"]}
)
