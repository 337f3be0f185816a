"""Whether a row still counts, and whether it is more than an invitation: soft deletes, statuses."""

from __future__ import annotations

from dataclasses import dataclass

from auditdb.detect.catalog import Column, Table
from auditdb.detect.naming import DEAD_LABELS, PENDING_LABELS, among, flat, words
from auditdb.detect.roles import both, one_of


@dataclass(frozen=True)
class State:
    """Whether a row counts as existing, or is accepted: a condition over {row}, and why."""

    condition: str
    why: str
    question: str | None = None

    def of(self, row: str) -> str:
        """Return the condition for a row."""
        return self.condition.replace("{row}", row)

    def surely(self, row: str) -> str:
        """Return the condition for a row, false where it would be null."""
        condition = self.of(row)
        if condition.endswith(("is true", "is not true", "is null", "is not null")):
            return f"({condition})"
        return f"({condition}) is true" if " " in condition else f"{condition} is true"


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
        f"The catalog does not list the values of {status.name}: is this an accepted one?",
    )
