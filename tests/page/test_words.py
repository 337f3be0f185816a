"""The catalogues of words: each language says everything, and nothing that no page asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

import auditdb
from auditdb.values.arguments import RESULTS
from auditdb.web.address import CHOSEN, PRESETS
from auditdb.web.problem import STATUS
from auditdb.web.queries import SIGNALS
from auditdb.web.words import languages

FOLDER = Path(auditdb.__file__).with_name("web")
ENGLISH = tomllib.loads((FOLDER / "languages" / "en.toml").read_text("utf-8"))


def fields(text: str | list[str]) -> list[set[str | None]]:
    """Return what stands in the braces of a text, or of each of several."""
    texts = [text] if isinstance(text, str) else text
    return [{name for _, name, _, _ in Formatter().parse(one) if name} for one in texts]


def asked_for() -> set[str]:
    """Return the keys of the section `page` that templates and code ask for."""
    found: set[str] = set()
    for path in [*FOLDER.glob("*.py"), *FOLDER.glob("templates/*.html")]:
        for call in re.findall(r"\b(?:t|own|words)\(([^()]*)", path.read_text("utf-8")):
            found |= set(re.findall(r'"(\w+)"', call))
    # Those that are asked for by the name of a filter, of a period, or of a scheme.
    periods = {f"{preset[-1]}{preset[:-1]}" for preset in PRESETS}
    return found | set(CHOSEN) | periods | {"light", "dark"}


@pytest.mark.parametrize("code", languages())
def test_each_language_has_the_same_keys_with_the_same_places(code: str) -> None:
    own: dict[str, Any] = tomllib.loads((FOLDER / "languages" / f"{code}.toml").read_text("utf-8"))
    assert own.keys() == ENGLISH.keys()
    for section, texts in ENGLISH.items():
        if isinstance(texts, dict):
            assert list(own[section]) == list(texts), section
            for key, text in texts.items():
                assert len(fields(own[section][key])) == len(fields(text)), key
                if section == "page":
                    assert fields(own[section][key]) == fields(text), key


def test_no_word_of_a_page_is_without_use() -> None:
    assert asked_for() - languages().keys() == ENGLISH["page"].keys()


def test_problems_signals_and_results_have_their_words() -> None:
    # What is wrong with an address is said by its message.
    helped = {f"{key}_help" for key in STATUS if key != "bad_address"}
    assert set(ENGLISH["error"]) == set(STATUS) | helped
    assert set(ENGLISH["signal"]) == set(SIGNALS)
    assert set(ENGLISH["result"]) == set(RESULTS)
