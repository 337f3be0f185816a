"""Names instead of ids: those that the host knows, and those that stand in the values of events."""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from anyio import fail_after
from psycopg.sql import SQL, Composed

from auditdb.connection.begin import Statement
from auditdb.errors import InvalidInput
from auditdb.mapping.vocabulary import called
from auditdb.read.event import Event

# For a kind of object (user, api_key, workflow …) and ids of it: how those that are known are
# called.
Names: TypeAlias = Callable[[str, Sequence[str]], Mapping[str, str] | Awaitable[Mapping[str, str]]]
# For a text that was searched: ids of whatever is called so.
Search: TypeAlias = Callable[[str], Iterable[str] | Awaitable[Iterable[str]]]
Known: TypeAlias = dict[tuple[str, str], str]

_log = logging.getLogger("auditdb.web")
_LONGEST_NAME = 120
_LOOKED_AT = 20_000
# Maximum number of ids for a text.
_MOST_FOUND = 10_000
_SURROGATE = re.compile("[\ud800-\udfff]")


def ids_in(events: Iterable[Event]) -> set[tuple[str, str]]:
    """Return kind and id of each person and object of some events."""
    found: set[tuple[str, str]] = set()
    for event in events:
        if event.actor_id and event.actor_type in ("user", "api_key"):
            found.add((event.actor_type, event.actor_id))
        for person in (event.impersonator_id, event.subject_id):
            if person:
                found.add(("user", person))
        if event.target_type and event.target_id:
            found.add((event.target_type, event.target_id))
    return found


def names_in(events: Iterable[Event]) -> Known:
    """Return what the values of events say that their objects are called, the newest name."""
    found: Known = {}
    for event in sorted(events, key=lambda event: (event.occurred_at, event.id)):
        # A part does not have the name of its whole.
        if not event.target_type or not event.target_id or "row_id" in (event.details or {}):
            continue
        for image in (event.old_values, event.new_values):
            name = name_of(image)
            if name:
                found[event.target_type, event.target_id] = name
    return found


def name_of(image: Mapping[str, Any] | None) -> str | None:
    """Return the name of a row from its values: prefer a name to an address; never a role.

    >>> name_of({"email": "ann@example.com", "name": "Ann", "role": "OWNER"})
    'Ann'
    """
    for column, value in called(image or {}):
        if "role" not in column.lower() and isinstance(value, str):
            return value[:_LONGEST_NAME]
    return None


async def ask_names(
    names: Names | None, wanted: Iterable[tuple[str, str]], seconds: float
) -> Known:
    """Return the names that the host knows, a call for each kind, in so many seconds in all."""
    if names is None:
        return {}
    by_kind: dict[str, list[str]] = {}
    for kind, found in sorted(wanted):
        by_kind.setdefault(kind, []).append(found)
    known: Known = {}
    ends = time.monotonic() + seconds
    for kind, ids in by_kind.items():
        try:
            with fail_after(max(ends - time.monotonic(), 0)):
                answer = names(kind, ids)
                named = dict(await answer if inspect.isawaitable(answer) else answer)
            known |= {
                (kind, str(found)): str(name)[:_LONGEST_NAME]
                for found, name in named.items()
                if name
            }
        except Exception:  # Ids tell who did what, too.
            _log.exception("names(%r, …) of the application failed", kind)
    return known


async def ask_search(search: Search | None, text: str | None, seconds: float) -> list[str]:
    """Return ids of what the host knows by a text, in so many seconds.

    Raises:
        InvalidInput: it knows too many things by it.
    """
    if search is None or not text:
        return []
    with fail_after(seconds):
        answer = search(text)
        found = await answer if inspect.isawaitable(answer) else answer
    if isinstance(found, str | bytes):
        raise TypeError(f"search returned a {type(found).__name__}; it returns ids")
    ids = [str(one) for one in islice(found, _MOST_FOUND + 1)]
    if len(ids) > _MOST_FOUND:
        raise InvalidInput(
            f"more than {_MOST_FOUND} people and objects match; give a longer part of the name"
        )
    # No event contains a text that PostgreSQL cannot store.
    return [one for one in ids if "\0" not in one and not _SURROGATE.search(one)]


def naming_query(wanted: Iterable[tuple[str, str]], organization_id: str | None) -> Statement:
    """Return the query of events whose values may say what objects are called, of the newest."""
    where = SQL(
        "where organization_id = %(organization_id)s " if organization_id is not None else ""
    )
    query: Composed = SQL(
        "with looked_at as materialized ("
        "select occurred_at, id, target_id = any(%(ids)s) as passes from audit.event {}"
        "order by occurred_at desc, id desc limit %(most)s) "
        "select e.target_type, e.target_id, e.old_values, e.new_values "
        "from (select occurred_at, id from looked_at where passes "
        "order by occurred_at desc, id desc limit 500) as f cross join lateral ("
        "select * from audit.event as e where e.occurred_at = f.occurred_at and e.id = f.id) as e "
        "where e.captured_from is not null "
        "and (e.details is null or e.details -> 'row_id' is null) "
        "and coalesce(pg_column_size(e.old_values), 0) < 4000 "
        "and coalesce(pg_column_size(e.new_values), 0) < 4000 "
        "and coalesce(octet_length(e.old_values::text), 0) < 4000 "
        "and coalesce(octet_length(e.new_values::text), 0) < 4000"
    ).format(where)
    return query, {"ids": sorted({found for _, found in wanted}), "most": _LOOKED_AT,
                   "organization_id": organization_id}  # fmt: skip
