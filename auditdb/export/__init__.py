"""Export of every committed event, once and in order: by cursor or by subscription.

`read` needs psycopg alone. Sinks of subscriptions need the extra `export`; `Exporter` serves them
as `auditdb export` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.export.reading import Batch, read, read_async
    from auditdb.export.serve import Exporter, Served
    from auditdb.export.subscription import (
        SubscriptionStatus,
        change_subscription,
        create_subscription,
        list_subscriptions,
        reset_subscription,
    )

__all__ = [
    "Batch",
    "Exporter",
    "Served",
    "SubscriptionStatus",
    "change_subscription",
    "create_subscription",
    "list_subscriptions",
    "read",
    "read_async",
    "reset_subscription",
]

__getattr__ = door(
    __name__,
    {
        "auditdb.export.reading": ["Batch", "read", "read_async"],
        "auditdb.export.serve": ["Exporter", "Served"],
        "auditdb.export.subscription": [
            "SubscriptionStatus", "change_subscription", "create_subscription",
            "list_subscriptions", "reset_subscription",
        ],
    },
)  # fmt: skip
