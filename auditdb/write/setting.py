"""The setting `auditdb.context`, for drivers on which no two statements share a round trip."""

from __future__ import annotations

import json
from typing import Any, LiteralString

from auditdb.write.claim import Claim

READ: LiteralString = "select pg_catalog.current_setting('auditdb.context', true)"
SET: LiteralString = "select pg_catalog.set_config('auditdb.context', %(setting)s, true)"


def inherit(before: str | None, claim: Claim) -> str:
    """Return the setting of a claim inside of the one that is in force on the server.

    >>> inherit('{"actor_id": "7", "source": "api"}', Claim(source="cli"))
    '{"actor_type": "user", "source": "cli", "actor_id": "7"}'
    """
    try:
        outer: Any = json.loads(before or "{}")
    except ValueError:
        outer = {}
    known = {key: outer[key] for key in Claim.__dataclass_fields__ if outer.get(key) is not None}
    return Claim(**known).with_inner(claim).setting
