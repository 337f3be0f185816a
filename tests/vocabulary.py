"""Writes sql/routines/31-names.sql from auditdb/vocabulary.toml: python -m tests.vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from auditdb._vocabulary import VOCABULARY

_HEADER = """\
-- Names: what the name of a column, of a key in a document or of a table says about secrets.
-- Made from auditdb/vocabulary.toml by `make reference`: change that file, not this one.
--
-- The bodies are parsed when they are created: nothing is looked up when they run, so that no
-- search_path has to be pinned, which would keep the planner from inlining them.
"""

_NORMAL = """\
create or replace function audit.normal_name(name text) returns text
language sql immutable parallel safe
return lower(regexp_replace(
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\\1_\\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\\1_\\2', 'g'),
    '[\\x01-/:-@\\[-`{-\\x7f]+', '_', 'g') collate "C");
comment on function audit.normal_name(text) is
    'A name in lower case with its words apart by "_": clientSecret becomes client_secret'
;
"""

_IS_SECRET = """\
-- The first look takes no normal form, and is all that most names cost.
create or replace function audit.is_secret(column_name text) returns boolean
language sql immutable parallel safe
return case when column_name collate "C" ~* audit.secret_words()
    then audit.says_secret(audit.normal_name(column_name)) else false end;
comment on function audit.is_secret(text) is
    'Whether values of a column of this name are redacted by default'
;
"""


def _literal(patterns: Sequence[str], indent: str = "    ") -> str:
    """Return the alternatives as one SQL literal, a line each."""
    quoted = [p.replace("'", "''") for p in patterns]
    lines, room = [], 100 - len(indent) - 4
    for n, pattern in enumerate(quoted):
        text = ("|" if n else "(?:") + pattern + (")" if n == len(quoted) - 1 else "")
        lines += [text[at : at + room] for at in range(0, len(text), room)]
    return f"\n{indent}".join(f"'{line}'" for line in lines)


def _constant(name: str, patterns: Sequence[str], comment: str) -> str:
    return (
        f"create or replace function audit.{name}() returns text\n"
        "language sql immutable parallel safe\n"
        f"return\n    {_literal(patterns)};\n"
        f"comment on function audit.{name}() is\n    '{comment}'\n;\n"
    )


def _predicate(name: str, comment: str, wanted: Sequence[str]) -> str:
    return (
        f"create or replace function audit.{name}(name text) returns boolean\n"
        "language sql immutable parallel safe\n"
        f'return name collate "C" ~\n    {_literal(wanted)};\n'
        f"comment on function audit.{name}(text) is\n    '{comment}'\n;\n"
    )


def _says_secret() -> str:
    """Return the function that looks at a pattern only where its word is."""
    tests = []
    for word, patterns in VOCABULARY["secret"].items():
        test = f"name collate \"C\" like '%{word}%'"
        fits = f'and name collate "C" ~\n            {_literal(patterns, " " * 12)}'
        tests.append(f"{test} {fits}" if patterns else test)
    return (
        "create or replace function audit.says_secret(name text) returns boolean\n"
        "language sql immutable parallel safe\n"
        f"return ({f'{chr(10)}        or '.join(tests)})\n"
        f'    and name collate "C" !~\n        {_literal(VOCABULARY["except"], " " * 8)};\n'
        "comment on function audit.says_secret(text) is\n"
        "    'Whether a name in its normal form is one of a secret';\n"
    )


def vocabulary() -> str:
    """Return the SQL file."""
    v = VOCABULARY
    parts = [
        _HEADER,
        _constant(
            "secret_words",
            list(v["secret"]),
            "Pattern, whatever the case, of which each name of a secret has a part",
        ),
        _NORMAL,
        _says_secret(),
        _IS_SECRET,
        _predicate(
            "says_harmless",
            "Whether a column of a table of credentials, by its name in normal form, may be shown",
            v["harmless"],
        ),
        _predicate(
            "says_store",
            "Whether a table, by its name in normal form, holds credentials",
            v["stores"],
        ),
        _predicate(
            "says_store_with_a_secret",
            "Whether a table, by its name in normal form, holds credentials if a column is a secret",
            v["stores_with_a_secret"],
        ),
        _predicate(
            "says_connector",
            "Whether a table, by its name in normal form, holds what the application connects to",
            v["connectors"],
        ),
        _predicate(
            "says_settings",
            "Whether a column of a connector, by its name in normal form, may hold credentials",
            v["connector_columns"],
        ),
        _predicate(
            "says_headers",
            "Whether a name in its normal form is one of headers of HTTP",
            v["headers"],
        ),
        _predicate(
            "says_parameter",
            "Whether a parameter of an address, by its name in normal form, is a secret there",
            v["parameters"],
        ),
    ]
    return "\n".join(parts).replace("'\n;", "';")


if __name__ == "__main__":
    print(vocabulary(), end="")
