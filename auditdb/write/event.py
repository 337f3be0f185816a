"""New events without a table, such as a sign-in, and the statement that records them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, LiteralString, TypeAlias, TypedDict

from auditdb.errors import InvalidInput
from auditdb.values.arguments import ALIASES, RESULTS, unknown_argument
from auditdb.values.convert import Id, as_text, json_value
from auditdb.write.claim import Claim, check_actor_type, check_mapping

Parameters: TypeAlias = dict[str, str | None]
# Each name says its schema: the session's search_path is the application's. A text of JSON is cast,
# so that no driver's own idea of JSON matters. Who acts is the event's own, or of the claim in
# Python, or of the context in force on the server, or the default actor.
RECORD: LiteralString = """
select audit.record_event(
    action => %(action)s,
    organization_id => %(organization_id)s,
    target_type => %(target_type)s,
    target_id => %(target_id)s,
    subject_id => %(subject_id)s,
    result => %(result)s,
    actor_id => coalesce(%(actor_id)s, c operator(pg_catalog.->>) 'actor_id',
        case when coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type', 'user')
            operator(pg_catalog.=) 'user' then %(default_actor_id)s end),
    actor_type => coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type',
        %(default_actor_type)s),
    impersonator_id => %(impersonator_id)s,
    source => coalesce(%(source)s, c operator(pg_catalog.->>) 'source', %(default_source)s),
    old_values => cast(cast(%(old_values)s as pg_catalog.text) as pg_catalog.jsonb),
    new_values => cast(cast(%(new_values)s as pg_catalog.text) as pg_catalog.jsonb),
    details => cast(cast(%(details)s as pg_catalog.text) as pg_catalog.jsonb))
from audit.current_context() as c
"""


class EventFields(TypedDict, total=False):
    """The fields of an event besides action and result; see `auditdb.record`."""

    organization_id: Id | None
    target_type: str | None
    target_id: Id | None
    subject_id: Id | None
    actor_id: Id | None
    actor_type: str | None
    impersonator_id: Id | None
    source: str | None
    old_values: Mapping[str, Any] | None
    new_values: Mapping[str, Any] | None
    details: Mapping[str, Any] | None


_NAMES = EventFields.__annotations__.keys()
_TEXTS = tuple(name for name in _NAMES if name not in {"old_values", "new_values", "details"})


@dataclass(frozen=True, kw_only=True)
class NewEvent:
    """An event to be recorded, as the functions of `auditdb.auth` return; checked when it is made.

    Raises:
        InvalidInput: an identifier is no string, integer or UUID; or the result or the type of
            the actor is none.
    """

    action: str
    result: str = "success"
    organization_id: Id | None = None
    target_type: str | None = None
    target_id: Id | None = None
    subject_id: Id | None = None
    actor_id: Id | None = None
    actor_type: str | None = None
    impersonator_id: Id | None = None
    source: str | None = None
    old_values: Mapping[str, Any] | None = None
    new_values: Mapping[str, Any] | None = None
    details: Mapping[str, Any] | None = None
    default_actor_id: Id | None = None
    """The actor if neither event nor context names one, such as the user who signs in."""
    default_actor_type: str | None = None
    """The type of the actor in that case."""

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.result not in RESULTS:
            raise InvalidInput(f"result is {self.result!r}; it is one of {', '.join(RESULTS)}")
        check_actor_type(self.actor_type)
        for name in ("action", *_TEXTS, "default_actor_id"):
            as_text(name, getattr(self, name))
        for name in ("old_values", "new_values", "details"):
            check_mapping(name, getattr(self, name))

    def with_details(self, details: Mapping[str, Any]) -> NewEvent:
        """Return the event with more details."""
        return replace(self, details={**(self.details or {}), **details})

    def parameters(self, claim: Claim | None) -> Parameters:
        """Return the parameters of `RECORD`, each a text, under the claim that is in force."""
        given = {name: as_text(name, getattr(self, name)) for name in _TEXTS}
        if given["actor_id"] is not None and given["actor_type"] is None:
            given["actor_type"] = "user"
        details = self.details
        if claim is not None:
            if given["actor_id"] is None and claim.actor_id is not None:
                given["actor_id"] = claim.actor_id
            for name in ("actor_type", "impersonator_id", "source", "organization_id"):
                if given[name] is None:
                    given[name] = getattr(claim, name)
            details = {**claim.details, **(details or {})} or None
        return {
            **given,
            "action": as_text("action", self.action),
            "result": self.result,
            "default_actor_id": as_text("default_actor_id", self.default_actor_id),
            "default_actor_type": self.default_actor_type or (None if claim is None else "user"),
            "default_source": None if claim is None else "web",
            "old_values": _json(self.old_values),
            "new_values": _json(self.new_values),
            "details": _json(details),
        }


def new_event(
    function: str,
    event: NewEvent | str,
    result: str | None,
    fields: EventFields,
    others: frozenset[str] = frozenset(),
) -> NewEvent:
    """Return the event that a function was given, as one or as an action with fields.

    Args:
        function: what was called, for messages.
        event: the event, or its action.
        result: its result, where an action was given. Default: success.
        fields: its fields, where an action was given.
        others: arguments of the function that are no fields.

    Raises:
        TypeError: a field is misspelt, or given beside an event.
        InvalidInput: as `NewEvent`.
    """
    for name in fields.keys() - _NAMES:
        raise unknown_argument(function, name, _NAMES | others | {"result"}, ALIASES)
    if isinstance(event, NewEvent):
        if fields or result is not None:
            raise TypeError(f"{function} got an event and fields; give the fields to the event")
        return event
    if not isinstance(event, str):
        raise TypeError(
            f"{function} got a {type(event).__name__} for an action; give category.verb, or what a "
            "function of auditdb.auth returns"
        )
    return NewEvent(action=event, result=result or "success", **fields)


def _json(value: Mapping[str, Any] | None) -> str | None:
    """Return a mapping as JSON, whatever it holds: what comes from a request may be anything."""
    return None if value is None else json.dumps(json_value(value))
