"""The filters of a reader, and their SQL conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, TypedDict, Unpack, cast

from psycopg.sql import SQL, Composable, Identifier, Placeholder

from auditdb.errors import InvalidInput
from auditdb.values.arguments import ACTOR_TYPES, ALIASES, RESULTS, unknown_argument
from auditdb.values.convert import Id, as_text

Moment: TypeAlias = datetime | date | str


class Filters(TypedDict, total=False):
    """Which events are read; an event must pass all that are given."""

    action: str | None
    category: str | None
    person_id: Id | None
    actor_id: Id | None
    actor_type: str | None
    target_type: str | None
    target_id: Id | None
    subject_id: Id | None
    result: str | None
    source: str | None
    ip: str | None
    transaction_id: int | None
    series_id: int | None
    text: str | None
    text_ids: Sequence[Id] | None
    since: Moment | None
    until: Moment | None
    baseline: bool


# Filters that compare the column of the same name, here and in the archive.
EQUAL = ("action", "actor_type", "target_type", "target_id", "subject_id", "result", "source")
_CONDITIONS: dict[str, Composable] = {
    **{name: SQL("{} = {}").format(Identifier(name), Placeholder(name)) for name in EQUAL},
    # A prefix as a range, because LIKE is not leakproof. In byte order, "/" follows ".".
    "category": SQL("action > %(category)s and action < %(category_end)s"),
    "person_id": SQL(
        "(actor_id = %(person_id)s or impersonator_id = %(person_id)s"
        " or subject_id = %(person_id)s)"
    ),
    "actor_id": SQL("(actor_id = %(actor_id)s or impersonator_id = %(actor_id)s)"),
    "ip": SQL("details ->> 'ip' = %(ip)s"),
    "transaction_id": SQL("transaction_id = %(transaction_id)s::text::xid8"),
    # A series ends where the next one with other transactions begins.
    "series_id": SQL(
        "id > (select after_id from audit.series where id = %(series_id)s) and id <= coalesce("
        "(select min(after_id) from audit.series where id > %(series_id)s and began <> 'continued')"
        ", 9223372036854775807)"
    ),
    # Long values are not names, and would be slow to search.
    "text": SQL(
        "(actor_id = any(%(text_ids)s) or impersonator_id = any(%(text_ids)s)"
        " or subject_id = any(%(text_ids)s) or target_id = any(%(text_ids)s)"
        " or strpos(lower(concat_ws(' ', action, actor_id, impersonator_id, subject_id, target_id,"
        " case when pg_column_size(new_values) < 4000 then new_values end,"
        " case when pg_column_size(old_values) < 4000 then old_values end,"
        " case when pg_column_size(details) < 4000 then details end)), lower(%(text)s)) > 0)"
    ),
    "since": SQL("occurred_at >= %(since)s"),
    "until": SQL("occurred_at < %(until)s"),
}
OF_TIME = (_CONDITIONS["since"], _CONDITIONS["until"])
# Baseline events are not actions: the rows existed already.
_APART = SQL("(captured_from is null or action not like '%%.baseline')")
# The filter of the actor finds what was done by an impersonator as well.
_ALIASES = {**ALIASES, "impersonator_id": "actor_id"}
# What is kept of a text and of a list in an event that says by which filters somebody read.
_LONGEST, _MOST = 200, 20


def refuse_unknown(filters: Filters) -> None:
    """Refuse a misspelt filter, and suggest the nearest one.

    Raises:
        TypeError: there is no filter of this name.
    """
    for name in filters.keys() - {"baseline", "text_ids", *_CONDITIONS}:
        raise unknown_argument(
            "a reader",
            name,
            {"limit", "after", "before", "within", "batch", "baseline", *_CONDITIONS},
            _ALIASES,
        )


def filter_conditions(**filters: Unpack[Filters]) -> tuple[list[Composable], dict[str, Any]]:
    """Return the conditions of the filters that are given, and their values.

    Raises:
        InvalidInput: an invalid filter.
    """
    action, category = filters.get("action"), filters.get("category")
    if action is not None and not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", action):
        raise InvalidInput(f"action is {action!r}; give category.verb, such as auth.login")
    if category is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", category):
        raise InvalidInput(f"category is {category!r}; give what precedes the dot, such as auth")
    for name, known in (("result", RESULTS), ("actor_type", ACTOR_TYPES)):
        if (given := filters.get(name)) is not None and given not in known:
            raise InvalidInput(f"{name} is {given!r}; it is one of {', '.join(known)}")
    values: dict[str, Any] = {
        name: _VALUES.get(name, as_text)(name, cast(Any, filters.get(name))) for name in _CONDITIONS
    }
    values["category"] = category and f"{category}."
    values["category_end"] = category and f"{category}/"
    values["text"] = values["text"] or None
    values["text_ids"] = [as_text("text_ids", found) for found in filters.get("text_ids") or ()]
    conditions = [_CONDITIONS[name] for name in _CONDITIONS if values[name] is not None]
    if not filters.get("baseline") and action is None:
        conditions.append(_APART)
    return conditions, values


def as_number(name: str, value: int | str | None) -> int | None:
    """Return a whole number from 0 to the maximum of bigint.

    Raises:
        InvalidInput: it is not such a number.
    """
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        raise InvalidInput(f"{name} is {value!r}; give a whole number")
    return number


def as_moment(name: str, value: Moment | None) -> datetime | None:
    """Return a time with its zone.

    Raises:
        InvalidInput: it is not a time, or has no zone.

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
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{name} is {value.isoformat()}, which is no time of UTC") from None


# How each is read that is no text.
_VALUES: dict[str, Callable[[str, Any], Any]] = {
    "transaction_id": as_number, "series_id": as_number, "since": as_moment, "until": as_moment,
}  # fmt: skip


def shown_filters(filters: Filters) -> dict[str, Any]:
    """Return the filters that are given as an event shows them.

    >>> shown_filters({"action": "auth.login", "actor_id": None, "baseline": False})
    {'action': 'auth.login'}
    """
    return {name: _shown(value) for name, value in filters.items() if value}


def _shown(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(part) for part in list(value)[:_MOST]]
    return value if isinstance(value, bool | int) else str(value)[:_LONGEST]
