"""Evidence: changes of sealed events are detected, and third parties can check it.

`Sealer`, `Verifier` and `Bundler` do what `auditdb seal`, `verify`, `prove` and `bundle` do, and
need the extra `seal`. `erase` and `personal_lines` are those of `auditdb erase` and `access`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.evidence.bundle import Bundler
    from auditdb.evidence.check import Verifier
    from auditdb.evidence.erasure import (
        Mention,
        Personal,
        count_archive_erasures,
        erase,
        list_mentions,
        list_personal,
        personal_lines,
    )
    from auditdb.evidence.seal import Sealer

__all__ = [
    "Bundler",
    "Mention",
    "Personal",
    "Sealer",
    "Verifier",
    "count_archive_erasures",
    "erase",
    "list_mentions",
    "list_personal",
    "personal_lines",
]

__getattr__ = door(
    __name__,
    {
        "auditdb.evidence.bundle": ["Bundler"],
        "auditdb.evidence.check": ["Verifier"],
        "auditdb.evidence.erasure": [
            "Mention", "Personal", "count_archive_erasures", "erase", "list_mentions",
            "list_personal", "personal_lines",
        ],
        "auditdb.evidence.seal": ["Sealer"],
    },
)  # fmt: skip
