"""Writes docs/sql.md, the objects of the schema audit, from their comments: make reference."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import psycopg

import auditdb
from tests.server import running

HEADER = """\
# SQL reference

Everything in the schema `audit` that people call or read, made by `make reference` from the \
comments in the database; `\\d+ audit.event` and `\\df+ audit.*` in psql print the same. *For* \
names the roles that may use it: grant them to your logins. The schema `audit_private` holds the \
rest, and is no interface."""
FUNCTIONS = """
select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
    obj_description(p.oid, 'pg_proc'), array(
        select distinct grantee::regrole::text from aclexplode(p.proacl)
        where grantee <> p.proowner order by 1)
from pg_proc as p where p.pronamespace = 'audit'::regnamespace order by p.proname, p.oid
"""
RELATIONS = """
select c.relname, obj_description(c.oid, 'pg_class'), array(
        select distinct grantee::regrole::text from aclexplode(c.relacl)
        where grantee <> c.relowner order by 1),
    (select json_agg(json_build_array(
        a.attname, format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum))
        order by a.attnum) from pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
from pg_class as c
where c.relnamespace = 'audit'::regnamespace and not c.relispartition and c.relkind = any (%s)
order by c.relname <> 'event', c.relname
"""
ACTIONS = """
select name, description from audit.action where is_built_in order by name collate "C"
"""
ROLES = """
select rolname, shobj_description(oid, 'pg_authid') from pg_roles
where rolname ~ '^audit_' order by rolname
"""


def markdown(dsn: str) -> str:
    """Return the document, from a database in which auditdb is installed."""
    with psycopg.connect(dsn) as conn:
        parts = [
            HEADER,
            "## Roles",
            "\n".join(f"- `{name}` {_text(said)}" for name, said in conn.execute(ROLES)),
        ]
        for title, kinds in (("Tables", ["r", "p"]), ("Views", ["v"])):
            parts.append(f"## {title}")
            for row in conn.execute(RELATIONS, [kinds]):
                parts += _relation(*row)
        parts += [
            "## Actions",
            "What `audit.event.action` may say; `audit.define_action` adds yours.",
            "\n".join(f"- `{name}` {_text(said)}" for name, said in conn.execute(ACTIONS)),
            "## Functions",
        ]
        for row in conn.execute(FUNCTIONS.encode()):
            parts += _function(*row)
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _relation(
    name: str, said: str, roles: list[str], columns: list[tuple[str, str, str | None]]
) -> Iterator[str]:
    yield f"### audit.{name}"
    yield f"{_text(said)}.{_for(roles)}"
    yield "\n".join(
        f"- `{column}` {kind}{f': {_text(about)}' if about else ''}"
        for column, kind, about in columns
    )


def _function(name: str, arguments: str, result: str, said: str, roles: list[str]) -> Iterator[str]:
    yield f"### audit.{name}()"
    inside = ",".join(f"\n    {_argument(each)}" for each in arguments.split(", ") if each)
    returned = ",\n    ".join(result.split(", ")).replace("TABLE(", "table (\n    ")
    yield f"```sql\naudit.{name}({inside}{chr(10) if inside else ''}) returns {returned}\n```"
    yield f"{_text(said)}.{_for(roles)}"


def _argument(argument: str) -> str:
    """Return an argument as people write it: `default null`, not `DEFAULT NULL::text`."""
    return re.sub(
        r" DEFAULT (NULL|'.*?'|[^:]+)(?:::.*)?$",
        lambda found: f" default {found[1].replace('NULL', 'null')}",
        argument,
    )


def _text(said: str) -> str:
    """Return a comment as Markdown that says the same."""
    return re.sub(r"<\w+>\.\w+", r"`\g<0>`", said).removeprefix("auditdb: ")


def _for(roles: list[str]) -> str:
    return f" *For* {', '.join(f'`{role}`' for role in roles)}." if roles else ""


def _wrapped(part: str) -> str:
    """Return a part whose lines end at 120 columns; code stays as it is."""
    if part.startswith("```"):
        return part
    return "\n".join(
        textwrap.fill(
            line, 120, subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False, break_on_hyphens=False,
        )
        for line in part.splitlines()
    )  # fmt: skip


def main() -> None:
    """Print the document, from a server of its own."""
    with running() as server:
        dsn = f"host={server.host} port={server.port} user={server.user} dbname=postgres"
        auditdb.install(dsn)
        print(markdown(dsn), end="")


if __name__ == "__main__":
    main()
