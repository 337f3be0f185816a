"""The results of a reader: events, pages, cursors."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from auditdb.errors import InvalidInput

# No event has a lower id.
FIRST_ID = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, a row of `audit.event`; the comments of its columns say what each means.

    `series_id` is the series of its `transaction_id`, which a restore into another cluster may use
    again; it is null of what was there before the first.
    """

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
    series_id: int | None

    @property
    def category(self) -> str:
        """The part of the action before the dot."""
        return self.action.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, newest first, and the cursors of those before and after them.

    `next` leads to older events; it is None if there are none. `previous` leads to newer events; it
    is None on the first page. If the page reached its limit `within` before it was full,
    `looked_back_to` is the time of the last event that was looked at, and `next` continues from
    there.
    """

    events: list[Event]
    next: str | None
    previous: str | None = None
    looked_back_to: datetime | None = None


def cursor_of(at: datetime, event_id: int) -> str:
    """Return the cursor of the place of an event."""
    place = f"{at.astimezone(UTC).isoformat()} {event_id}"
    return urlsafe_b64encode(place.encode()).rstrip(b"=").decode()


def read_cursor(text: str) -> tuple[datetime, int]:
    """Return time and id of the event of a cursor.

    Raises:
        InvalidInput: it is not a cursor.
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        time, number = urlsafe_b64decode(padded).decode("ascii").split(" ")
        at, event_id = datetime.fromisoformat(time), int(number)
        if at.utcoffset() is None or not 0 <= event_id < 2**63:
            raise ValueError
        return at.astimezone(UTC), event_id
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidInput(
            f"{text[:40]!r} is not a cursor; give `next` or `previous` of a page"
        ) from None
