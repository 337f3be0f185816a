"""Names of arguments: a misspelt one is refused with the one that was meant, not recorded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

# Columns of the log, each of which the log fills itself or from an argument of that name.
COLUMNS = frozenset(
    "occurred_at transaction_id action result actor_id actor_type impersonator_id db_user "
    "organization_id target_type target_id subject_id source captured_from old_values new_values "
    "details db_role".split()
)
# Their values, as audit.record_event takes them.
RESULTS = ("success", "failure", "denied")
ACTOR_TYPES = ("user", "api_key", "system", "database")
# What people write for columns.
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
    else:
        hint = f"Its arguments are {', '.join(sorted(known))}"
    return TypeError(f"{function} has no argument '{name}'. {hint}")


def check_details(function: str, details: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse a detail whose name is, or is nearly, that of an argument or of a column.

    Raises:
        TypeError: with the argument that was meant.
    """
    for name in details:
        problem = _problem(function, name, known)
        if problem is not None:
            raise TypeError(problem)


@lru_cache(1000)
def _problem(function: str, name: str, known: frozenset[str]) -> str | None:
    """Return why a detail may not have this name; the same few names come again and again."""
    snake = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if snake == "details":
        return f"{function} has no argument '{name}'. Give each detail as an argument: ip=..."
    suggestion = ALIASES.get(snake) or (snake if snake in COLUMNS | known else None)
    if suggestion is None:
        near = difflib.get_close_matches(snake, sorted(known), 1, 0.88)
        suggestion = near[0] if near else None
    if suggestion in known:
        return f"{function} has no argument '{name}'. Did you mean '{suggestion}'?"
    if suggestion in COLUMNS:
        return (
            f"{function} has no argument '{suggestion}', which is a column of the log and no "
            "detail. auditdb.context sets who acts, auditdb.record the rest"
        )
    return None
