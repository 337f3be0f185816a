"""The vocabulary of secrets, vocabulary.toml: what names say, as SQL and detection read it."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from functools import cache
from typing import Any

VOCABULARY: dict[str, Any] = tomllib.loads(
    importlib.resources.files("auditdb").joinpath("vocabulary.toml").read_text("utf-8")
)


@cache
def _pattern(entry: str) -> re.Pattern[str]:
    return re.compile("|".join(VOCABULARY[entry]), re.ASCII)


@cache
def _secret() -> re.Pattern[str]:
    return re.compile(
        "|".join(p for word, of_word in VOCABULARY["secret"].items() for p in of_word or [word]),
        re.ASCII,
    )


@cache
def normal_name(name: str) -> str:
    """Return a name in lower case with its words apart by "_".

    >>> normal_name("clientSecret"), normal_name("X-API-Key"), normal_name("APIKey")
    ('client_secret', 'x_api_key', 'api_key')
    """
    name = re.sub("([a-z0-9])([A-Z])", r"\1_\2", name)
    name = re.sub("([A-Z])([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"[\x01-/:-@\[-`{-\x7f]+", "_", name)
    return re.sub("[A-Z]", lambda found: found[0].lower(), name)


def says(entry: str, name: str) -> bool:
    """Return whether a name, in whatever spelling, is among an entry of the vocabulary."""
    return _pattern(entry).search(normal_name(name)) is not None


def is_secret(name: str) -> bool:
    """Return whether attach redacts a column of this name unasked: audit.is_secret in Python.

    `auditdb detect` runs where auditdb is not installed yet.

    >>> is_secret("key_hash"), is_secret("token_type"), is_secret("name")
    (True, False, False)
    """
    said = normal_name(name)
    return _secret().search(said) is not None and _pattern("except").search(said) is None
