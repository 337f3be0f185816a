"""Lazy public modules: their names are loaded from other modules on first use.

Their functions refuse a misspelt argument, and suggest the nearest one.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from auditdb.values.arguments import names_nearest


def door(module: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module.

    Args:
        module: its name.
        names: for each other module, the public names.
    """
    homes = {name: home for home, its in names.items() for name in its}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        if inspect.isfunction(value):
            value = names_nearest(value)
        setattr(sys.modules[module], name, value)
        return value

    return load
