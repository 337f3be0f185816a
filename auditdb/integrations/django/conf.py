"""The setting AUDITDB of a project."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

# What EVENTS may hold. Those of the second line a table shows as well, once it is attached.
GROUPS = ("login", "logout", "impersonation", "recovery_code")
SHOWN_BY_TABLES = ("password", "email", "two_factor")


@dataclass(frozen=True)
class Settings:
    """What AUDITDB says, in lower case; docs/django.md says what each means."""

    get_context: str = "auditdb.integrations.django.get_context"
    databases: Collection[str] | None = None
    proxies: int = 0
    events: Collection[str] = GROUPS
    attach: bool = True
    mapping: str | Path | None = None


@lru_cache(maxsize=1)
def current() -> Settings:
    """Return the settings in force.

    Raises:
        ImproperlyConfigured: a name is misspelt, or a value is invalid.
    """
    given: Any = getattr(settings, "AUDITDB", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("AUDITDB is a dict, such as {'PROXIES': 1}")
    known = [field.name.upper() for field in fields(Settings)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name).upper(), known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It may hold {', '.join(known)}"
            raise ImproperlyConfigured(f"AUDITDB has no {name!r}. {hint}")
    found = Settings(**{name.lower(): value for name, value in given.items()})
    every = (*GROUPS, *SHOWN_BY_TABLES)
    for name in found.events or ():
        if name not in every:
            raise ImproperlyConfigured(
                f"AUDITDB['EVENTS'] holds {name!r}; it may hold {', '.join(every)}"
            )
    return found


def covers(alias: str, vendor: str) -> bool:
    """Return whether auditdb serves a database of the project."""
    chosen = current().databases
    return vendor == "postgresql" and (chosen is None or alias in chosen)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "AUDITDB":
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="auditdb")
