"""Writes the SQL or the document of the built-in kinds: python -m tests.kinds sql|markdown."""

from __future__ import annotations

import json
import sys
import textwrap

from auditdb.mapping.kinds import KINDS, Kind

_HEADER = """\
-- The kinds that auditdb brings, as rows.
-- Made from auditdb/mapping/kinds.toml by `make reference`: change that file, not this one.

insert into audit.kind (
    name, description, target_type, verbs, facts, options, subject, target, credentials, is_built_in
)
select *, true
from (values
"""
_FOOTER = """\
) as own (
    name, description, target_type, verbs, facts, options, subject, target, credentials
)
on conflict (name) do update set
    description = excluded.description, target_type = excluded.target_type,
    verbs = excluded.verbs, facts = excluded.facts, options = excluded.options,
    subject = excluded.subject, target = excluded.target, credentials = excluded.credentials,
    is_built_in = true;
"""


def sql() -> str:
    """Return the statement that inserts the kinds."""
    return _HEADER + ",\n".join(_row(kind) for kind in KINDS.values()) + "\n" + _FOOTER


def _row(kind: Kind) -> str:
    credentials = "null" if kind.credentials is None else str(kind.credentials).lower()
    lines = [
        f"({_literal(kind.name)}, {_literal(kind.description)},",
        f"    {_literal(kind.target_type)},",
        f"    {_json(kind.verbs)},",
        f"    {_json(kind.facts)},",
        *textwrap.wrap(
            f"array[{', '.join(map(_literal, kind.options))}],", 92,
            initial_indent="    ", subsequent_indent="        ",
        ),
        f"    {_literal(kind.subject)}, {_literal(kind.target)}, {credentials}::boolean)",
    ]  # fmt: skip
    return "\n".join("    " + line for line in lines)


def _json(value: dict[str, str]) -> str:
    """Return an object, a line for each two keys."""
    pairs = [f"{json.dumps(key)}: {json.dumps(text)}" for key, text in value.items()]
    lines = [", ".join(pairs[n : n + 2]) for n in range(0, len(pairs), 2)]
    return "'{" + ",\n        ".join(lines) + "}'::jsonb"


def _literal(text: str | None) -> str:
    return "null" if text is None else "'" + text.replace("'", "''") + "'"


def markdown() -> str:
    """Return docs/kinds.md."""
    parts = [
        "# Kinds",
        "What the rows of an attached table are. Each is a row of `audit.kind`; this page is made "
        "from `auditdb/mapping/kinds.toml` by `make reference`.",
    ]
    for kind in KINDS.values():
        actions = [f"`{action}`" for action in dict.fromkeys(filter(None, kind.verbs.values()))]
        lines = [f"{kind.description}."]
        lines.append(f"- Events: {', '.join(actions)}." if actions else "- Events: none.")
        lines += [
            f"- An UPDATE of `{column}` is `{action}`." for column, action in kind.facts.items()
        ]
        lines.append(f"- Options: {', '.join(f'`{option}`' for option in kind.options)}.")
        if kind.target_type != kind.name:
            lines.append(f"- What an event is about is a `{kind.target_type}`.")
        if kind.subject == "row":
            lines.append("- Whom an event is about: the row itself.")
        elif kind.subject == "column":
            lines.append(
                "- Whom an event is about: the user that a column such as `user_id` names."
            )
        if kind.credentials:
            lines.append("- Each column is redacted that is not known to be harmless.")
        parts += [f"## {kind.name}", "\n".join([lines[0], "", *map(_wrapped, lines[1:])])]
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(text: str) -> str:
    """Return a line of a list, or a paragraph of one line, in lines of 118 characters."""
    if "\n" in text:
        return text
    return "\n".join(
        textwrap.wrap(text, 118, subsequent_indent="  " if text.startswith("- ") else "")
    )


if __name__ == "__main__":
    print({"sql": sql, "markdown": markdown}[sys.argv[1]](), end="")
