"""One-line texts for an event: its changes, its actor, and its origin."""

from __future__ import annotations

from typing import Any

from auditdb.mapping.vocabulary import called
from auditdb.read.event import Event
from auditdb.values.plain import plain_json


def change(event: Event) -> str:
    """Return what an event changed, in words.

    A captured role change is `MEMBER → ADMIN`, an update `name: old → new`, a new or deleted row
    its name: `name "Nightly export"`. Details from the application are never shown as changes.
    """
    details = event.details or {}
    is_captured = event.captured_from is not None
    if is_captured and event.action.endswith(".role_changed") and "new_role" in details:
        return f"{details.get('previous_role') or '-'} → {details.get('new_role') or '-'}"
    if event.old_values is not None and event.new_values is not None:
        old, new = event.old_values, event.new_values
        return ", ".join(f"{k}: {_short(old.get(k))} → {_short(v)}" for k, v in new.items())
    image = event.new_values if event.new_values is not None else event.old_values
    told = [f"{name} {plain_json(_short(value))}" for name, value in called(image or {})]
    if is_captured and image is not None and "row_id" in details:  # The action is the whole's.
        way = "removed" if event.new_values is None else "added"
        if event.action.endswith(".baseline"):  # Nobody added it.
            way = "was there"
        told.insert(0, f"{event.captured_from} {way}")
    group = details.get("group")
    if is_captured and image is not None and isinstance(group, dict):
        told.append(f"in {group.get('type')} {group.get('id')}")
    return ", ".join([*told, *([why] if (why := reason(event)) else [])])


def reason(event: Event) -> str:
    """Return the reason that the application gave for an action or a failure."""
    details = event.details or {}
    error = details.get("error")
    found = details.get("reason") or (error.get("message") if isinstance(error, dict) else None)
    return str(found or "")


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else plain_json(value)
    return text if len(text) <= 40 else text[:39] + "…"


def actor_of(event: Event) -> str:
    """Return the actor, as `admin as user` while impersonating."""
    if event.impersonator_id and event.impersonator_id != event.actor_id:
        return f"{event.impersonator_id} as {event.actor_id or '?'}"
    return event.actor_id or "-"


def origin_of(event: Event) -> str:
    """Return whether a trigger captured an event from a row, or a call recorded it."""
    return "recorded" if event.captured_from is None else "captured"
