"""What a reader is asked for: filters, turned into conditions of SQL."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, TypedDict

from psycopg.sql import SQL, Composable

from auditdb.errors import InvalidInput
from auditdb.values.arguments import ALIASES, RESULTS, unknown_argument
from auditdb.values.convert import Id, as_text

Moment: TypeAlias = datetime | date | str


class Filters(TypedDict, total=False):
    """Which events are read; an event must pass all that are given."""

    action: str | None
    category: str | None
    actor_id: Id | None
    target_type: str | None
    target_id: Id | None
    subject_id: Id | None
    result: str | None
    source: str | None
    since: Moment | None
    until: Moment | None
    baseline: bool


_CONDITIONS = {
    "action": SQL("action = %(action)s"),
    # A prefix as a range, as LIKE is not leakproof: by bytes, "/" follows upon ".".
    "category": SQL("action > %(category)s and action < %(category_end)s"),
    "actor_id": SQL("(actor_id = %(actor_id)s or impersonator_id = %(actor_id)s)"),
    "target_type": SQL("target_type = %(target_type)s"),
    "target_id": SQL("target_id = %(target_id)s"),
    "subject_id": SQL("subject_id = %(subject_id)s"),
    "result": SQL("result = %(result)s"),
    "source": SQL("source = %(source)s"),
    "since": SQL("occurred_at >= %(since)s"),
    "until": SQL("occurred_at < %(until)s"),
}
# Nobody did these: the rows were there already.
_APART = SQL("(captured_from is null or action not like '%%.baseline')")
# The filter of the actor finds what was done by an impersonator as well.
_ALIASES = {**ALIASES, "impersonator_id": "actor_id"}


def refuse_unknown(filters: Filters) -> None:
    """Refuse a misspelt filter with the one that was meant.

    Raises:
        TypeError: a name is no filter.
    """
    for name in filters.keys() - {"baseline", *_CONDITIONS}:
        raise unknown_argument(
            "a reader", name, {"limit", "after", "batch", "baseline", *_CONDITIONS}, _ALIASES
        )


def filter_conditions(
    action: str | None = None,
    category: str | None = None,
    actor_id: Id | None = None,
    target_type: str | None = None,
    target_id: Id | None = None,
    subject_id: Id | None = None,
    result: str | None = None,
    source: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    baseline: bool = False,
) -> tuple[list[Composable], dict[str, Any]]:
    """Return the conditions of the filters that are given, and their values.

    Raises:
        InvalidInput: an invalid filter.
    """
    if action is not None and not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", action):
        raise InvalidInput(f"action is {action!r}; give category.verb, such as auth.login")
    if category is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", category):
        raise InvalidInput(f"category is {category!r}; give what precedes the dot, such as auth")
    if result is not None and result not in RESULTS:
        raise InvalidInput(f"result is {result!r}; it is one of {', '.join(RESULTS)}")
    values = {
        "action": action,
        "category": category and f"{category}.",
        "category_end": category and f"{category}/",
        "actor_id": as_text("actor_id", actor_id),
        "target_type": as_text("target_type", target_type),
        "target_id": as_text("target_id", target_id),
        "subject_id": as_text("subject_id", subject_id),
        "result": result,
        "source": as_text("source", source),
        "since": as_moment("since", since),
        "until": as_moment("until", until),
    }
    conditions: list[Composable] = [
        _CONDITIONS[name] for name in _CONDITIONS if values[name] is not None
    ]
    if not baseline and not (action or "").endswith(".baseline"):
        conditions.append(_APART)
    return conditions, values


def as_moment(name: str, value: Moment | None) -> datetime | None:
    """Return a time with its zone.

    Raises:
        InvalidInput: it is none, or in no zone.

    >>> as_moment("since", "2026-01-31").isoformat()
    '2026-01-31T00:00:00+00:00'
    """
    if value is None:
        return None
    hint = "give a date (midnight UTC), or a time with its zone, such as 2026-01-31T09:00+00:00"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
        except ValueError:
            raise InvalidInput(f"{name} is {value!r}; {hint}") from None
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.utcoffset() is None:
        raise InvalidInput(f"{name} is {value.isoformat()}, in no time zone; {hint}")
    return value
