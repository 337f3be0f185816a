"""The vocabulary of secrets, vocabulary.toml: what names say, as SQL and detection read it."""

from __future__ import annotations

import importlib.resources
import itertools
import re
import tomllib
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

VOCABULARY: dict[str, Any] = tomllib.loads(
    importlib.resources.files("auditdb.mapping").joinpath("vocabulary.toml").read_text("utf-8")
)
_PUNCTUATION = str.maketrans(" _./:$@#+[]~", "-" * 12)
_TOKEN = re.compile(r"\(\^\|-\)|\(-\|\$\)|\[a-z-?\][*+]?|.")


# Names come from requests as well: these must not fill the memory.
@lru_cache(maxsize=65536)
def normal_name(name: str) -> str:
    """Return a name in lower case, its words apart by "-", and between two of these.

    >>> normal_name("clientSecret"), normal_name("X-API-Key"), normal_name("APIKey")
    ('-client-secret-', '-x-api-key-', '-api-key-')
    """
    name = re.sub("([a-z0-9])([A-Z])", r"\1-\2", name)
    name = re.sub("([A-Z])([A-Z][a-z])", r"\1-\2", name)
    name = re.sub("[A-Z]", lambda found: found[0].lower(), name)
    return f"-{name}-".translate(_PUNCTUATION)


def expand(pattern: str) -> list[str]:
    """Return the LIKE patterns over normal names that an entry of the vocabulary stands for.

    >>> expand("(^|_)pins?$"), expand("token"), expand("^is_")
    (['%-pin-', '%-pins-'], ['%token%'], ['-is-%'])
    """
    tokens = _TOKEN.findall(pattern.replace("_", "-").replace("\\", ""))
    found = list(dict.fromkeys(_alternatives(tokens)))
    assert not tokens, pattern
    edged = (("%" + p + "%").replace("%^", "-").replace("$%", "-") for p in found)
    return list(dict.fromkeys(re.sub("%+", "%", p) for p in edged))


def _alternatives(tokens: list[str]) -> Iterator[str]:
    """Take apart what stands between two "|", up to the end or a closing bracket."""
    parts: list[list[str]] = []
    while tokens and tokens[0] not in "|)":
        token = tokens.pop(0)
        if token == "(":
            part = list(_alternatives(tokens))
            tokens.pop(0)
        else:
            part = {"(^|-)": ["-"], "(-|$)": ["-"]}.get(token, ["%" if token[0] == "[" else token])
        if tokens and tokens[0] == "?":
            tokens.pop(0)
            part = ["", *part]
        parts.append(part)
    yield from map("".join, itertools.product(*parts))
    if tokens and tokens[0] == "|":
        tokens.pop(0)
        yield from _alternatives(tokens)


def likes(entry: str, word: str | None = None) -> list[str]:
    """Return the LIKE patterns of an entry, or of a word of the secrets."""
    patterns = VOCABULARY[entry] if word is None else VOCABULARY[entry][word]
    found = dict.fromkeys(like for pattern in patterns for like in expand(pattern))
    return [p for p in found if not any(q != p and _covers(q, p) for q in found)]


def _covers(wide: str, narrow: str) -> bool:
    core = wide.strip("%")
    return (
        "%" not in core
        and core in narrow
        and (wide[0] == "%" or narrow.startswith(core))
        and (wide[-1] == "%" or narrow.endswith(core))
    )


@cache
def _pattern(entry: str) -> re.Pattern[str]:
    if entry == "secret":
        given = [p for word in VOCABULARY[entry] for p in likes(entry, word) or [f"%{word}%"]]
    else:
        given = likes(entry)
    regex = "|".join(".*".join(map(re.escape, like.split("%"))) for like in given)
    return re.compile(regex, re.DOTALL)


def says(entry: str, name: str) -> bool:
    """Return whether a name, in whatever spelling, is among an entry of the vocabulary."""
    return _pattern(entry).fullmatch(normal_name(name)) is not None


def is_secret(name: str) -> bool:
    """Return whether attach redacts a column of this name: audit_private.is_secret in Python.

    `auditdb detect` runs where auditdb is not installed yet.

    >>> is_secret("key_hash"), is_secret("token_type"), is_secret("name")
    (True, False, False)
    """
    return says("secret", name) and not says("except", name)
