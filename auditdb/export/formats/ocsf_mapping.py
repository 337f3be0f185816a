"""The mapping of actions and results in ocsf.toml."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """The common part of all events of one action and result.

    Attributes:
        head: the members that are the same for all of them, without the closing brace.
        parts: names of the functions that make the other members.
    """

    head: str
    parts: tuple[str, ...]


@cache
def mapping() -> dict[str, Any]:
    """Return the content of ocsf.toml."""
    return tomllib.loads(files(__package__).joinpath("ocsf.toml").read_text("utf-8"))


def meaning_of(action: str, *, has_target: bool) -> tuple[str, int, str, int]:
    """Return class, activity, name of the activity and severity of an action."""
    data = mapping()
    verb = action.rpartition(".")[2]
    named = data["action"].get(action) or (data["verb"].get(verb) if has_target else None)
    if named is None:
        other = data["otherwise"]["with_target" if has_target else "without_target"]
        named = {"is": [other, 99, verb.replace("_", " ").capitalize() or "Other"]}
    class_name, activity, *names = named["is"]
    name = names[0] if names else data["class"][class_name]["activities"][str(activity)]
    return class_name, activity, name, named.get("severity", 1)


@lru_cache(maxsize=4096)
def case_of(action: str, result: str, has_target: bool) -> Case:
    """Return the common part of all events of an action and a result."""
    data = mapping()
    class_name, activity, activity_name, severity = meaning_of(action, has_target=has_target)
    its = data["class"][class_name]
    known = data["result"].get(result, {"status": [99, result], "severity": 1})
    severity = max(severity, known["severity"])
    status_id, status = known["status"]
    members = {
        "class_uid": its["uid"],
        "class_name": its["caption"],
        "category_uid": its["category"][0],
        "category_name": its["category"][1],
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": its["uid"] * 100 + activity,
        "type_name": f"{its['caption']}: {its['activities'][str(activity)]}",
        "severity_id": severity,
        "severity": data["severity"][str(severity)],
        "status_id": status_id,
        "status": status,
        "status_code": result,
    }
    head = json.dumps(members, ensure_ascii=False, separators=(",", ":")).removesuffix("}")
    return Case(head, tuple(its["attributes"]))
