"""Names of arguments: a misspelt one is refused with the one that was meant, not recorded."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any

from auditdb.errors import InvalidInput

# Values of columns, as audit.record_event takes them.
RESULTS = ("success", "failure", "denied")
ACTOR_TYPES = ("user", "api_key", "system", "database")
# Common wrong names of arguments, with the right ones.
ALIASES = {
    "actor": "actor_id",
    "user": "actor_id",
    "user_id": "actor_id",
    "impersonator": "impersonator_id",
    "impersonated_by": "impersonator_id",
    "admin_id": "impersonator_id",
    "org": "organization_id",
    "org_id": "organization_id",
    "organization": "organization_id",
    "organisation": "organization_id",
    "organisation_id": "organization_id",
    "target": "target_id",
    "subject": "subject_id",
}


def as_list(name: str, given: Sequence[str] | None) -> list[str] | None:
    """Return texts as a list; refuse a single string, which would become a list of letters."""
    if isinstance(given, str):
        raise InvalidInput(f"{name} is a string; give a list: [{given!r}]")
    return None if given is None else list(given)


def unknown_argument(
    function: str, name: str, known: Collection[str], suggestion: Mapping[str, str]
) -> TypeError:
    """Return the error for an argument that a function does not have.

    >>> unknown_argument("record()", "actr_id", ["actor_id"], {})
    TypeError("record() has no argument 'actr_id'. Did you mean 'actor_id'?")
    """
    near = suggestion.get(name) or next(
        iter(difflib.get_close_matches(name, sorted(known), 1)), None
    )
    if near is not None and near in known:
        hint = f"Did you mean '{near}'?"
    elif "details" in known:
        hint = f"Its arguments are {', '.join(sorted(known))}; what else an event says goes into "
        hint += f"details={{'{name}': ...}}"
    else:
        hint = f"Its arguments are {', '.join(sorted(known))}"
    return TypeError(f"{function} has no argument '{name}'. {hint}")


def names_nearest(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that refuses a misspelt argument with the one that was meant.

    >>> names_nearest(unknown_argument)(functoin="record()")
    Traceback (most recent call last):
    TypeError: unknown_argument() has no argument 'functoin'. Did you mean 'function'?
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return function  # It accepts any names, and checks them itself.

    @wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        for name in named:
            if name not in parameters:
                raise unknown_argument(f"{function.__name__}()", name, parameters, ALIASES)
        return function(*args, **named)

    return checked
