"""The mapping file, auditdb.toml: read, checked, and written."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomlkit
from tomlkit.items import Item, String, StringType, Trivia

from auditdb.errors import InvalidInput
from auditdb.values.plain import is_plain

EXPRESSIONS = ("organization", "target_id", "subject", "role", "alive", "admin", "parent")
COLUMNS = ("email", "password", "two_factor", "token")
LISTS = ("ignore", "redact")
OPTIONS = EXPRESSIONS + COLUMNS + LISTS
KIND_ARGUMENTS = {
    "description": "text", "verbs": "a table of texts", "facts": "a table of texts",
    "target_type": "text", "subject": "text", "options": "a list of texts",
}  # fmt: skip
_SHAPES: dict[str, type] = {"text": str, "a table of texts": dict, "a list of texts": list}


@dataclass(frozen=True)
class TableMapping:
    """One table of a mapping file: its name as PostgreSQL writes it, kind, options of attach."""

    name: str
    kind: str
    options: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class KindMapping:
    """One kind that a mapping file defines: its name, and the arguments of `define_kind`."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ContextMapping:
    """The settings of other tools in a file, which name the actor if no context is set."""

    settings: tuple[str, ...]
    name: str = "context"


Mappings = Sequence[TableMapping | KindMapping | ContextMapping]


def load(
    text: str, source: str = "auditdb.toml"
) -> list[TableMapping | KindMapping | ContextMapping]:
    r"""Read a mapping file.

    Args:
        text: the file, in TOML.
        source: its name, for error messages.

    Raises:
        InvalidInput: not TOML; no table; an unknown or missing key, or one of the wrong type; a
            table or kind twice.

    Example:
        >>> load("[[table]]\nname = 'public.invoice'\nkind = 'invoice'\nignore = ['seen_at']")
        [TableMapping(name='public.invoice', kind='invoice', options={'ignore': ['seen_at']})]
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # For a duplicate key, the parser says that it cannot overwrite a value.
        problem = str(error).replace("Cannot overwrite a value", "a key is there twice")
        raise InvalidInput(f"{source} is not TOML: {problem}") from error
    for key in document:
        if key == "detect":
            _check_skip(document[key], source)
        elif key == "context":
            _check_context(document[key], source)
        elif key not in ("table", "kind"):
            raise InvalidInput(
                f"{source}: unknown key '{key}'; a file is made of [[table]]s and [[kind]]s"
            )
    mappings: list[TableMapping | KindMapping | ContextMapping] = [
        *([ContextMapping(tuple(document["context"]))] if "context" in document else ()),
        *(_kind(part, source, n) for n, part in enumerate(_parts(document, "kind", source), 1)),
        *(_mapping(part, source, n) for n, part in enumerate(_parts(document, "table", source), 1)),
    ]
    if not mappings and not text.strip():
        raise InvalidInput(f"{source} is empty. Was it written by a command that failed?")
    for number, mapping in enumerate(mappings):
        if (type(mapping), mapping.name) in {(type(m), m.name) for m in mappings[:number]}:
            what = "kind" if isinstance(mapping, KindMapping) else "table"
            raise InvalidInput(
                f"{source}: {mapping.name} is there twice; keep one [[{what}]] of it"
            )
    return mappings


def _check_context(settings: Any, source: str) -> None:
    if not isinstance(settings, list) or not all(isinstance(name, str) for name in settings):
        raise InvalidInput(
            f"{source}: 'context' must be a list of names of settings, above the first [[table]]"
        )


def _check_skip(detect: Any, source: str) -> None:
    skip = detect.get("skip", []) if isinstance(detect, dict) and set(detect) <= {"skip"} else None
    if not isinstance(skip, list) or not all(isinstance(name, str) for name in skip):
        raise InvalidInput(f"{source}: [detect] has one key, 'skip', a list of names of tables")


def skipped(text: str) -> list[str]:
    r"""Return the tables in a file that detect must not propose.

    >>> skipped("[detect]\nskip = ['public.note']")
    ['public.note']
    """
    skip: list[str] = tomllib.loads(text).get("detect", {}).get("skip", [])
    return [name.strip() for name in skip]


def _parts(document: dict[str, Any], name: str, source: str) -> list[dict[str, Any]]:
    """Return the [[table]]s or [[kind]]s of a file."""
    parts = document.get(name, [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidInput(f"{source}: write [[{name}]], with two brackets, above each {name}")
    return parts


def _kind(part: dict[str, Any], source: str, number: int) -> KindMapping:
    """Return one [[kind]], checked as far as possible without the server."""
    named = part.get("name")
    where = f"{source}, kind {named if isinstance(named, str) and named else number}"
    for key, value in part.items():
        if key not in ("name", *KIND_ARGUMENTS):
            close = difflib.get_close_matches(key, KIND_ARGUMENTS, 1, 0.5)
            keys = ", ".join(KIND_ARGUMENTS)
            hint = f"did you mean '{close[0]}'?" if close else f"the keys are {keys}"
            raise InvalidInput(f"{where}: unknown key '{key}'; {hint}")
        shape = KIND_ARGUMENTS.get(key, "text")
        items = value.values() if isinstance(value, dict) else value
        is_valid = isinstance(value, _SHAPES[shape]) and all(isinstance(i, str) for i in items)
        if not is_valid:
            raise InvalidInput(f"{where}: '{key}' must be {shape}")
    if not named:
        raise InvalidInput(f"{where}: 'name' is missing")
    return KindMapping(str(named), {key: part[key] for key in part if key != "name"})


def _mapping(table: dict[str, Any], source: str, number: int) -> TableMapping:
    """Return one [[table]], checked."""
    named = table.get("name")
    where = f"{source}, {named if isinstance(named, str) and named else f'table {number}'}"
    for key in table:
        if key not in {"name", "kind", *OPTIONS}:
            close = difflib.get_close_matches(key, ["name", "kind", *OPTIONS], 1, 0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(OPTIONS)}"
            if key == "context":
                hint = "it stands above the first [[table]]"
            raise InvalidInput(f"{where}: unknown key '{key}'; {hint}")
    for key in ("name", "kind"):
        if key not in table:
            raise InvalidInput(f"{where}: '{key}' is missing")
    for key, value in table.items():
        if key in LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise InvalidInput(f"{where}: '{key}' must be a list of column names")
        elif not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"{where}: '{key}' must be text that is not empty")
    options = {
        key: [str(item) for item in value] if key in LISTS else str(value).strip()
        for key, value in table.items()
        if key not in {"name", "kind"}
    }
    return TableMapping(table["name"].strip(), table["kind"].strip(), options)


def written(mapping: TableMapping) -> str:
    r"""Return a [[table]] as TOML, with readable quotes around SQL.

    >>> print(written(TableMapping('public."Note"', "note", {"ignore": ["seen_at"]})), end="")
    [[table]]
    name = 'public."Note"'
    kind = "note"
    ignore = ["seen_at"]
    """
    table = tomlkit.table()
    for key, value in {"name": mapping.name, "kind": mapping.kind, **mapping.options}.items():
        table.add(key, _item(value))
    text = tomlkit.dumps({"table": [table]})
    # Strings with such characters are basic strings, which allow escapes; see _item.
    return "".join(c if is_plain(c) or c in "\n\t" else f"\\U{ord(c):08X}" for c in text)


def _item(given: str | Sequence[str]) -> Item:
    """Return a text or a list of texts as TOML; 'literal' if that avoids escapes."""
    if not isinstance(given, str):
        return tomlkit.item(list(given))
    if "'''" in given or any(not (is_plain(c) or c in "\n\t") for c in given):
        return tomlkit.string(given)
    if "\n" in given or ("'" in given and ('"' in given or "\\" in given)):
        return String(StringType.MLL, f"{given}\n", f"\n{given}\n", Trivia())
    return tomlkit.string(given, literal='"' in given or "\\" in given)
