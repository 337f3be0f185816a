"""Which tables hold users, memberships, keys, workflows, passwords and factors, and their options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from auditdb._catalog import Column, Link, Table
from auditdb._naming import flat, has, is_sensitive, is_touched, singular, words
from auditdb._roles import Role, accepted, alive, both, quote, role_column, role_name
from auditdb._tenancy import GROUP_WORDS, Found, Membership, Tenancy, alias_of

_STRONG_KEYS = frozenset(
    "api service developer machine bot integration deploy sdk publishable pat ingest webservice"
    " application".split()
)
_OTHER_KEYS = frozenset(
    "session refresh reset verification verify confirmation email invite csrf oauth oidc magic"
    " push device fcm apns password remember idempotency encryption license ssh gpg public signing"
    " jwt jwk blacklist blocklist denylist usage log event request audit rate login totp twofactor"
    " recovery activation unsubscribe download share webhook cache foreign primary sort"
    " translation registration authorization webauthn passkey security backup"
    " impersonation".split()
)
_KEY_PARTS = frozenset("permission scope environment grant access restriction allowlist".split())
_WORKFLOWS = {"workflow": 3, "automation": 3, "playbook": 3, "flow": 2, "pipeline": 2}
_WORKFLOWS |= {"journey": 2, "scenario": 2, "zap": 2, "runbook": 2, "orchestration": 2}
_WORKFLOWS |= dict.fromkeys(("sequence", "recipe", "cadence", "rule", "ruleset", "campaign"), 1)
_NOT_WORKFLOWS = frozenset(
    "login auth registration recovery verification cash session oauth signup setting".split()
)
_NEUTRAL = frozenset(("entity", "definition", "model", "record", "config", "table"))
_WORKFLOW_PARTS = frozenset(
    "step version node edge trigger action condition stage rule task connection variable revision"
    " transition block filter webhook input parameter branch schedule activity element"
    " state param argument dependency binding".split()
)
_RUNS = frozenset(
    "run execution log history job instance invocation reminder attempt delivery".split()
)
_RESULTS = frozenset(
    "event result metric stat statistic statistics analytics audit queue output trace error response"
    " enrollment checkpoint comment favorite view status notification message recipient report"
    " participant progress insight summary snapshot lock cache datum".split()
)
_FACTORS = frozenset(
    "twofactor totp factor authenticator passkey webauthn u2f fido fido2 security otp hotp".split()
)
_NOT_FACTORS = frozenset(
    "challenge attempt log token code session backup recovery request policy setting event static"
    " email group question audit history type amr claim".split()
)
_NOT_PASSWORDS = frozenset(
    "reset history token policy old previous forgot request log attempt recovery change link"
    " challenge file".split()
)


@dataclass(frozen=True)
class Choice:
    """One option of a table, and why it was chosen."""

    option: str
    value: str | tuple[str, ...]
    why: str
    question: str | None = None


@dataclass(frozen=True)
class Suggestion:
    """One table to attach; a guess where it is not certain."""

    name: str
    kind: str
    why: str
    choices: tuple[Choice, ...]
    questions: tuple[str, ...] = ()
    certain: bool = True

    @property
    def options(self) -> dict[str, str | list[str]]:
        """The options, as audit.attach takes them."""
        return {
            c.option: c.value if isinstance(c.value, str) else list(c.value) for c in self.choices
        }


def suggest(
    tenancy: Tenancy, schemas: frozenset[str] | None
) -> tuple[tuple[Suggestion, ...], tuple[str, ...]]:
    """Return the tables to attach, parents before children, and notes on what was left out."""
    rules = _Rules(tenancy, schemas)
    rules.memberships()
    rules.users()
    rules.keys()
    rules.workflows()
    rules.passwords()
    rules.factors()
    rules.invitations()
    rules.left_out()
    return tuple(rules.found.values()), tuple(rules.notes)


def _short(sql: str) -> str:
    """Return an expression as an option: a column alone goes without the r."""
    head, dot, column = sql.partition(".")
    plain = column.replace('""', "")
    quoted = plain.startswith('"') and plain.endswith('"') and '"' not in plain[1:-1]
    if head == "r" and dot and (quoted or column.replace("_", "").replace("$", "").isalnum()):
        return column
    if sql.startswith("(select") and sql.endswith(")") and _closes_at_end(sql):
        return sql[1:-1].replace("\n    ", "\n")
    return sql


def _closes_at_end(sql: str) -> bool:
    """Return whether the parenthesis that opens an expression is closed by its last character."""
    depth, quoted = 0, ""
    for n, c in enumerate(sql):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        else:
            depth += (c == "(") - (c == ")")
            if depth == 0:
                return n == len(sql) - 1
    return False


def _list(columns: Iterable[Column]) -> tuple[str, ...]:
    return tuple(column.name for column in columns)


@dataclass
class _Rules:
    """The rules, kind by kind; each table is taken once, by the first rule that is sure of it."""

    tenancy: Tenancy
    schemas: frozenset[str] | None
    found: dict[int, Suggestion] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def _tables(self) -> list[Table]:
        """Return the tables that no rule has taken yet."""
        return [
            t
            for t in self.tenancy.catalog.tables.values()
            if t.oid not in self.found and (self.schemas is None or t.schema in self.schemas)
        ]

    def _links(self, table: Table) -> tuple[Link, ...]:
        return self.tenancy.catalog.links[table.oid]

    def _target(self, link: Link) -> Table:
        return self.tenancy.catalog.tables[link.target]

    def _add(
        self,
        table: Table,
        kind: str,
        why: str,
        choices: Iterable[Choice | None],
        *,
        questions: Iterable[str | None] = (),
        certain: bool = True,
        ignore: tuple[str, ...] | None = None,
    ) -> None:
        """Take a table, with the options that every kind has."""
        if self.schemas is not None and table.schema not in self.schemas:
            return
        given = [choice for choice in choices if choice is not None]
        asked = [question for question in questions if question]
        if table.inherited:
            certain = False
            asked.append("Other tables inherit from it: attach those first.")
        if not table.owned and any(t.owned for t in self.tenancy.catalog.tables.values()):
            certain = False
            asked.append("It belongs to another role, which has to attach it.")
        if ignore is None:
            ignore = _list(c for c in table.columns if is_touched(c.name) or self._is_cache(c))
        if ignore:
            why_ignored = (
                "A change of these alone is no event: touch times, last uses, counters."
                if kind != "password"
                else "A change of anything but the password is no change of the password."
            )
            given.append(Choice("ignore", ignore, why_ignored))
        redacted = _list(
            c for c in table.columns if c.category != "B" and is_sensitive(c.name, kind)
        )
        if redacted:
            given.append(Choice("redact", redacted, "Recorded as changed, never with a value."))
        self.found[table.oid] = Suggestion(
            table.sql, kind, why, tuple(given), tuple(asked), certain
        )

    def _is_cache(self, column: Column) -> bool:
        """Whether a column counts the rows of another table, or is made for searching."""
        if column.type == "tsvector":
            return True
        said = words(column.name)
        return (
            column.category == "N"
            and len(said) > 1
            and said[-1] == "count"
            and any(said[:-1] == t.words for t in self.tenancy.catalog.tables.values())
        )

    # Options that several kinds have

    @staticmethod
    def _chosen(option: str, found: Found | None, question: str | None = None) -> Choice | None:
        if found is None:
            return None
        return Choice(option, _short(found.sql), found.why, question or found.question)

    def _organization(self, table: Table) -> Choice | None:
        return self._chosen("organization", self.tenancy.organization_of(table))

    def _subject(self, table: Table) -> Choice | None:
        return self._chosen("subject", self.tenancy.subject_of(table))

    @staticmethod
    def _target_id(table: Table) -> Choice | None:
        columns = table.identity
        if not columns:
            return None
        why = "The primary key." if table.has_primary_key else "A unique key without nulls."
        if len(columns) == 1:
            return Choice("target_id", columns[0].sql, why)
        joined = ", ".join(f"r.{c.sql}" for c in columns)
        return Choice("target_id", f"concat_ws(',', {joined})", why)

    @staticmethod
    def _alive(table: Table, kind: str) -> Choice | None:
        state = alive(table, kind)
        return Choice("alive", state.of("r"), state.why, state.question) if state else None

    # Users

    def users(self) -> None:
        """The users; where their own row says organisation and role, it is the membership too."""
        table = self.tenancy.users
        if table is None:
            self.notes.append(
                "users: no table with e-mail addresses or passwords of users was recognised."
            )
            return
        choices = [self._organization(table), self._target_id(table), self._alive(table, "user")]
        why, questions = "Users sign in with it: e-mail, password, two-factor.", []
        role = role_column(table, self._group_words())
        if self.tenancy.primary is None and choices[0] is not None and role is not None:
            why = "Users belong to one organisation each, so their row is the membership as well."
            state = accepted(table)
            choices.append(Choice("role", _short(role.value_of("r")), role.why, role.question))
            choices.append(
                Choice(
                    "admin",
                    both(role.admin_of("r"), state.of("r") if state else None),
                    "Whose users may read the log of their organisation.",
                )
            )
        elif self.tenancy.primary is None:
            questions.append("No table of memberships was recognised: who may read the log?")
        for option in ("email", "password", "two_factor"):
            choices.append(_fact(table, option))
        self._add(table, "user", why, choices, questions=questions)

    def _group_words(self, group: Table | None = None) -> tuple[str, ...]:
        table = group or self.tenancy.organization
        return table.words if table is not None else ()

    # Memberships

    def memberships(self) -> None:
        """Memberships of organisations, of teams inside them, and where else their roles live."""
        for m in sorted(
            self.tenancy.memberships,
            key=lambda m: (m.group is not self.tenancy.organization, m.table.sql),
        ):
            if m.table.oid not in self.found:
                self._membership(m)

    def _membership(self, m: Membership) -> None:
        table, group = m.table, m.group
        organization, subject = self._organization(table), self._subject(table)
        if organization is None or subject is None:
            return
        primary = self.tenancy.primary
        inner = primary is None or group is not self.tenancy.organization
        role = role_column(table, self._group_words(group)) or self._linked_role(table)
        carriers = [] if inner else self._carriers(table)
        choices = [organization, self._target_id(table), subject]
        questions: list[str | None] = []
        admin: list[str] = []
        if role is not None:
            choices.append(Choice("role", _short(role.value_of("r")), role.why, role.question))
            admin.append(role.admin_of("r"))
        elif carriers:
            link, carried = carriers[0]
            choices.append(
                Choice(
                    "role",
                    _short(self._of_carriers(link, carried)),
                    f"Roles are rows of {self._source(link).name}. {carried.why}",
                    carried.question,
                )
            )
        if not inner:
            for link, carried in carriers:
                admin.append(self._exists(link, carried))
        choices.append(self._alive(table, "membership"))
        if inner:
            why = f"Memberships of {group.name}, which is a part of an organisation."
            choices.append(
                Choice(
                    "admin", "false", f"An admin of {group.name} is no admin of the organisation."
                )
            )
        else:
            why = f"Memberships: a row puts a user into {group.name}."
            choices.append(self._admin(m, admin))
        if m.score < 5:
            questions.append(
                f"Are rows of {table.name} memberships? Its name or its keys do not say."
            )
        certain = m.score >= 5 or (m.score >= 3 and (not inner or primary is None))
        self._add(table, "membership", why, choices, questions=questions, certain=certain)
        for link, carried in carriers:
            self._carrier(table, link, carried)

    def _admin(self, m: Membership, roles: list[str]) -> Choice:
        """Who may read: an admin or owner, accepted, of the organisation itself and not of a part."""
        state = accepted(m.table)
        why = ["Who may read the log."]
        conditions = [self._any(roles)] if roles else []
        if roles and state:
            conditions.append(state.of("r"))
            why.append(state.why)
        owner = self._owner(m)
        if owner:
            conditions = [self._any([both(*conditions), owner] if conditions else [owner])]
            why.append(f"The owner that {m.group.name} names is one as well.")
        parent = self.tenancy.parent
        if parent is not None and conditions:
            link = next(k for k in self._links(m.table) if k.target == m.group.oid)
            conditions.append(self.tenancy.exists(link, "r", lambda t: f"{t}.{parent.sql} is null"))
            group = m.group.words[-1]
            why.append(f"An admin of a {group} that has a parent is none of the parent's.")
        question = state.question if state else None
        if not conditions:
            conditions = ["false"]
            question = "No role was recognised: whose rows make an admin? Nobody reads yet."
        return Choice("admin", "\nand ".join(conditions), " ".join(why), question)

    @staticmethod
    def _any(conditions: list[str]) -> str:
        """Return the conditions joined by OR, to stand beside others."""
        joined = " or ".join(
            f"({c})" if " and " in c and not c.startswith("exists") else c for c in conditions
        )
        return f"({joined})" if " or " in joined else joined

    def _owner(self, m: Membership) -> str | None:
        """The condition that the organisation's own row names the user as its owner."""
        found = self.tenancy.user_column(m.group)
        subject = self.tenancy.subject_of(m.table)
        if found is None or found[1] != 1 or subject is None:
            return None
        link = next(k for k in self._links(m.table) if k.target == m.group.oid)
        return self.tenancy.exists(link, "r", lambda g: f"{g}.{found[0].sql} = {subject.sql}")

    def _linked_role(self, table: Table) -> Role | None:
        """The role of a row by the table of roles that it references."""
        for link in self._links(table):
            target = self._target(link)
            if target in (self.tenancy.users, self.tenancy.organization, table):
                continue
            if target.words[-1:] == ("role",):
                role = role_name(target)
                if role is not None:
                    return replace(
                        role,
                        value=self.tenancy.lookup(link, "{row}", role.value_of),
                        admin=self.tenancy.exists(link, "{row}", role.admin_of),
                    )
        return None

    def _source(self, link: Link) -> Table:
        return self.tenancy.catalog.tables[link.source]

    def _carriers(self, members: Table) -> list[tuple[Link, Role]]:
        """Tables that give a member roles: by a column, by a group with a role, or by their name."""
        found = []
        has_own = (role_column(members) or self._linked_role(members)) is not None
        for link in self.tenancy.catalog.links_to(members):
            table = self._source(link)
            if (
                len(link.columns) != 1
                or table is self.tenancy.users
                or has(table.name, "invite", "log", "event", "session", "token", "key", "history")
            ):
                continue
            if table.words[-1] in {"owner", "admin", "administrator"} and len(table.columns) <= 8:
                name = table.words[-1]
                found.append((link, Role(quote(name), "true", f"A row is an {name}.")))
                continue
            if has_own:
                continue
            if any(
                m.table is table
                and m.group.words[-1] in ("team", "project")
                and role_column(m.group) is None
                for m in self.tenancy.memberships
            ):
                continue
            role = role_column(table, self._group_words()) or self._group_role(table, members)
            if role is not None:
                found.append((link, role))
        return found

    def _group_role(self, table: Table, members: Table) -> Role | None:
        """The role that belongs to the group which a row puts a member into."""
        for link in self._links(table):
            target = self._target(link)
            if target in (members, self.tenancy.users, self.tenancy.organization, table):
                continue
            role = role_column(target, self._group_words()) or role_name(target)
            if role is not None:
                return replace(
                    role,
                    value=self.tenancy.lookup(link, "{row}", role.value_of),
                    admin=self.tenancy.exists(link, "{row}", role.admin_of),
                    why=f"By {target.name}. {role.why}",
                )
        return None

    def _of_carriers(self, link: Link, role: Role) -> str:
        """All roles that the rows of another table give to a member, as one text."""
        table = self._source(link)
        text = f"({role.value_of('g')})::text"
        key = self.tenancy.catalog.tables[link.target].named[link.referenced[0]].sql
        return (
            f"(select string_agg(distinct {text}, ',' order by {text})\n    from {table.sql} as g\n"
            f"    where g.{link.columns[0].sql} = r.{key})"
        )

    def _exists(self, link: Link, role: Role) -> str:
        table = self._source(link)
        key = self.tenancy.catalog.tables[link.target].named[link.referenced[0]].sql
        condition = role.admin_of("g")
        more = "" if condition == "true" else f" and {condition}"
        return (
            f"exists (select from {table.sql} as g where g.{link.columns[0].sql} = r.{key}{more})"
        )

    def _carrier(self, members: Table, link: Link, role: Role) -> None:
        """A table that gives members their roles: its rows are role changes of the member."""
        table = self._source(link)
        alias = "m"
        organization = self.tenancy.organization_of(members, alias)
        user = self.tenancy.subject_of(members, alias)
        if organization is None or user is None or table.oid in self.found:
            return
        column = link.columns[0]

        def of_member(sql: str) -> str:
            return self.tenancy.lookup(link, "r", lambda _: sql)

        self._add(
            table,
            "membership",
            f"Gives members their role: a row that comes or goes changes the role of {members.name}.",
            [
                Choice("parent", column.sql, f"The member whose role it is, in {members.name}."),
                Choice("organization", _short(of_member(organization.sql)), "The member's."),
                Choice("subject", _short(of_member(user.sql)), "The member's user."),
                Choice("role", _short(role.value_of("r")), role.why, role.question),
            ],
        )

    # API keys

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
            secret = any(is_sensitive(c.name, "api_key") for c in table.columns)
            subject, organization = self._subject(table), self._organization(table)
            owned = subject is not None or organization is not None
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
                [organization, self._target_id(table), subject, self._alive(table, "api_key")],
                questions=[
                    None if certain else "Are these API keys, and not sessions or one-time tokens?",
                    None
                    if organization
                    else "No way to an organisation was found: set organization, "
                    "or organization_id in the context.",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found[root.oid].certain:
                self._children(root, "api_key", _KEY_PARTS, {"key", "token"}, None)

    # Workflows

    def workflows(self) -> None:
        """Workflows and the tables that hold their parts."""
        candidates = {t.oid: n for t in self._tables() if (n := self._workflow_score(t))}
        roots = []
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
                    self._target_id(table),
                    self._chosen("subject", Found(f"r.{made[0].sql}", f"{made[0].name} owns it."))
                    if made and made[1] < 2
                    else None,
                    self._alive(table, "workflow"),
                ],
                questions=[
                    None if certain else "Are these workflows that people set up?",
                    None
                    if organization
                    else "No way to an organisation was found: set organization, "
                    "or organization_id in the context.",
                ],
                certain=certain,
            )
        for root in roots:
            if self.found.get(root.oid) and self.found[root.oid].certain:
                last = next(w for w in reversed(root.words) if w not in _NEUTRAL)
                self._children(root, "workflow", _WORKFLOW_PARTS, {last}, None)

    def _workflow_score(self, table: Table) -> int:
        said = [w for w in table.words if w not in _NEUTRAL]
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
        heads: set[str],
        above: Callable[[Link, str], str] | None,
        depth: int = 0,
        table: Table | None = None,
    ) -> None:
        """Tables whose rows are part of a row of this one, and what is part of those."""
        parent_table = table or root
        for link in self.tenancy.catalog.links_to(parent_table):
            child = self._source(link)
            said = set(child.words)
            if child.oid in self.found or child in (self.tenancy.users, self.tenancy.organization):
                continue
            if not (link.on_delete == "c" or link.not_null):
                continue
            if self.schemas is not None and child.schema not in self.schemas:
                continue
            if said & _RUNS or child.words[-1] in _RESULTS:
                self._note(child, f"what {root.name} did, not what it is")
                continue
            if not (said & heads or child.words[-1] in parts):
                self._note(
                    child, f"it references {parent_table.name}, but is no part of it by name"
                )
                continue
            key = parent_table.key
            column = next(
                (
                    c
                    for c, n in zip(link.columns, link.referenced, strict=True)
                    if key is None or n == key.name
                ),
                link.columns[0],
            )

            def to_root(row: str, link: Link = link, column: Column = column) -> str:
                if above is None:
                    return f"{row}.{column.sql}"
                return self.tenancy.lookup(link, row, lambda t: above(link, t))

            self._add(
                child,
                kind,
                f"Part of {parent_table.name}: a change here is a change of that {kind}, and belongs to "
                "the same organisation.",
                [
                    Choice(
                        "parent", _short(to_root("r")), f"The row of {root.name} it is part of."
                    ),
                    self._of_parent(child, link, parent_table, inherits=depth == 0),
                ],
            )
            if depth < 2:
                self._children(
                    root,
                    kind,
                    parts,
                    heads | {child.words[-1]},
                    lambda _, row, up=to_root: up(row),
                    depth + 1,
                    child,
                )

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
        sql = self.tenancy.lookup(link, "r", lambda _: found.sql)
        return Choice("organization", _short(sql), f"That of its {parent.name}.")

    def _note(self, table: Table, why: str) -> None:
        note = f"{table.sql}: {why}."
        if note not in self.notes:
            self.notes.append(note)

    # Passwords, second factors, invitations

    def passwords(self) -> None:
        """Password hashes in a table of their own."""
        users = self.tenancy.users
        for table in self._tables():
            user = self.tenancy.user_column(table)
            if user is None or user[1] > 1 or set(table.words) & _NOT_PASSWORDS:
                continue
            named = has(table.name, "password", "passwd")
            held = [
                c
                for c in table.columns
                if (
                    has(c.name, "password", "passwd")
                    and c.category in "SU"
                    and not has(c.name, "reset", "token", "hint", "previous", "old")
                )
                or (
                    (named or has(table.name, "credential"))
                    and c.category in "SU"
                    and flat(c.name) in {"hash", "digest", "value", "hashedvalue", "secrethash"}
                )
            ]
            if not held:
                continue
            shared = any(has(c.name, "provider") for c in table.columns)
            certain = named or (
                not shared
                and (
                    table.is_unique(user[0].name)
                    or has(table.name, "credential", "auth", "login", "secret")
                )
            )
            keep = {c.name for c in held} | {user[0].name}
            self._add(
                table,
                "password",
                "Password hashes, apart from the users.",
                [self._organization(table), self._subject(table)],
                questions=[
                    "Rows without a password are in here too: each would be auth.password_changed "
                    "when it is inserted."
                    if shared
                    else None
                    if certain
                    else "Does a row hold the password that its user signs in with?",
                    f"{users.name} has a password column as well: which of the two is in use?"
                    if users is not None and _fact(users, "password")
                    else None,
                ],
                certain=certain and not shared,
                ignore=_list(
                    c for c in table.columns if c.name not in keep and not _in_key(table, c)
                ),
            )

    def factors(self) -> None:
        """Second factors in a table of their own."""
        users = self.tenancy.users
        flag = _fact(users, "two_factor") if users is not None else None
        for table in self._tables():
            said = set(table.words)
            user = self.tenancy.user_column(table)
            if user is None or user[1] > 1 or said & _NOT_FACTORS:
                continue
            strong = said & (_FACTORS - {"security", "factor", "otp"}) or (
                "credential" in said
                and any(
                    has(c.name, "webauthn", "transport", "counter", "credential")
                    and has(c.name, "id", "counter", "transport")
                    for c in table.columns
                )
                and any(has(c.name, "public") for c in table.columns)
            )
            weak = "factor" in said or {"security", "key"} <= said or {"security", "device"} <= said
            if not strong and not weak:
                continue
            passkey = bool(
                said & {"passkey", "webauthn", "u2f", "fido", "fido2"}
                or "credential" in said
                or {"security", "key"} <= said
            )
            state = alive(table, "two_factor")
            doubled = flag is not None and not passkey
            self._add(
                table,
                "two_factor",
                "Second factors of users, a row each.",
                [
                    self._organization(table),
                    self._subject(table),
                    Choice("alive", state.of("r"), state.why, state.question) if state else None,
                ],
                questions=[
                    f"{users.name} has a flag for it, which tells the same: both would make an event."
                    if doubled and users is not None
                    else None,
                    "Does a passkey count as a second factor here?" if passkey else None,
                ],
                certain=not doubled,
            )

    def invitations(self) -> None:
        """Invitations that are rows of their own, before there is a membership."""
        for table in self._tables():
            if not {"invite", "invitee"} & set(table.words[-2:]) or set(table.words) & (
                _RUNS | _RESULTS
            ):
                continue
            organization = self._organization(table)
            if organization is None:
                continue
            state = alive(table, "invitation")
            self._add(
                table,
                "invitation",
                "Invitations by e-mail: invitation.created, .updated, .deleted.",
                [
                    organization,
                    self._target_id(table),
                    Choice("alive", state.of("r"), state.why) if state else None,
                ],
            )

    def left_out(self) -> None:
        """Say what looks related and was not taken, so that its absence is seen to be meant."""
        for table in self._tables():
            said = set(table.words)
            if "session" in said:
                self._note(table, "sessions; record sign-ins with auditdb.auth.login")
            elif "impersonation" in said:
                self._note(
                    table, "a log of its own; record with auditdb.auth.impersonation_started"
                )
            elif said & {"token", "key"} and said & _OTHER_KEYS:
                self._note(table, "not API keys, by its name")
            elif {"password"} & said and said & _NOT_PASSWORDS:
                self._note(table, "not the password that users sign in with, by its name")
            elif said & _FACTORS - {"security"} and said & _NOT_FACTORS:
                self._note(table, "not a second factor itself, by its name")


def _in_key(table: Table, column: Column) -> bool:
    return any(column.name in key for key in table.keys)


def _key_strength(table: Table) -> int:
    """Return 2 for a table named as API keys are, 1 for one that may be, else 0."""
    said = [w for w in table.words if w not in _NEUTRAL]
    if not said or set(said) & _OTHER_KEYS:
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


def _fact(table: Table, option: str) -> Choice | None:
    """Return the column of a user's row that holds the e-mail address, password or factor."""
    if option == "email":
        for wanted in ("email", "emailaddress", "primaryemail", "useremail", "loginemail", "mail"):
            for c in table.columns:
                if flat(c.name) == wanted and c.category in "SU":
                    return Choice("email", c.name, "Its change is auth.email_changed.")
        return None
    if option == "password":
        ranked = [
            (not has(c.name, "hash", "digest", "encrypted", "hashed", "crypted"), n, c)
            for n, c in enumerate(table.columns)
            if (has(c.name, "password", "passwd", "pwd") or flat(c.name) in {"pwhash", "passhash"})
            and c.category in "SU"
            and not has(
                c.name, "reset", "token", "salt", "hint", "algorithm", "confirmation", "old"
            )
            and not has(c.name, "previous", "expired", "change", "type", "temp", "history")
        ]
        if not ranked:
            return None
        return Choice(
            "password",
            min(ranked, key=lambda f: f[:2])[2].name,
            "Its change is auth.password_changed.",
        )
    return _factor_fact(table)


def _factor_fact(table: Table) -> Choice | None:
    """Return the column that tells whether a user's second factor is on."""
    ranked: list[tuple[int, int, Column]] = []
    for n, c in enumerate(table.columns):
        if not any(
            mark in flat(c.name)
            for mark in ("twofactor", "2fa", "mfa", "totp", "otp", "twostep", "multifactor")
        ):
            continue
        if has(c.name, "required", "enforced") and "login" not in words(c.name):
            continue
        on = has(c.name, "enabled", "active", "confirmed", "activated", "verified", "enrolled")
        if c.category == "B":
            ranked.append((0 if on else 1, n, c))
        elif c.category == "D" and on:
            ranked.append((2, n, c))
        elif c.category in "SU" and not c.not_null and singular(words(c.name)[-1]) == "secret":
            ranked.append((3, n, c))
    if not ranked:
        return None
    rank, _, column = min(ranked, key=lambda found: found[:2])
    return Choice(
        "two_factor",
        column.name,
        "Its change is auth.two_factor_enabled or _disabled.",
        "No flag was found: is a secret there only while two-factor is on?" if rank == 3 else None,
    )
