"""Splits identifiers of any spelling into words, and looks words up in the vocabulary."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

VOCABULARY: dict[str, Any] = tomllib.loads(
    importlib.resources.files("auditdb.detect").joinpath("vocabulary.toml").read_text("utf-8")
)
_SPELLING = VOCABULARY["spelling"]
_SYNONYMS: dict[str, str] = _SPELLING["synonyms"]
_PAIRS = {tuple(apart.split()): word for apart, word in _SPELLING["pairs"].items()}
_WORD = re.compile(
    rf"(?i:{'|'.join(_SPELLING['whole'])})|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+"
)


def said(entry: str) -> frozenset[str]:
    """Return the words of an entry of the vocabulary, such as "key.other"."""
    room, _, name = entry.partition(".")
    return frozenset(VOCABULARY[room][name])


def weights(entry: str) -> dict[str, int]:
    """Return the weight of each word of an entry."""
    room, _, name = entry.partition(".")
    return dict(VOCABULARY[room][name])


def _all_words(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, inner in part.items():
            if isinstance(inner, int):
                yield key
            elif key not in ("spelling", "column", "why"):
                yield from _all_words(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _all_words(inner)
    else:
        yield part


# Words written together without a separator: apikey, organizationuser.
_KNOWN = frozenset(
    word
    for word in (*_all_words(VOCABULARY), *_SPELLING["joined"], *_SYNONYMS)
    if len(word) > 2 or word == "id"
)


def singular(word: str) -> str:
    """Return the singular of an English noun in lower case.

    >>> [singular(w) for w in ("keys", "companies", "statuses", "access", "status", "boxes")]
    ['key', 'company', 'status', 'access', 'status', 'box']
    """
    if len(word) < 3:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "uses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "as")):
        return word[:-1]
    return word


def _split(word: str) -> tuple[str, ...]:
    """Split joined words, if all of them are known."""
    if word in _KNOWN or singular(word) in _KNOWN:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        head, rest = word[:end], word[end:]
        if head in _KNOWN or singular(head) in _KNOWN:
            tail = _split(rest)
            if all(part in _KNOWN or singular(part) in _KNOWN for part in tail):
                return (head, *tail)
    return (word,)


@cache
def words(name: str) -> tuple[str, ...]:
    """Return the words of an identifier in lower case and singular, with unified spelling.

    >>> words("OrganisationGroupMembers"), words("user_apikeys"), words("twoFactorEnabled")
    (('organization', 'group', 'member'), ('user', 'api', 'key'), ('twofactor', 'enabled'))
    """
    parts = [part for word in _WORD.findall(name) for part in _split(word.lower())]
    joined: list[str] = []
    while parts:
        size = next((n for n in (3, 2) if tuple(parts[:n]) in _PAIRS), 1)
        joined.append(_PAIRS[tuple(parts[:size])] if size > 1 else parts[0])
        del parts[:size]
    told = tuple(_SYNONYMS.get(w, _SYNONYMS.get(singular(w), singular(w))) for w in joined)
    return told[1:] if told[:1] == ("tbl",) and told[1:] else told or (name,)


def has(name: str, *wanted: str) -> bool:
    """Return whether an identifier contains one of the words."""
    return not frozenset(wanted).isdisjoint(words(name))


def has_any(name: str, wanted: Iterable[str]) -> bool:
    """Return whether an identifier contains one of several words."""
    return has(name, *wanted)


def flat(name: str) -> str:
    """Return an identifier in lower case without underscores, as attach sees it."""
    return name.replace("_", "").lower()


def labels(names: Iterable[str]) -> frozenset[str]:
    """Return first words that many tables share and that are not the name of a table.

    >>> sorted(labels(["event_team", "event_order", "event_item", "user_key", "flow_a", "flows"]))
    ['event']
    """
    counts: dict[str, int] = {}
    whole = set()
    for name in names:
        first, apart, _ = name.partition("_")
        if apart:
            counts[first] = counts.get(first, 0) + 1
        whole.add(words(name))
    return frozenset(
        first
        for first, count in counts.items()
        if count > 2 and words(first) not in whole and not has(first, *said("spelling.no_label"))
    )
