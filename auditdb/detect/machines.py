"""Detection of API keys and of workflows, with the tables that hold parts of them."""

from __future__ import annotations

from dataclasses import dataclass

from auditdb.detect.catalog import Link, Table
from auditdb.detect.naming import OTHER_KEYS, flat, has, words
from auditdb.detect.rules import NEUTRAL, RESULTS, RUNS, Choice, Rules, short
from auditdb.detect.tenancy import GROUP_WORDS, Found, alias_of

_STRONG_KEYS = frozenset(
    "api service developer machine bot integration deploy sdk publishable pat ingest webservice"
    " application".split()
)
_KEY_PARTS = frozenset("permission scope environment grant access restriction allowlist".split())
_WORKFLOWS = {"workflow": 3, "automation": 3, "playbook": 3, "flow": 2, "pipeline": 2}
_WORKFLOWS |= {"journey": 2, "scenario": 2, "zap": 2, "runbook": 2, "orchestration": 2}
_WORKFLOWS |= dict.fromkeys(("sequence", "recipe", "cadence", "rule", "ruleset", "campaign"), 1)
_NOT_WORKFLOWS = frozenset(
    "login auth registration recovery verification cash session oauth signup setting".split()
)
_WORKFLOW_PARTS = frozenset(
    "step version node edge trigger action condition stage rule task connection variable revision"
    " transition block filter webhook input parameter branch schedule activity element"
    " state param argument dependency binding".split()
)


@dataclass(frozen=True)
class _Way:
    """A table, and the links that lead from its rows to the row they are part of."""

    table: Table
    links: tuple[Link, ...] = ()


class Machines(Rules):
    """What acts for people: keys and workflows."""

    def keys(self) -> None:
        """API keys and tokens, and the tables that say what a key may do."""
        roots = []
        for table in self._tables():
            strength = _key_strength(table)
            if not strength:
                continue
            shown = any(
                words(c.name)[-1:]
                in {("name",), ("label",), ("note",), ("description",), ("title",)}
                or has(c.name, "scope", "permission", "prefix")
                for c in table.columns
            )
            secret = bool(self._secrets(table, "api_key"))
            subject, organization = self._subject(table), self._organization(table)
            owned = subject is not None or self.tenancy.organization_of(table) is not None
            if (not secret and not shown) or (not owned and strength < 2):
                continue
            purposes = [
                c for c in table.columns if c.name in {"type", "purpose", "context", "kind"}
            ]
            borrowed = any(
                has(c.name, "refresh", "grant") or flat(c.name) == "clientid" for c in table.columns
            )
            certain = (
                owned and not borrowed and (strength > 1 or (shown and secret and not purposes))
            )
            roots.append(table)
            self._add(
                table,
                "api_key",
                "Keys or tokens for programs, by its name and what it holds.",
                [
                    organization,
                    self._target_id(table, "api_key"),
                    subject,
                    self._alive(table, "api_key"),
                ],
                questions=[
                    None if certain else "Are these API keys, and not sessions or one-time tokens?",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found[root.oid].certain:
                self._children(root, "api_key", _KEY_PARTS, frozenset(("key", "token")), _Way(root))

    # Workflows

    def workflows(self) -> None:
        """Workflows and the tables that hold their parts."""
        candidates = {t.oid: n for t in self._tables() if (n := self._workflow_score(t))}
        roots: list[Table] = []
        for oid, score in sorted(candidates.items(), key=lambda found: -found[1]):
            table = self.tenancy.catalog.tables[oid]
            if any(
                k.not_null
                and k.target in candidates
                and k.target != oid
                and candidates[k.target] >= score
                for k in self._links(table)
            ):
                continue
            if score < 3 and any(candidates[r.oid] > score for r in roots):
                self.notes.append(f"{table.sql}: named a little like a workflow.")
                continue
            organization = self._organization(table)
            made = self.tenancy.user_column(table)
            certain = score >= 3
            roots.append(table)
            self._add(
                table,
                "workflow",
                "Workflows, by its name and what it holds.",
                [
                    organization,
                    self._target_id(table, "workflow"),
                    self._chosen("subject", Found(f"r.{made[0].sql}", f"{made[0].name} owns it."))
                    if made and made[1] < 2
                    else None,
                    self._alive(table, "workflow"),
                ],
                questions=[
                    None if certain else "Are these workflows that people set up?",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found.get(root.oid) and self.found[root.oid].certain:
                last = next(w for w in reversed(root.words) if w not in NEUTRAL)
                self._children(root, "workflow", _WORKFLOW_PARTS, frozenset((last,)), _Way(root))

    def _workflow_score(self, table: Table) -> int:
        said = [w for w in table.words if w not in NEUTRAL]
        if (
            not said
            or set(said) & _NOT_WORKFLOWS
            or table in (self.tenancy.users, self.tenancy.organization)
        ):
            return 0
        name = max(
            _WORKFLOWS.get(said[-1], 0),
            3 if said[-1] in {"rule", "flow"} and set(said) & {"automation", "workflow"} else 0,
        )
        if not name:
            return 0
        columns = " ".join(" ".join(words(c.name)) for c in table.columns).split()
        evidence = 0
        evidence += bool(
            {"definition", "step", "node", "trigger", "graph", "config"} & set(columns)
        )
        evidence += bool({"enabled", "active", "published", "status"} & set(columns))
        evidence += any(
            self._source(k).words[-1] in _WORKFLOW_PARTS
            for k in self.tenancy.catalog.links_to(table)
        )
        return 3 if name == 3 else name + (evidence > 0) if name == 2 else int(evidence > 1)

    def _children(
        self, root: Table, kind: str, parts: frozenset[str], heads: frozenset[str], way: _Way
    ) -> None:
        """Tables whose rows are part of a row of the way's table, and what is part of those."""
        for link in self.tenancy.catalog.links_to(way.table):
            child = self._source(link)
            said = set(child.words)
            if child.oid in self.found or child in (self.tenancy.users, self.tenancy.organization):
                continue
            if not (link.on_delete == "c" or link.not_null):
                continue
            if said & RUNS or child.words[-1] in RESULTS:
                self._note(child, f"what {root.name} did, not what it is")
                continue
            if not (said & heads or child.words[-1] in parts):
                self._note(child, f"it references {way.table.name}, but is no part of it by name")
                continue
            further = _Way(child, (link, *way.links))
            self._add(
                child,
                kind,
                f"Part of {way.table.name}: a change here is a change of that {kind}, "
                "and belongs to the same organisation.",
                [
                    Choice(
                        "parent",
                        short(self._root_key(further.links, "r", kind)),
                        f"The row of {root.name} it is part of.",
                    ),
                    self._of_parent(child, link, way.table, inherits=not way.links),
                ],
            )
            if len(way.links) < 2:
                self._children(root, kind, parts, heads | {child.words[-1]}, further)

    def _root_key(self, links: tuple[Link, ...], row: str, kind: str) -> str:
        """Return the key of the root's row, by way of links from a row of a part."""
        link, *further = links
        if further:
            return self.tenancy.lookup(link, row, lambda t: self._root_key(tuple(further), t, kind))
        identity = self._identity(self._target(link), kind)
        key = identity[0] if len(identity) == 1 else None
        if (
            key is not None
            and key.name not in link.referenced
            and set(link.referenced) & (self._secrets(self._target(link), kind))
        ):
            # The part names the root by a secret, but the root has a key that is none.
            return self.tenancy.lookup(link, row, lambda t: f"{t}.{key.sql}")
        column = next(
            (
                column
                for column, name in zip(link.columns, link.referenced, strict=True)
                if key is not None and name == key.name
            ),
            link.columns[0],
        )
        return f"{row}.{column.sql}"

    def _of_parent(
        self, child: Table, link: Link, parent: Table, *, inherits: bool
    ) -> Choice | None:
        """The organisation of a part, where attach would not take it from the parent's mapping."""
        own = self.tenancy.organization_of(child, user=False)
        if own is not None and own.not_null and own.steps == 0:
            return self._chosen("organization", own)
        if inherits and parent.has_primary_key and parent.key is not None:
            return None
        found = self.tenancy.organization_of(parent, alias_of(parent, "r"))
        if found is None:
            return None
        organization = found.sql
        sql = self.tenancy.lookup(link, "r", lambda _: organization)
        return Choice("organization", short(sql), f"That of its {parent.name}.")


def _key_strength(table: Table) -> int:
    """Return 2 for a table named as API keys are, 1 for one that may be, else 0."""
    said = list(dict.fromkeys(w for w in table.words if w not in NEUTRAL))
    if not said or set(said) & OTHER_KEYS:
        return 0
    if said[-1] == "pat":
        return 2
    if said[-1] not in {"key", "token", "credential", "secret"}:
        return 0
    before = set(said[:-1])
    if before & _STRONG_KEYS or {"personal", "access"} <= before:
        return 2
    if said[-1] in {"key", "token"} and (
        not before or before <= {"auth", "access", "user", "app", *GROUP_WORDS}
    ):
        return 1
    return 0
