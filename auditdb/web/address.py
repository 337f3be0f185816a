"""The address of a page: its parameters are the filters, so a link is a saved search."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from auditdb.errors import InvalidInput
from auditdb.read.filters import Filters, as_moment
from auditdb.web.access import Access, read_zone

# Filters that are in the address unchanged.
PLAIN = (
    "action", "result", "person_id", "actor_id", "actor_type", "subject_id", "target_type",
    "target_id", "source", "ip", "transaction_id", "series_id",
)  # fmt: skip
PRESETS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30),
           "90d": timedelta(days=90)}  # fmt: skip
# Look and position of a page: the parameters that are not filters.
LOOKS = ("zone", "language", "scheme")
# All filters, in the order of the page.
CHOSEN = (*PLAIN, "text", "last", "from", "to", "signal")
PLACES = ("after", "before", "within", "cursor", "limit")
_KNOWN = frozenset((*CHOSEN, *LOOKS, *PLACES, "organization", "formulas"))
# Maximum length of a value, because an export records its filters in the log.
_LONGEST = 1000


@dataclass(frozen=True)
class Address:
    """The parameters of a request, those that are empty left out."""

    given: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Address:
        """Return the address of a request's parameters.

        Raises:
            InvalidInput: there is no such parameter, or it is too long.
        """
        given = {name: value.strip() for name, value in query.items() if value.strip()}
        for name in given:
            if name not in _KNOWN:
                raise InvalidInput(f"the address has an unknown part, {name[:40]!r}")
            if len(given[name]) > _LONGEST:
                raise InvalidInput(f"{name} is longer than {_LONGEST} characters")
        return cls(given)

    def __getitem__(self, name: str) -> str:
        return self.given.get(name, "")

    def link(self, path: str = "", **changes: Any) -> str:
        """Return the address with other values, without those that are None.

        A change of filters removes the cursors, which belong to the old list.
        """
        new = {k: v for k, v in self.given.items() if k not in PLACES}
        new |= {name: str(value) for name, value in changes.items() if value}
        new = {name: value for name, value in new.items() if changes.get(name, value)}
        return f"{path}?{urlencode(new)}" if new else path or "?"

    def without(self, name: str) -> str:
        """Return the address without one filter."""
        return self.link(**{name: ""})

    def only(self, path: str = "", **filters: Any) -> str:
        """Return the address with other filters, but the same organisation and look."""
        kept = {k: v for k, v in self.given.items() if k in (*LOOKS, "organization")}
        return Address(kept).link(path, **filters)

    @property
    def is_filtered(self) -> bool:
        """Whether there is any filter."""
        return any(name in self.given for name in CHOSEN)

    def zone(self, access: Access) -> ZoneInfo:
        """Return the zone in which times are shown."""
        return read_zone(self["zone"] or access.zone or "UTC")

    def filters(self, zone: ZoneInfo, now: datetime | None = None) -> Filters:
        """Return the filters.

        Raises:
            InvalidInput: a value is invalid.
        """
        found: dict[str, Any] = {name: self[name] for name in PLAIN if self[name]}
        action = found.pop("action", None)
        if action and "." not in action:
            found["category"] = action
        elif action:
            found["action"] = action
        if self["text"]:
            found["text"] = self["text"]
        if self["last"]:
            if self["last"] not in PRESETS:
                raise InvalidInput(f"last is {self['last'][:40]!r}; it is one of 24h, 7d, 30d, 90d")
            found["since"] = (now or datetime.now(UTC)) - PRESETS[self["last"]]
        if self["from"]:
            found["since"] = _moment("from", self["from"], zone)
        if self["to"]:
            found["until"] = _moment("to", self["to"], zone, is_end=True)
        if "since" in found and "until" in found and found["since"] >= found["until"]:
            raise InvalidInput("the time from which events are shown is not before the other")
        return found  # type: ignore[return-value]


def _moment(name: str, text: str, zone: ZoneInfo, *, is_end: bool = False) -> datetime | None:
    """Return a time; a day is in the zone, and as an end it is included."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            day = date.fromisoformat(text)
            return datetime.combine(day + timedelta(days=is_end), time(), zone).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidInput(f"{name} is {text!r}, which is no day; give 2026-01-31") from None
    return as_moment(name, text)


def event_path(at: datetime, event_id: int) -> str:
    """Return the last part of the permalink of an event."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{event_id}"


def read_event_path(text: str) -> tuple[datetime, int]:
    """Return time and id of the event of a permalink.

    Raises:
        InvalidInput: it is none.
    """
    found = re.fullmatch(r"(\d{8}T\d{6}\.\d{6})Z-(\d{1,18})", text)
    try:
        if not found:
            raise ValueError
        at = datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput(f"{text[:60]!r} is no event") from None
    return at, int(found[2])
