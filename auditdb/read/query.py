"""What a reader asks for and gets: filters turned into SQL, events, pages and their cursors."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, TypeAlias, TypedDict

from psycopg.sql import SQL, Composable, Identifier

from auditdb.connection.begin import Row, Statement
from auditdb.errors import InvalidInput
from auditdb.values.arguments import unexpected
from auditdb.values.convert import Id, as_text

Moment: TypeAlias = datetime | date | str

_RESULTS = ("success", "failure", "denied")
_LONGEST_PAGE = 10_000


class Filters(TypedDict, total=False):
    """Which events are read; an event must pass all that are given."""

    action: str | None
    category: str | None
    actor: Id | None
    target_type: str | None
    target_id: Id | None
    subject: Id | None
    result: str | None
    source: str | None
    since: Moment | None
    until: Moment | None


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

    @property
    def category(self) -> str:
        """The part of the action before the dot."""
        return self.action.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, newest first, and the cursor of those that come after them, if any do."""

    events: list[Event]
    next: str | None


# Months before the newest that a page may begin with, in which its events are looked for first.
_WINDOWS = (1, 7, 31)
_NEWEST_FIRST = SQL("order by occurred_at desc, id desc limit %(limit)s")
_COLUMNS = SQL(", ").join(
    SQL("transaction_id::text::bigint as transaction_id")
    if field.name == "transaction_id"
    else Identifier(field.name)
    for field in fields(Event)
)

_CONDITIONS = {
    "action": SQL("action = %(action)s"),
    # A prefix as a range, as LIKE is not leakproof: by bytes, "/" follows upon ".".
    "category": SQL("action > %(category)s and action < %(category_end)s"),
    "actor": SQL("(actor_id = %(actor)s or impersonator_id = %(actor)s)"),
    "target_type": SQL("target_type = %(target_type)s"),
    "target_id": SQL("target_id = %(target_id)s"),
    "subject": SQL("subject_id = %(subject)s"),
    "result": SQL("result = %(result)s"),
    "source": SQL("source = %(source)s"),
    "since": SQL("occurred_at >= %(since)s"),
    "until": SQL("occurred_at < %(until)s"),
}


def page_query(
    limit: int, after: str | None, filters: Filters, organization: str | None = None
) -> Statement:
    """Return the query of one page, which asks for one event more than the page holds.

    It reads the newest months, and older ones only if these do not fill the page. Conditions
    compare text with text and time with time: other operators are not leakproof, and row-level
    security would keep them away from any index.

    Raises:
        InvalidInput: an invalid limit, cursor or filter.
    """
    if isinstance(limit, bool) or not 1 <= limit <= _LONGEST_PAGE:
        raise InvalidInput(f"a page cannot hold {limit} events; give 1 to {_LONGEST_PAGE}")
    _refuse_unknown(filters)
    conditions, values = _conditions(**filters)
    if organization is not None:
        conditions.append(SQL("organization_id = %(organization)s"))
        values["organization"] = organization
    now = datetime.now(UTC)
    latest = min(values["until"] or now, now)
    if after is not None:
        # The first comparison is implied by the second, and prunes partitions, as it cannot.
        conditions.append(
            SQL("occurred_at <= %(after_at)s and (occurred_at, id) < (%(after_at)s, %(after_id)s)")
        )
        values["after_at"], values["after_id"] = latest, _ = _read_cursor(after)
    since = values["since"]
    starts = [start for start in _months_before(latest) if since is None or start > since]
    values |= {f"start_{n}": start for n, start in enumerate(starts)}
    windows = [_window(n, len(starts), conditions) for n in range(len(starts) + 1)]
    found = SQL(" union all ").join(SQL(f"select * from window_{n}") for n in range(len(windows)))
    query = SQL("with {} {} {}").format(SQL(", ").join(windows), found, _NEWEST_FIRST)
    return query, {**values, "limit": limit + 1}


def _months_before(latest: datetime) -> list[datetime]:
    """Return starts of months: the log is partitioned by these, although any would be correct."""
    months = latest.year * 12 + latest.month - 1
    starts = [divmod(months - back, 12) for back in _WINDOWS]
    return [datetime(year, month + 1, 1, tzinfo=UTC) for year, month in starts if year >= 1]


def _window(number: int, last: int, conditions: list[Composable]) -> Composable:
    """Return the part of a page's query that reads some months, if those before are not enough."""
    conditions = [*conditions]
    if number < last:
        conditions.append(SQL(f"occurred_at >= %(start_{number})s"))
    if number > 0:
        conditions.append(SQL(f"occurred_at < %(start_{number - 1})s"))
    where = SQL("where {} ").format(SQL(" and ").join(conditions)) if conditions else SQL("")
    events = SQL("select {} from audit.event {}{}").format(_COLUMNS, where, _NEWEST_FIRST)
    if number > 0:
        # The planner reckons with the limit within; at 0, that without reads nothing at all.
        counts = SQL(" - ").join(SQL(f"(select count(*) from window_{n})") for n in range(number))
        events = SQL("select * from ({}) as e limit %(limit)s - {}").format(events, counts)
    return SQL("{} as materialized ({})").format(Identifier(f"window_{number}"), events)


def page_of(rows: list[Row], limit: int) -> Page:
    """Return the page that the rows of `page_query` make."""
    events = [Event(**row) for row in rows[:limit]]
    return Page(events=events, next=_cursor(events[-1]) if len(rows) > limit else None)


def _refuse_unknown(filters: Filters) -> None:
    for name in filters.keys() - _CONDITIONS.keys():
        raise unexpected("a reader", name, {"limit", "after", "batch", *_CONDITIONS}, _MEANT)


# What a column is called whose filter has another name.
_MEANT = {"actor_id": "actor", "impersonator_id": "actor", "subject_id": "subject"}


def _conditions(
    action: str | None = None,
    category: str | None = None,
    actor: Id | None = None,
    target_type: str | None = None,
    target_id: Id | None = None,
    subject: Id | None = None,
    result: str | None = None,
    source: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> tuple[list[Composable], dict[str, Any]]:
    if action is not None and not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", action):
        raise InvalidInput(f"action is {action!r}; give category.verb, such as auth.login")
    if category is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", category):
        raise InvalidInput(f"category is {category!r}; give what precedes the dot, such as auth")
    if result is not None and result not in _RESULTS:
        raise InvalidInput(f"result is {result!r}; give one of {', '.join(_RESULTS)}")
    values = {
        "action": action,
        "category": category and f"{category}.",
        "category_end": category and f"{category}/",
        "actor": as_text("actor", actor),
        "target_type": as_text("target_type", target_type),
        "target_id": as_text("target_id", target_id),
        "subject": as_text("subject", subject),
        "result": result,
        "source": as_text("source", source),
        "since": as_moment("since", since),
        "until": as_moment("until", until),
    }
    return [_CONDITIONS[name] for name in _CONDITIONS if values[name] is not None], values


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


def _cursor(event: Event) -> str:
    place = f"{event.occurred_at.astimezone(UTC).isoformat()} {event.id}"
    return urlsafe_b64encode(place.encode()).rstrip(b"=").decode()


def _read_cursor(text: str) -> tuple[datetime, int]:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        time, number = urlsafe_b64decode(padded).decode("ascii").split(" ")
        at, event_id = datetime.fromisoformat(time), int(number)
    except (ValueError, binascii.Error):
        at, event_id = datetime.min, 0
    if at.utcoffset() is None or not 0 <= event_id < 2**63:
        raise InvalidInput(f"{text[:40]!r} is no cursor; give `next` of the page before")
    return at, event_id
