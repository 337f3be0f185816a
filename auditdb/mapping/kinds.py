"""The built-in kinds, from kinds.toml."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass, field
from typing import Any

OPTIONS = ("organization", "target_id", "subject", "alive", "parent", "ignore", "redact")
VERBS = ("created", "updated", "deleted", "prepared", "purged")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind, as a row of the table audit.kind."""

    name: str
    description: str
    verbs: dict[str, str]
    facts: dict[str, str] = field(default_factory=dict)
    target_type: str
    options: tuple[str, ...] = OPTIONS
    subject: str | None = None
    target: str | None = None
    credentials: bool | None = None


def _kind(name: str, given: dict[str, Any]) -> Kind:
    verbs = {verb: f"{name}.{verb}" for verb in VERBS} if given.get("verbs") != {} else {}
    known = {key: value for key, value in given.items() if key not in ("verbs", "options")}
    return Kind(
        name=name,
        verbs=verbs | given.get("verbs", {}),
        options=tuple(given.get("options", OPTIONS)),
        **{"target_type": name, **known},
    )


KINDS: dict[str, Kind] = {
    name: _kind(name, given)
    for name, given in tomllib.loads(
        importlib.resources.files("auditdb.mapping").joinpath("kinds.toml").read_text("utf-8")
    )["kind"].items()
}
