"""A claim: actor and origin, checked, without secrets, in the form for the server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict

from auditdb.errors import InvalidInput
from auditdb.values.arguments import ACTOR_TYPES, ALIASES, unknown_argument
from auditdb.values.convert import Id, as_text
from auditdb.values.details import details_without_secrets

_encode = json.JSONEncoder(ensure_ascii=False).encode


class ContextFields(TypedDict, total=False):
    """What a context says: see `auditdb.context`."""

    actor_id: Id | None
    actor_type: str | None
    impersonator_id: Id | None
    source: str | None
    organization_id: Id | None
    details: Mapping[str, Any] | None


_NAMES = ContextFields.__annotations__.keys()
_TEXTS = ("actor_id", "actor_type", "impersonator_id", "source", "organization_id")


@dataclass(frozen=True)
class Claim:
    """Actor and origin as text; None for values that are not claimed."""

    actor_id: str | None = None
    actor_type: str | None = None
    impersonator_id: str | None = None
    source: str | None = None
    organization_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def with_inner(self, inner: Claim) -> Claim:
        """Return the claim of a nested context, which inherits missing values.

        >>> Claim(actor_id="7", source="api").with_inner(Claim(actor_id="8"))
        Claim(actor_id='8', actor_type=None, ..., source='api', ...)
        """
        said = {name: value for name in _TEXTS if (value := getattr(inner, name)) is not None}
        if inner.details:
            said["details"] = {**self.details, **inner.details}
        return replace(self, **said) if said else self

    @cached_property
    def setting(self) -> str:
        """The value of the setting `auditdb.context`, as `audit.set_context` would write it."""
        said: dict[str, Any] = {"actor_type": "user", "source": "web"}
        said |= {name: value for name, value in self.__dict__.items() if value is not None}
        if self.details:
            said["details"] = _without_nulls(dict(self.details))
        else:
            del said["details"]
        return _encode(said)

    def parameters(self) -> dict[str, str | None]:
        """Return what `audit.set_context` takes, with details as a text of JSON."""
        texts = {name: getattr(self, name) for name in _TEXTS}
        return {**texts, "details": json.dumps(self.details)}


def make_claim(function: str, given: ContextFields) -> Claim:
    """Return the checked arguments of a function, without secrets.

    Raises:
        TypeError: an argument is misspelt; the message suggests the nearest.
        InvalidInput: a value is invalid.
    """
    said: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _NAMES:
            raise unknown_argument(function, name, _NAMES, ALIASES)
        if value is not None and name != "details":
            said[name] = _identifier(name, value)
    if "actor_type" in said:
        check_actor_type(said["actor_type"])
    elif "actor_id" in said:
        # Do not inherit the type of another actor.
        said["actor_type"] = "user"
    details = check_mapping("details", given.get("details"))
    if details:
        said["details"] = details_without_secrets(details)
    return Claim(**said)


def check_mapping(name: str, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a given mapping, or None.

    Raises:
        TypeError: it is not a mapping.
    """
    if value is None or isinstance(value, Mapping):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; give a mapping, such as a dict")


def check_actor_type(actor_type: str | None) -> None:
    """Refuse an invalid type of an actor.

    Raises:
        InvalidInput: it is not one of ACTOR_TYPES.
    """
    if actor_type not in (None, *ACTOR_TYPES):
        raise InvalidInput(f"actor_type is {actor_type!r}; it is one of {', '.join(ACTOR_TYPES)}")


def _identifier(name: str, value: Any) -> str:
    text = as_text(name, value)
    if len(text) > 200:
        raise InvalidInput(f"{name} is longer than 200 characters; put long values into details")
    return str(text)


def _without_nulls(value: Any) -> Any:
    """Remove None values, like jsonb_strip_nulls."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
