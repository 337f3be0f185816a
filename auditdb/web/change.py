"""The values of an event side by side, and its context, as rows to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditdb.read.event import Event
from auditdb.values.plain import plain, plain_json

# What the server sends in the place of values that are too long: their size.
CUT = "auditdb.cut"
_LONGEST = 2000
# Names of an object that are shown.
_MOST = 500


@dataclass(frozen=True)
class Shown:
    """A value as it is shown."""

    text: str
    is_null: bool = False
    is_redacted: bool = False
    more: int = 0  # Number of characters that are left out.


@dataclass(frozen=True)
class Change:
    """A value before and after."""

    name: str
    old: Shown | None
    new: Shown | None

    @property
    def is_changed(self) -> bool:
        """Whether there are different values before and after."""
        return self.old is not None and self.new is not None and self.old != self.new


def show(value: Any) -> Shown:
    """Return a value, escaped and cut to the length of a screen."""
    if value is None:
        return Shown("", is_null=True)
    if value == "[redacted]":
        return Shown("", is_redacted=True)
    text = value if isinstance(value, str) else plain_json(value)
    # Newlines in a value are kept; other special characters are escaped.
    cut = text[:_LONGEST]
    safe = "\n".join(plain(line) for line in cut.replace("\r\n", "\n").split("\n"))
    return Shown(safe, more=len(text) - len(cut))


def changes(event: Event) -> list[Change]:
    """Return the values of an event, in the order in which they stand."""
    old, new = event.old_values, event.new_values
    names = [name for name in dict.fromkeys([*(old or {}), *(new or {})]) if name != CUT]
    return [
        Change(plain(name)[:_LONGEST], _of(old, name), _of(new, name)) for name in names[:_MOST]
    ]


def _of(image: Mapping[str, Any] | None, name: str) -> Shown | None:
    return show(image[name]) if image is not None and name in image else None


def cut_of(event: Event) -> int:
    """Return how many bytes of values are too long to be shown."""
    images = (event.old_values, event.new_values, event.details)
    sizes = [(image or {}).get(CUT, 0) for image in images]
    return sum(size for size in sizes if isinstance(size, int))


def degraded(event: Event) -> str:
    """Return in one line what could not be read of an event, or None."""
    found = (event.details or {}).get("degraded")
    if found is None:
        return ""
    text = found if isinstance(found, str) else plain_json(found)
    return plain(text[:500])


# Of the details, what the page shows in places of their own.
_APART = frozenset({"ip", "user_agent", "request_id", "degraded", "previous_role", "new_role"})


def context(event: Event) -> list[tuple[str, Shown]]:
    """Return the details that the page does not show elsewhere."""
    details = event.details or {}
    if CUT in details:
        return []
    names = [name for name in details if name not in _APART][:_MOST]
    return [(plain(name)[:_LONGEST], show(details[name])) for name in names]


def left_out(event: Event) -> int:
    """Return how many names of values and of details are more than are shown."""
    values = {*(event.old_values or {}), *(event.new_values or {})}
    return sum(max(len(own) - _MOST, 0) for own in (values, (event.details or {}).keys() - _APART))
