"""Words of a language: a catalogue, languages/<code>.toml, whose keys are those of en.toml."""

from __future__ import annotations

import importlib.resources
import tomllib
from functools import cache
from typing import Any

from markupsafe import Markup

from auditdb.errors import InvalidInput

_FOLDER = importlib.resources.files("auditdb.web").joinpath("languages")


class Words:
    """The words of one language; what it lacks is said in English."""

    def __init__(self, code: str, catalogue: dict[str, Any], fallback: Words | None) -> None:
        self.code = code
        self.name: str = catalogue["name"]
        self.direction: str = catalogue.get("direction", "ltr")
        self._catalogue, self._fallback = catalogue, fallback

    def get(self, section: str, key: str) -> Any:
        """Return an entry, or None."""
        found = self._catalogue.get(section, {}).get(key)
        if found is None and self._fallback is not None:
            return self._fallback.get(section, key)
        return found

    def __call__(self, key: str, /, **values: object) -> Markup:
        """Return a text of the page with its values, which are escaped."""
        text = self.get("page", key)
        assert text is not None, key
        return Markup(text).format(**values)

    def term(self, section: str, key: str) -> str:
        """Return what a category, an action, a result or a kind of object is called."""
        found = self.get(section, key)
        if found is None and section == "action":
            category, _, verb = key.partition(".")
            noun = self.term("noun", category)
            found = f"{noun[:1].upper()}{noun[1:]} {self.term('done', verb)}"
        return str(found) if found else key.replace("_", " ")


@cache
def languages() -> dict[str, str]:
    """Return the languages that there are: code and own name."""
    codes = sorted(
        f.name.removesuffix(".toml") for f in _FOLDER.iterdir() if f.name[-5:] == ".toml"
    )
    return {code: _read(code)["name"] for code in codes}


def nearest(code: str | None) -> str | None:
    """Return the language that there is for a tag such as de-AT; None where there is none."""
    own = (code or "").replace("_", "-").lower().partition("-")[0]
    return own if own in languages() else None


@cache
def _read(code: str) -> dict[str, Any]:
    return tomllib.loads(_FOLDER.joinpath(f"{code}.toml").read_text("utf-8"))


@cache
def words(code: str) -> Words:
    """Return the words of a language.

    Raises:
        InvalidInput: there is no such catalogue.
    """
    if code not in languages():
        raise InvalidInput(
            f"there is no language {code[:20]!r}; there are {', '.join(languages())}"
        )
    return Words(code, _read(code), None if code == "en" else words("en"))
