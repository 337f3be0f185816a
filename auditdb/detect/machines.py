"""Detection of API keys and of workflows, with the tables that hold parts of them."""

from __future__ import annotations

from auditdb.detect.catalog import Table
from auditdb.detect.naming import OTHER_KEYS, flat, has, words
from auditdb.detect.rules import NEUTRAL, RESULTS, RUNS, Rules
from auditdb.detect.tenancy import GROUP_WORDS

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
            secret = self.tenancy.catalog.has_secret(table, "api_key")
            owned = self.tenancy.has_subject(table) or self.tenancy.reaches(table) is not None
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
                questions=[
                    self._asks_organization(table),
                    None if certain else "Are these API keys, and not sessions or one-time tokens?",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found[root.oid].certain:
                self._children(root, "api_key", _KEY_PARTS, frozenset(("key", "token")))

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
            certain = score >= 3
            roots.append(table)
            self._add(
                table,
                "workflow",
                "Workflows, by its name and what it holds.",
                questions=[
                    self._asks_organization(table),
                    None if certain else "Are these workflows that people set up?",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found.get(root.oid) and self.found[root.oid].certain:
                last = next(w for w in reversed(root.words) if w not in NEUTRAL)
                self._children(root, "workflow", _WORKFLOW_PARTS, frozenset((last,)))

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
        self,
        root: Table,
        kind: str,
        parts: frozenset[str],
        heads: frozenset[str],
        within: tuple[Table, ...] = (),
    ) -> None:
        """Tables whose rows are part of a row of the root, and what is part of those."""
        whole = within[-1] if within else root
        for link in self.tenancy.catalog.links_to(whole):
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
                self._note(child, f"it references {whole.name}, but is no part of it by name")
                continue
            self._add(
                child,
                kind,
                f"Part of {whole.name}: a change here is a change of that {kind}, "
                "and belongs to the same organisation.",
            )
            if len(within) < 2:
                self._children(root, kind, parts, heads | {child.words[-1]}, (*within, child))


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
