"""Writes sql/secrets/names.sql from vocabulary.toml: python -m tests.vocabulary."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from auditdb.mapping.vocabulary import VOCABULARY, likes

_HEADER = """\
-- Names: what the name of a column, of a key in a document or of a table says about secrets.
-- Made from auditdb/mapping/vocabulary.toml by `make reference`: change that file, not this one.
--
-- In PL/pgSQL, which plans an expression once: inlined into others they cost more to plan than to
-- evaluate.
"""

_NORMAL = """\
create or replace function audit_private.normal_name(name text) returns text
language sql immutable parallel safe
return translate('-' || lower(case when name = lower(name collate "C") then name else
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\\1-\\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\\1-\\2', 'g') end collate "C") || '-',
    ' _./:$@#+[]~', '------------');
comment on function audit_private.normal_name(text) is
    'A name in lower case with its words apart by "-", and between two of these: clientSecret '
    'becomes -client-secret-';
"""

_PIN = "immutable parallel safe set search_path = pg_catalog, pg_temp"

# Entry of the vocabulary, function, comment.
_PREDICATES = (
    (
        "harmless",
        "says_harmless",
        "Whether a column of a table of credentials, by its normal name, may be shown",
    ),
    ("stores", "says_store", "Whether a table, by its normal name, holds credentials"),
    (
        "stores_with_a_secret",
        "says_store_with_a_secret",
        "Whether a table, by its normal name, holds credentials if one column is a secret",
    ),
    (
        "connectors",
        "says_connector",
        "Whether a table, by its normal name, holds what the application connects to",
    ),
    (
        "connector_columns",
        "says_settings",
        "Whether a column of a connector, by its normal name, may hold credentials",
    ),
    ("headers", "says_headers", "Whether a normal name is one of headers of HTTP"),
    (
        "parameters",
        "says_parameter",
        "Whether a parameter of an address, by its normal name, is a secret there",
    ),
)


def _any(patterns: Sequence[str], indent: str = "    ") -> str:
    """Return the condition that a name is like one of the patterns, lines wrapped.

    LIKE and not a regular expression: PostgreSQL keeps no more than 32 of these compiled.
    """
    if len(patterns) == 1:
        return f"name like '{patterns[0]}'"
    lines = textwrap.wrap(
        ", ".join(f"'{p}'" for p in patterns), 94 - len(indent), break_on_hyphens=False
    )
    body = f"\n{indent}    ".join(lines)
    return f"name like any (array[\n{indent}    {body}])"


def _words() -> str:
    joined = "|".join(VOCABULARY["secret"])
    words = [joined[at : at + 88] for at in range(0, len(joined), 88)]
    literal = "\n    ".join(f"'{word}'" for word in words)
    return (
        "create or replace function audit_private.secret_words() returns text\n"
        f"language sql immutable parallel safe\nreturn {literal};\n"
        "comment on function audit_private.secret_words() is\n"
        "    'Pattern, whatever the case, of which each name of a secret has a part';\n"
    )


def _function(head: str, body: str, comment: str) -> str:
    return (
        f"create or replace function audit_private.{head} returns boolean\n"
        f"language plpgsql {_PIN}\nas $$\n{body}$$;\n"
        f"comment on function audit_private.{head.split('(')[0]}(text) is\n    '{comment}';\n"
    )


def _predicate(entry: str, name: str, comment: str) -> str:
    return _function(
        f"{name}(name text)", f"begin\n    return {_any(likes(entry))};\nend\n", comment
    )


def _is_secret() -> str:
    """Return the function that looks at patterns only where their word is."""
    tests = []
    for word, patterns in VOCABULARY["secret"].items():
        test = f"name like '%{word}%'"
        tests.append(f"{test} and {_any(likes('secret', word), ' ' * 8)}" if patterns else test)
    body = f"""declare
    name text collate "C";
begin
    -- Most names have none of the words, and are no more trouble.
    if column_name collate "C" !~* audit_private.secret_words() then
        return false;
    end if;
    name := audit_private.normal_name(column_name);
    return ({f"{chr(10)}        or ".join(tests)})
    and not {_any(likes("except"))};
end
"""
    return _function(
        "is_secret(column_name text)",
        body,
        "Whether values of a column of this name are redacted by default",
    )


def vocabulary() -> str:
    """Return the SQL file."""
    return "\n".join(
        (
            _HEADER,
            _words(),
            _NORMAL,
            _is_secret(),
            *(_predicate(*predicate) for predicate in _PREDICATES),
        )
    )


if __name__ == "__main__":
    print(vocabulary(), end="")
