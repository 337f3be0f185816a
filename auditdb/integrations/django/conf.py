"""The setting AUDITDB of a project."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

# Allowed values of EVENTS. Attached tables also show those in the second line.
GROUPS = ("login", "logout", "impersonation", "recovery_code")
SHOWN_BY_TABLES = ("password", "email", "two_factor")


@dataclass(frozen=True)
class Settings:
    """The setting AUDITDB with names in lower case; docs/django.md explains each."""

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
    _check_names("EVENTS", found.events, (*GROUPS, *SHOWN_BY_TABLES))
    _check_names("DATABASES", found.databases, settings.DATABASES)
    if type(found.proxies) is not int or found.proxies < 0:
        raise ImproperlyConfigured(
            f"AUDITDB['PROXIES'] is {found.proxies!r}; it is a number, such as 1"
        )
    if not isinstance(found.attach, bool):
        raise ImproperlyConfigured(f"AUDITDB['ATTACH'] is {found.attach!r}; it is True or False")
    return found


def _check_names(name: str, given: Any, known: Collection[str]) -> None:
    """Refuse a value that is not a list, or has an unknown name."""
    if isinstance(given, str):
        raise ImproperlyConfigured(f"AUDITDB[{name!r}] is {given!r}; it is a list: [{given!r}]")
    for item in given or ():
        if item not in known:
            raise ImproperlyConfigured(
                f"AUDITDB[{name!r}] holds {item!r}; it may hold {', '.join(known)}"
            )


def get_context() -> Callable[..., Any]:
    """Return the function that `GET_CONTEXT` names.

    Raises:
        ImproperlyConfigured: there is no such function.
    """
    path = current().get_context
    try:
        found = import_string(path)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"AUDITDB['GET_CONTEXT'] is {path!r}; it is the path of a function, such as "
            f"'shop.audit.get_context' ({error})"
        ) from error
    if not callable(found):
        raise ImproperlyConfigured(f"AUDITDB['GET_CONTEXT'] is {path!r}, which is not a function")
    return found  # type: ignore[no-any-return]


def covers(alias: str, vendor: str) -> bool:
    """Return whether auditdb applies to a database of the project."""
    chosen = current().databases
    return vendor == "postgresql" and (chosen is None or alias in chosen)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "AUDITDB":
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="auditdb")
