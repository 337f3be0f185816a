"""Where a row says its role, and whether it makes an admin by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from auditdb.detect.catalog import Column, Table
from auditdb.detect.naming import (
    admin_labels,
    flat,
    has,
    looks_like_roles,
    words,
)

USUAL_ADMINS = ("owner", "admin", "administrator", "superadmin", "super_admin")


def quote(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def one_of(value: str, labels: Iterable[str]) -> str:
    """Return the condition that a value is one of the labels."""
    quoted = [quote(label) for label in labels]
    return f"{value} = {quoted[0]}" if len(quoted) == 1 else f"{value} in ({', '.join(quoted)})"


def both(*conditions: str | None) -> str:
    """Return the conditions joined by AND."""
    given = [c for c in conditions if c]
    return " and ".join(f"({c})" if len(given) > 1 and " or " in c else c for c in given)


@dataclass(frozen=True)
class Role:
    """Where a row says its role: SQL with {row} for the row, and what the choice rests on."""

    value: str
    admin: str
    why: str
    question: str | None = None

    def value_of(self, row: str) -> str:
        """Return the role of a row."""
        return self.value.replace("{row}", row)

    def admin_of(self, row: str) -> str:
        """Return the condition under which a row makes an admin."""
        return self.admin.replace("{row}", row)


def _says_role(column: Column) -> int | None:
    """Return how well a column serves as the role, less is better, or None if it does not."""
    said = words(column.name)
    if column.category not in "ESNA" or said[-1] == "id":
        return None
    if has(column.name, "deprecated", "old", "legacy", "previous", "default", "invited", "custom"):
        return None
    if column.category == "N" and said[-1] not in {"role", "level"}:
        return None
    named = (
        said[-1] == "role"
        or said[-2:] in {("role", "name"), ("access", "level"), ("permission", "level")}
        or said[-2:] in {("member", "type"), ("membership", "type"), ("user", "type")}
        or said[-1] in {"permission", "privilege", "rank"}
    )
    if column.category == "A" and not (said[-1] == "role"):
        return None
    if looks_like_roles(column.labels):
        return 0 if said == ("role",) else 1 if named else 2
    if column.labels and named:
        return 4
    return 3 if named and said[-1] in {"role", "level", "name", "type"} else None


def role_column(table: Table, group: Sequence[str] = ()) -> Role | None:
    """Return the role that a column of the table holds."""
    ranked = [
        (rank, n, c) for n, c in enumerate(table.columns) if (rank := _says_role(c)) is not None
    ]
    flags = _role_flags(table)
    if not ranked:
        return flags
    column = min(ranked, key=lambda found: found[:2])[2]
    if flags and (column.category == "N" or (column.labels and not admin_labels(column.labels))):
        return flags
    return _role_of(column, group)


def _role_of(column: Column, group: Sequence[str]) -> Role:
    value = "{row}." + column.sql
    admins = admin_labels(column.labels, group)
    if column.category == "A":
        names = ", ".join(map(quote, admins or USUAL_ADMINS))
        return Role(
            f"array_to_string({value}::text[], ',')",
            f"{value}::text[] && array[{names}]",
            f"Several roles at once, in {column.name}.",
            None if admins else f"Which values of {column.name} make an admin or owner?",
        )
    if admins:
        return Role(
            value,
            one_of(value, admins),
            f"{column.name} holds one of {', '.join(column.labels)}.",
        )
    if column.labels:
        return Role(
            value,
            "false",
            f"{column.name} holds one of {', '.join(column.labels)}.",
            f"None of the values of {column.name} looks like an admin or owner: which may read?",
        )
    if column.category == "N":
        return Role(
            value,
            "false",
            f"{column.name} holds a number that only the application understands.",
            f"Which numbers in {column.name} make an admin or owner? Until then nobody reads.",
        )
    return Role(
        value,
        one_of(f"lower({value})", USUAL_ADMINS),
        f"{column.name} is text.",
        f"The catalog does not list the values of {column.name}: are these all that make an admin?",
    )


def _role_flags(table: Table) -> Role | None:
    """Return the role that boolean columns make, such as is_owner and is_admin."""
    flags = {
        name: column
        for name in ("owner", "admin")
        for column in table.columns
        if column.category == "B"
        and flat(column.name).removeprefix("is") in {name, f"{name}istrator", f"{name}user"}
    }
    if not flags:
        return None
    cases = " ".join(f"when {{row}}.{c.sql} then '{name}'" for name, c in flags.items())
    named = " and ".join(c.name for c in flags.values())
    return Role(
        f"case {cases} else 'member' end",
        " or ".join(f"{{row}}.{c.sql}" for c in flags.values()),
        f"{named} tell{'' if len(flags) > 1 else 's'} the role.",
    )


def role_name(table: Table) -> Role | None:
    """Return the role that a row of a table of roles stands for, by its own column or its name."""
    own = role_column(table)
    if own is not None or table.words[-1:] != ("role",):
        return own
    for wanted in ("name", "key", "slug", "code", "label", "title", "identifier", "rolename"):
        for column in table.columns:
            if flat(column.name) == wanted and column.category in "ES":
                value = "{row}." + column.sql
                return Role(
                    value,
                    one_of(f"lower({value}::text)", USUAL_ADMINS),
                    f"{column.name} of {table.name} names the role.",
                    f"Roles are rows of {table.name}: are these the names of all admins?",
                )
    return None
