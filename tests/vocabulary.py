"""Writes sql/secrets/names.sql from vocabulary.toml: python -m tests.vocabulary."""

from __future__ import annotations

import itertools
import json
import re

from auditdb.mapping.vocabulary import VOCABULARY

_HEADER = """\
-- Names: what the name of a column, of a key in a document, of a table or of a label says.
-- Made from auditdb/mapping/vocabulary.toml by `make reference`: change that file, not this one.
--
-- In PL/pgSQL, which plans an expression once: inlined into others they cost more to plan than to
-- evaluate. LIKE and no regular expressions: PostgreSQL keeps no more than 32 of these compiled,
-- and those that look into values need them all. The planner expands the patterns once a session.
"""

_NORMAL = """\
create or replace function audit_private.normal_name(name text) returns text
language sql immutable parallel safe
return translate('-' || lower(case when name = lower(name collate "C") then name else
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\\1-\\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\\1-\\2', 'g') end collate "C") || '-',
    ' _./:$@#+[]~', '------------');
comment on function audit_private.normal_name is
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


_TOKEN = re.compile(r"\(\^\|-\)|\(-\|\$\)|\[a-z-?\][*+]?|.")


def likes(entry: str) -> list[str]:
    """Return names with "%" for anything that an entry, or a word of the secrets, stands for."""
    own = VOCABULARY["secret"]
    given = (own[entry] or [entry]) if entry in own else VOCABULARY[entry]
    return list(dict.fromkeys(like for pattern in given for like in expand(pattern)))


def expand(pattern: str) -> list[str]:
    """Return the LIKE patterns over normal names that a pattern of the vocabulary stands for.

    >>> expand("(^|_)pins?$"), expand("token"), expand("^is_")
    (['%-pin-', '%-pins-'], ['%token%'], ['-is-%'])
    """
    return list(dict.fromkeys("".join(said) for said in itertools.product(*_edged(pattern))))


def braced(pattern: str) -> str:
    """Return the same as one text, with alternatives in braces, as audit_private.expand takes it.

    >>> braced("(^|_)pins?$"), braced("(api|access)_?key$")
    ('%-pin{,s}-', '%{api,access}{,-}key-')
    """
    return "".join(
        part[0] if len(part) == 1 else "{" + ",".join(part) + "}" for part in _edged(pattern)
    )


def _edged(pattern: str) -> list[list[str]]:
    """Return the parts of a pattern, each the texts that may stand there, with its ends."""
    tokens = _TOKEN.findall(pattern.replace("_", "-").replace("\\", ""))
    parts = _sequence(tokens)
    assert not tokens, pattern
    head, tail = parts[0] == ["^"], parts[-1] == ["$"]
    parts = parts[head : len(parts) - tail]
    return [["-" if head else "%"], *parts, ["-" if tail else "%"]]


def _sequence(tokens: list[str]) -> list[list[str]]:
    """Take apart what stands up to a "|" or a closing bracket."""
    parts: list[list[str]] = []
    while tokens and tokens[0] not in "|)":
        token = tokens.pop(0)
        if token == "(":
            part = _alternatives(tokens)
        else:
            part = {"(^|-)": ["-"], "(-|$)": ["-"]}.get(token, ["%" if token[0] == "[" else token])
        if tokens and tokens[0] == "?":
            tokens.pop(0)
            part = ["", *part]
        parts.append(part)
    return parts


def _alternatives(tokens: list[str]) -> list[str]:
    """Take apart what stands up to the closing bracket, and take that."""
    found = ["".join(said) for said in itertools.product(*_sequence(tokens))]
    while tokens.pop(0) == "|":
        found += ("".join(said) for said in itertools.product(*_sequence(tokens)))
    return list(dict.fromkeys(found))


def _patterns(entry: str) -> str:
    """Return an entry as a text that audit_private.expand takes: one word a pattern."""
    own = VOCABULARY[entry]
    given = own if entry != "secret" else [p for word, ps in own.items() for p in ps or [word]]
    return " ".join(dict.fromkeys(map(braced, given)))


def _literal(text: str, indent: str = "    ") -> str:
    """Return a text as SQL, its lines ended behind a blank, a comma or a "|" where there is one."""
    parts = re.findall(rf".{{1,{95 - len(indent)}}}(?:[|, ]|$)|.{{1,{96 - len(indent)}}}", text)
    return "\n".join(f"{indent}'{part}'" for part in parts)


def _text(name: str, text: str, comment: str) -> str:
    return (
        f"create or replace function audit_private.{name}() returns text\n"
        f"language sql immutable parallel safe\nreturn\n{_literal(text)};\n"
        f"comment on function audit_private.{name} is\n    '{comment}';\n"
    )


def _function(head: str, body: str, comment: str) -> str:
    return (
        f"create or replace function audit_private.{head} returns boolean\n"
        f"language plpgsql {_PIN}\nas $$\n{body}$$;\n"
        f"comment on function audit_private.{head.split('(')[0]} is\n    '{comment}';\n"
    )


def _predicate(entry: str, name: str, comment: str) -> str:
    text = _literal(_patterns(entry), " " * 8)
    body = f"begin\n    return name like any (audit_private.expand(\n{text}));\nend\n"
    return _function(f"{name}(name text)", body, comment)


def _likes(name: str, entry: str, comment: str) -> str:
    patterns = _literal(_patterns(entry))
    return (
        f"create or replace function audit_private.{name}() returns text[]\n"
        f"language sql immutable parallel safe\nreturn audit_private.expand(\n{patterns});\n"
        f"comment on function audit_private.{name} is\n    '{comment}';\n"
    )


_EXPAND = """\
-- Without JIT, which would compile for half a second what runs for some milliseconds.
create or replace function audit_private.expand(patterns text) returns text[]
language sql immutable parallel safe set search_path = pg_catalog, pg_temp set jit = off
return (
    with recursive part (done, rest) as (
        select '', pattern from string_to_table(expand.patterns, ' ') as pattern
        union all
        select done || split_part(rest, '{', 1) || said, substr(rest, strpos(rest, '}') + 1)
        from part
            cross join string_to_table(
                split_part(split_part(rest, '{', 2), '}', 1), ',') as said
        where strpos(rest, '{') > 0
    )
    select array_agg(done || rest)
    from part
    where strpos(rest, '{') = 0
);
comment on function audit_private.expand is
    'Patterns of LIKE, of a text in which alternatives stand in braces';
"""


def _is_secret() -> str:
    body = """declare
    name text collate "C";
begin
    -- Most names have none of the words, and are no more trouble.
    if column_name collate "C" !~* audit_private.secret_words() then
        return false;
    end if;
    name := audit_private.normal_name(column_name);
    return name like any (audit_private.secret_names())
        and not name like any (audit_private.open_names());
end
"""
    return _function(
        "is_secret(column_name text)",
        body,
        "Whether values of a column of this name are redacted by default",
    )


def _case(entry: str, words: list[str]) -> str:
    text = f"({'|'.join(words)})"
    line = f"    when '{entry}' then '{text}'"
    return line if len(line) <= 98 else f"    when '{entry}' then\n{_literal(text, ' ' * 8)}"


def _words(name: str, table: str, otherwise: str, comment: str) -> str:
    cases = "\n".join(_case(entry, words) for entry, words in VOCABULARY[table].items())
    return (
        f"create or replace function audit_private.{name}(entry text) returns text\n"
        f"language sql immutable parallel safe\nreturn case entry\n{cases}\n"
        f"{otherwise}end;\ncomment on function audit_private.{name} is\n    '{comment}';\n"
    )


def _called() -> str:
    ranks = {
        word: 100 * part + rank
        for part, words in enumerate(VOCABULARY["called"].values(), 1)
        for rank, word in enumerate(words)
    }
    return _CALLED.format(pin=_PIN, ranks=_literal(json.dumps(ranks), " " * 12))


_CALLED = """\
-- Hundreds tell name, address and role apart. A value is cut, and quoted as in JSON: no name can
-- look like two.
create or replace function audit_private.called(image jsonb) returns text
language plpgsql {pin}
as $$
declare
    _key text;
    _rank int;
    _best int[] := array[999, 999, 999];
    _said text[] := array[null, null, null];
begin
    for _key in select jsonb_object_keys(image) loop
        _rank := (
{ranks}::jsonb
            -> lower(replace(_key, '_', '')));
        if _rank < _best[_rank / 100] and image ->> _key not in ('', '[redacted]') then
            _best[_rank / 100] := _rank;
            _said[_rank / 100] := _key || ' ' || to_json(left(image ->> _key, 40));
        end if;
    end loop;
    return nullif(array_to_string(_said, ', '), '');
end
$$;
comment on function audit_private.called is
    'What a person knows a row by, of its values: name, address and role, or null';
"""


def vocabulary() -> str:
    """Return the SQL file."""
    secrets = VOCABULARY["secret"]
    return "\n".join(
        (
            _HEADER,
            _text(
                "secret_words",
                "|".join(secrets),
                "Pattern, whatever the case, of which each name of a secret has a part",
            ),
            _EXPAND,
            _likes("secret_names", "secret", "Patterns of normal names of secrets"),
            _likes(
                "open_names",
                "except",
                "Patterns of normal names that tell of a secret, and do not hold it",
            ),
            _NORMAL,
            _is_secret(),
            *(_predicate(*predicate) for predicate in _PREDICATES),
            _words("label_words", "labels", "", "Pattern of labels that an entry names, or null"),
            _words(
                "words",
                "words",
                "    else audit_private.label_words(entry)\n",
                "Pattern of names or labels of an entry that is not about secrets, or null",
            ),
            _called(),
        )
    )


if __name__ == "__main__":
    print(vocabulary(), end="")
