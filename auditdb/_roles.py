"""Of a row that grants something: its role, who is an admin by it, whether it still counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from auditdb._catalog import Column, Table
from auditdb._naming import (
    DEAD_LABELS,
    PENDING_LABELS,
    admin_labels,
    among,
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
    if not ranked or (flags and min(ranked)[0] > 3):
        return flags
    column = min(ranked)[2]
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
            f"Which numbers in {column.name} make an admin or owner? Until it is said, nobody reads.",
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
                    f"Roles are rows of {table.name}: are these the names of all that make an admin?",
                )
    return None


@dataclass(frozen=True)
class State:
    """Whether a row counts as existing, or is accepted: a condition over {row}, and why."""

    condition: str
    why: str
    question: str | None = None

    def of(self, row: str) -> str:
        """Return the condition for a row."""
        return self.condition.replace("{row}", row)


_ENDED = {
    "": ("deleted", "removed", "revoked", "discarded", "archived"),
    "user": ("deactivated",),
    "membership": ("deactivated", "disabled", "suspended", "left", "ended", "terminated"),
    "api_key": ("deactivated", "disabled", "invalidated", "suspended", "terminated", "rotated"),
    "two_factor": ("deactivated", "disabled"),
}
_ON = {
    "membership": ("active", "enabled"),
    "api_key": ("active", "enabled", "valid"),
    "two_factor": ("active", "enabled", "verified", "confirmed", "activated"),
}
_VERIFIED = frozenset(("verified", "active", "enabled", "confirmed", "activated"))


def _status(table: Table) -> Column | None:
    for column in table.columns:
        if words(column.name)[-1:] in {("status",), ("state",)} and column.category in "ES":
            return column
    return None


def alive(table: Table, kind: str) -> State | None:
    """Return the condition under which a row of the table counts as existing."""
    ended = _ENDED[""] + _ENDED.get(kind, ())
    found: list[tuple[str, str]] = []
    for column in table.columns:
        name, sql = flat(column.name).removeprefix("is"), "{row}." + column.sql
        if column.category == "D" and not column.not_null:
            verb = next((w for w in ended if name in {f"{w}at", f"{w}on", f"{w}date"}), None)
            if verb:
                found.append((f"{sql} is null", f"{column.name} is set when it is {verb}."))
            elif kind == "two_factor" and name.removesuffix("at") in _VERIFIED:
                found.append((f"{sql} is not null", f"{column.name} is set when it is verified."))
        elif column.category == "B":
            if name in ended:
                found.append((f"{sql} is not true", f"{column.name} is a soft delete."))
            elif name in _ON.get(kind, ()):
                found.append((f"{sql} is true", f"{column.name} tells whether it counts."))
    status, question = _status(table), None
    if status is not None and kind in _ON:
        state = _living_status(status, kind)
        if state is not None:
            found.append((state.condition, state.why))
            question = state.question
    if not found:
        return None
    return State(both(*(c for c, _ in found)), " ".join(why for _, why in found), question)


def _living_status(column: Column, kind: str) -> State | None:
    sql = "{row}." + column.sql
    if kind == "two_factor":
        good = [label for label in column.labels if among(label, _VERIFIED)]
        if good:
            return State(one_of(sql, good), f"{column.name} becomes {' or '.join(good)}.")
        return None
    if column.labels:
        dead = [label for label in column.labels if among(label, DEAD_LABELS)]
        if not dead:
            return None
        return State(
            f"({one_of(sql, dead)}) is not true",
            f"{column.name} ends it at {' or '.join(dead)}; what is pending counts.",
        )
    return State(
        f"({one_of(f'lower({sql})', sorted(DEAD_LABELS))}) is not true",
        f"{column.name} is text.",
        f"The catalog does not list the values of {column.name}: do these end it, and no others?",
    )


def accepted(table: Table) -> State | None:
    """Return the condition under which a membership is more than an invitation."""
    for column in table.columns:
        name, sql = flat(column.name).removeprefix("is").removeprefix("has"), "{row}." + column.sql
        if column.category == "B":
            if name in {
                "accepted",
                "confirmed",
                "approved",
                "joined",
                "verified",
                "inviteaccepted",
            }:
                return State(sql, f"{column.name}: an invited admin reads nothing yet.")
            if name in {"pending", "invited", "invitepending", "invitationpending"}:
                return State(
                    f"{sql} is not true", f"{column.name}: an invited admin reads nothing."
                )
        elif column.category == "D" and not column.not_null and column.default is None:
            if name in {"acceptedat", "joinedat", "confirmedat", "approvedat", "activatedat"}:
                return State(
                    f"{sql} is not null", f"{column.name}: an invited admin reads nothing."
                )
            if name in {"invitationacceptedat", "inviteacceptedat"}:
                sent = next(
                    (
                        other.sql
                        for other in table.columns
                        if flat(other.name) in {"invitationsentat", "invitedat", "invitesentat"}
                    ),
                    None,
                )
                unsent = f" or {{row}}.{sent} is null" if sent else ""
                return State(
                    f"({sql} is not null{unsent})", f"{column.name}: as accepted as it gets."
                )
    status = _status(table)
    if status is None:
        return None
    sql = "{row}." + status.sql
    why = f"{status.name}: an invited admin reads nothing yet."
    if status.labels:
        pending = [label for label in status.labels if among(label, PENDING_LABELS)]
        living = [
            label
            for label in status.labels
            if label not in pending and not among(label, DEAD_LABELS)
        ]
        return State(one_of(sql, living), why) if pending and living else None
    return State(
        f"lower({sql}) in ('active', 'accepted', 'approved', 'confirmed', 'enabled', 'joined')",
        why,
        f"The catalog does not list the values of {status.name}: is this what an accepted one says?",
    )
