"""Error pages: what is wrong, and what to do."""

from __future__ import annotations

import logging

from auditdb.errors import AuditError, ConnectionFailed, InvalidInput, Refused

_log = logging.getLogger("auditdb.web")

STATUS = {
    "unauthorized": 401, "forbidden": 403, "not_found": 404, "bad_address": 400, "cross_site": 403,
    "cursor_lost": 410, "form": 403, "stream_address": 400, "stream_limit": 409,
    "busy": 429, "host": 500,
    "away": 503, "slow": 503, "read_only": 503, "not_installed": 503, "refused": 503,
    "key_retired": 503, "token": 503, "clock": 503, "no_rule": 503,
}  # fmt: skip


class Problem(Exception):
    """An error that a page shows.

    Args:
        key: its key in the section `error` of the words.
        detail: more details for the reader.
    """

    def __init__(self, key: str, detail: str = "") -> None:
        super().__init__(key)
        self.key, self.detail = key, detail


def problem_of(error: AuditError) -> Problem:
    """Return the problem for an error; details for operators are only logged."""
    state = getattr(error.__cause__, "sqlstate", None)
    if state == "57014":
        return Problem("slow")
    if isinstance(error, InvalidInput):
        return Problem("bad_address", str(error))
    _log.error("%s", error)
    if isinstance(error, ConnectionFailed):
        return Problem("away")
    if state == "25006":
        return Problem("read_only")
    if isinstance(error, Refused) and "auditdb install" in str(error):
        return Problem("not_installed")
    return Problem("refused")
