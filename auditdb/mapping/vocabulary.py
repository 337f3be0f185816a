"""The vocabulary of names, vocabulary.toml: secrets, and columns with the name of a row."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

VOCABULARY: dict[str, Any] = tomllib.loads(
    importlib.resources.files("auditdb.mapping").joinpath("vocabulary.toml").read_text("utf-8")
)
_PUNCTUATION = str.maketrans(" _./:$@#+[]~", "-" * 12)


# Bounded, because names may come from requests.
@lru_cache(maxsize=65536)
def normal_name(name: str) -> str:
    """Return a name in lower case, with "-" between, before and after its words.

    >>> normal_name("clientSecret"), normal_name("X-API-Key"), normal_name("APIKey")
    ('-client-secret-', '-x-api-key-', '-api-key-')
    """
    name = re.sub("([a-z0-9])([A-Z])", r"\1-\2", name)
    name = re.sub("([A-Z])([A-Z][a-z])", r"\1-\2", name)
    name = re.sub("[A-Z]", lambda found: found[0].lower(), name)
    return f"-{name}-".translate(_PUNCTUATION)


def regex(entry: str) -> str:
    """Return an entry of the vocabulary as a pattern over normal names.

    >>> regex("(^|_)pins?$"), regex("token"), regex("^is_"), regex("(^|_)otp[a-z]*code")
    ('-pins?-$', 'token', '^-is-', '-otp.*code')
    """
    pattern = re.sub(r"\[a-z_?\][*+]?", ".*", entry).replace("_", "-")
    pattern = pattern.replace("(^|-)", "-").replace("(-|$)", "-")
    return re.sub(r"\$$", "-$", re.sub(r"^\^", "^-", pattern))


def joined(entries: Iterable[str]) -> str:
    """Return one pattern for several entries; entries with the same anchors share a group.

    >>> joined(["(^|_)ssn$", "(^|_)pem$", "secret"])
    '-(ssn|pem)-$|secret'
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for pattern in map(regex, entries):
        found = re.fullmatch(r"(\^?-(?!\?)|)(.*?)(-\$|)", pattern)
        assert found, pattern
        groups.setdefault((found[1], found[3]), []).append(found[2])
    return "|".join(
        f"{head}({'|'.join(middle)}){tail}"
        if len(middle) > 1 and (head or tail)
        else f"{head}{'|'.join(middle)}{tail}"
        for (head, tail), middle in groups.items()
    )


def pattern(entry: str) -> str:
    """Return the pattern of normal names that an entry, or "secret", stands for."""
    if entry != "secret":
        return joined(VOCABULARY[entry])
    return joined(p for word, own in VOCABULARY[entry].items() for p in own or [word])


@cache
def _compiled(entry: str) -> re.Pattern[str]:
    # In PostgreSQL, "$" matches only at the very end, and "." matches any character.
    return re.compile(pattern(entry).replace("$", r"\Z"), re.DOTALL)


def says(entry: str, name: str) -> bool:
    """Return whether a name, in any spelling, matches an entry of the vocabulary."""
    return _compiled(entry).search(normal_name(name)) is not None


_CALLED = {
    word: (part, rank)
    for part, words in enumerate(VOCABULARY["called"].values())
    for rank, word in enumerate(words)
}


def called(image: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the values that identify a row to a person: audit_private.called in Python.

    >>> called({"id": 7, "role": "OWNER", "slug": "nightly", "displayName": "Nightly export"})
    [('displayName', 'Nightly export'), ('role', 'OWNER')]
    """
    found: dict[int, tuple[int, int, str]] = {}
    for name, value in image.items():
        part, rank = _CALLED.get(name.lower().replace("_", ""), (-1, 0))
        if part >= 0 and value not in (None, "", "[redacted]"):
            # On a tie, the first one in the key order of jsonb.
            found[part] = min(found.get(part, (99, 0, "")), (rank, len(name), name))
    return [(name, image[name]) for _, (_, _, name) in sorted(found.items())]


def is_secret(name: str) -> bool:
    """Return whether attach redacts a column of this name: audit_private.is_secret in Python.

    >>> is_secret("key_hash"), is_secret("token_type"), is_secret("name")
    (True, False, False)
    """
    return says("secret", name) and not says("except", name)
