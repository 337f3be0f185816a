"""Rules for workflows, and for the tables that hold parts of them."""

from __future__ import annotations

from auditdb.detect.catalog import Link, Table
from auditdb.detect.draft import Draft, Question
from auditdb.detect.naming import said, weights, words

_NEUTRAL = said("spelling.neutral")
_NAMES = weights("workflow.name")
_PARTS = said("workflow.part")
_RUNS = said("workflow.run")
_RESULTS = said("workflow.result")


def workflows(draft: Draft) -> None:
    """Workflows and the tables that hold their parts."""
    candidates = {t.oid: n for t in draft.free() if (n := _score(draft, t))}
    roots: list[Table] = []
    for oid, score in sorted(candidates.items(), key=lambda found: -found[1]):
        table = draft.tenancy.catalog.tables[oid]
        if any(
            k.not_null
            and k.target in candidates
            and k.target != oid
            and candidates[k.target] >= score
            for k in draft.links(table)
        ):
            continue
        if score < 3 and any(candidates[r.oid] > score for r in roots):
            draft.leave(table, "named a little like a workflow")
            continue
        certain = score >= 3
        roots.append(table)
        draft.take(
            table,
            "workflow",
            "Workflows, judged by name and columns.",
            questions=[
                draft.asks_organization(table),
                None
                if certain
                else Question("workflow-unsure", "Are these workflows that people set up?"),
            ],
            certain=certain,
        )
    for root in roots:
        if root.oid in draft.found:
            _parts(draft, root, (root,))
    for root in roots:
        if root.oid in draft.found:
            _refers_to(draft, root)


def _score(draft: Draft, table: Table) -> int:
    """Return how likely rows are workflows: 3 is certain, 0 is not at all."""
    told = [w for w in table.words if w not in _NEUTRAL]
    if (
        not told
        or set(told) & (said("workflow.other") | {"shared", "share"})
        or table in (draft.tenancy.users, draft.tenancy.organization)
    ):
        return 0
    last = told[-1]
    name = 3 if last in {"rule", "flow"} and set(told) & {"automation", "workflow"} else 0
    name = max(name, _NAMES.get(last, 0))
    held = {word for column in table.columns for word in words(column.name)}
    has_parts = any(draft.source(k).head in _PARTS for k in draft.tenancy.catalog.links_to(table))
    evidence = bool(said("column.plan") & held) + bool(said("column.switch") & held) + has_parts
    if name == 3:
        return 3
    if name == 2:
        return 2 + (evidence > 0)
    if name == 1:
        return int(evidence > 1)
    # Ordered steps or actions of something that can be switched on.
    in_order = any(
        draft.source(k).head in {"step", "action", "operation", "node"}
        and k.on_delete == "c"
        and any(said("column.order") & set(words(c.name)) for c in draft.source(k).columns)
        for k in draft.tenancy.catalog.links_to(table)
    )
    return int(in_order and bool({"enabled", "active"} & held))


def _parts(draft: Draft, root: Table, within: tuple[Table, ...]) -> None:
    """Tables whose rows are part of a row of the root, and parts of these parts."""
    whole = within[-1]
    for link in draft.tenancy.catalog.links_to(whole):
        child = draft.source(link)
        if child.oid in draft.found or child in (draft.tenancy.users, draft.tenancy.organization):
            continue
        if not (link.on_delete == "c" or link.not_null):
            draft.leave(child, f"its reference to {whole.name} is optional")
            continue
        why = _is_no_part(draft, child, within)
        if why:
            draft.leave(child, why.format(root.name))
            continue
        said_so = (link.declared or _is_named_part(draft, child, root)) and not (
            set(child.words) & said("workflow.unsure")
        )
        certain = said_so and draft.is_taken(whole, "workflow")
        draft.take(
            child,
            "workflow",
            f"Part of {whole.name}: a change here is a change of that workflow, "
            "and belongs to the same organisation.",
            questions=[
                None
                if said_so
                else Question(
                    "part-unsure",
                    f"Is it a part of {root.name} that people set up?"
                    if link.declared
                    else f"Is it a part of {root.name}? No foreign key says so.",
                )
            ],
            certain=certain,
            is_part=True,
        )
        if len(within) < 3:
            _parts(draft, root, (*within, child))


def _refers_to(draft: Draft, root: Table) -> None:
    """Guesses: tables that a workflow refers to, such as its trigger and its action."""
    for link in draft.links(root):
        table = draft.target(link)
        if table.oid not in draft.found and link.not_null and table.head in _PARTS:
            draft.take(
                table,
                "workflow",
                f"Each row of {root.name} refers to one.",
                questions=[
                    draft.asks_organization(table),
                    Question("part-unsure", f"Do people set them up as parts of {root.name}?"),
                ],
                certain=False,
            )


def _is_no_part(draft: Draft, child: Table, within: tuple[Table, ...]) -> str:
    """Return why a table that refers to a workflow is not a part of it, or None."""
    told = set(child.words) - {w for table in within for w in table.words}
    # Event types and event triggers are not events.
    beside = {w for link in draft.links(child) for w in draft.target(link).words}
    if told & {"trigger", "condition", "filter"} or within[-1].head == "trigger":
        beside.add("event")
    if told & _RUNS or (told - beside) & _RESULTS:
        return "what {} did or needs while it runs, not what it is"
    if child.head in _PARTS or child in draft.tenancy.owners(within[-1]):
        return ""
    held = {word for column in child.columns for word in words(column.name)}
    if held & said("workflow.runtime"):
        return "it references {}, and its columns tell of what happens, not of what is set up"
    user = draft.tenancy.user_column(child)
    if user is not None and user[1] == 0:
        return "what a user has to do with a row of {}"
    return ""


def _is_named_part(draft: Draft, child: Table, root: Table) -> bool:
    """Whether the name alone makes a part, in a schema without any foreign keys."""
    return (
        not any(k.declared for links in draft.tenancy.catalog.links.values() for k in links)
        and child.head in _PARTS
        and root.head in child.words
    )


def references(draft: Draft, table: Table) -> Link | None:
    """Return the link of a table to a workflow, or None."""
    for link in draft.links(table):
        taken = draft.found.get(link.target)
        if taken is not None and taken.kind == "workflow":
            return link
    return None
