"""What a reader gives: events, pages, and the cursor of the next page."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auditdb.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, a row of `audit.event`; the comments of its columns say what each means."""

    id: int
    occurred_at: datetime
    transaction_id: int
    action: str
    result: str
    actor_id: str | None
    actor_type: str
    impersonator_id: str | None
    db_user: str
    organization_id: str | None
    target_type: str | None
    target_id: str | None
    subject_id: str | None
    source: str
    captured_from: str | None
    old_values: dict[str, Any] | None
    new_values: dict[str, Any] | None
    details: dict[str, Any] | None
    db_role: str | None

    @property
    def category(self) -> str:
        """The part of the action before the dot."""
        return self.action.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, newest first, and the cursor of those that come after them, if any do."""

    events: list[Event]
    next: str | None


def cursor_after(event: Event) -> str:
    """Return the cursor of the events that come after one."""
    place = f"{event.occurred_at.astimezone(UTC).isoformat()} {event.id}"
    return urlsafe_b64encode(place.encode()).rstrip(b"=").decode()


def read_cursor(text: str) -> tuple[datetime, int]:
    """Return time and id of the event that a cursor comes after.

    Raises:
        InvalidInput: it is no cursor.
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        time, number = urlsafe_b64decode(padded).decode("ascii").split(" ")
        at, event_id = datetime.fromisoformat(time), int(number)
    except (ValueError, binascii.Error):
        at, event_id = datetime.min, 0
    if at.utcoffset() is None or not 0 <= event_id < 2**63:
        raise InvalidInput(f"{text[:40]!r} is no cursor; give `next` of the page before")
    return at, event_id
