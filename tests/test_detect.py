"""Detection: what is proposed for schemas of all styles, and that it works unedited."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from auditdb.detect.document import Proposal
from auditdb.detect.draft import Suggestion
from auditdb.detect.naming import words
from auditdb.detect.propose import detect
from auditdb.errors import InvalidInput
from auditdb.mapping.apply import apply
from auditdb.mapping.file import TableMapping, load
from auditdb.mapping.vocabulary import is_secret
from tests import schemas
from tests.conftest import Database

SCHEMAS = schemas.HERE
# Those whose proposal is kept as a file; what must hold for all of them is in tests/test_truth.py.
REAL = tuple(f"facts/{path.stem}" for path in sorted(SCHEMAS.glob("facts/*.toml")))
INVENTED = tuple(path.stem for path in sorted(SCHEMAS.glob("*.toml")))

# (action, organisation, target, subject) of an event.
Told = tuple[str, str | None, str | None, str | None]


def ddl(name: str) -> str:
    """Return the DDL of a schema, real or invented."""
    if name not in REAL:
        return (SCHEMAS / f"{name}.sql").read_text()
    return schemas.ddl(name.removeprefix("facts/"))


@dataclass
class Application:
    """A database with the tables of some application, owned by app_owner."""

    db: Database
    owner: psycopg.Connection[Any]
    _seen: int = 0

    def build(self, statements: str) -> None:
        self.owner.execute(statements.encode())
        self.owner.execute("reset search_path")

    def attach_detected(self) -> Proposal:
        proposal = detect(self.owner)
        apply(self.owner, load(proposal.to_toml()))
        return proposal

    def told(self, *statements: str) -> list[Told]:
        """Run statements and return what their events tell."""
        for statement in statements:
            self.owner.execute(statement.encode())
        events = self.db.events()
        new, self._seen = events[self._seen :], len(events)
        assert not [e for e in new if e["details"] and "degraded" in e["details"]]
        # What the plays write wherever a secret goes.
        assert "SECRET" not in repr(new)
        return [(e["action"], e["organization_id"], e["target_id"], e["subject_id"]) for e in new]

    def attach(self, table: TableMapping) -> None:
        """Attach a table as SQL does, with the options that a proposal has, if any."""
        options = "".join(f", {option} => %s" for option in table.options)
        self.owner.execute(
            f"select audit.attach(%s::text::regclass, %s{options})".encode(),
            (table.name, table.kind, *table.options.values()),
        )

    def mapping(self, table: str) -> dict[str, Any]:
        """Return the mapping in force for a table, but for what was given."""
        row = self.owner.execute(
            "select mapping - '{given,checked}'::text[] from audit_private.attachment "
            "where target = %s::text::regclass",
            (table,),
        ).fetchone()
        assert row is not None
        return dict(row[0])

    def may_read(self, organization: str, user: str) -> bool:
        with psycopg.connect(self.db.dsn) as conn:
            row = conn.execute(
                "select audit_private.is_admin(%s, %s)", (organization, user)
            ).fetchone()
        assert row is not None
        return bool(row[0])


@pytest.fixture
def app(empty_db: Database) -> Application:
    with psycopg.connect(empty_db.dsn) as conn:
        name = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("grant create on database {} to app_owner").format(name))
    return Application(empty_db, empty_db.connect("app_owner"))


def tables(text: str) -> list[TableMapping]:
    """Return the tables of a mapping file."""
    return [mapping for mapping in load(text) if isinstance(mapping, TableMapping)]


def found(proposal: Proposal, table: str) -> Suggestion:
    (only,) = (t for t in proposal.tables if t.name == table)
    return only


# What is proposed


@pytest.mark.parametrize("name", [*REAL, *INVENTED])
def test_the_tables_proposed_for_a_schema_are_the_reviewed_ones(
    app: Application, name: str
) -> None:
    app.build(ddl(name))
    proposed = tables(detect(app.owner).to_toml())
    reviewed = tables((SCHEMAS / f"{name}.toml").read_text())
    assert [(m.name, m.kind) for m in proposed] == [(m.name, m.kind) for m in reviewed]


# What an editor's command takes from each line that it uncomments.
PREFIXES = ("# ", "#")


def uncommented(text: str, prefix: str) -> str:
    return "\n".join(line.removeprefix(prefix) for line in text.splitlines())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", [*REAL, *INVENTED])
def test_a_guess_is_in_force_once_an_editor_uncomments_its_block(
    app: Application, name: str, prefix: str
) -> None:
    app.build(ddl(name))
    proposal = detect(app.owner)
    text = proposal.to_toml()
    blocks = [block for block in text.split("\n\n") if block.startswith("# [[table]]")]
    guesses = [(t.name, t.kind) for t in proposal.tables if not t.certain]
    assert len(blocks) == len(guesses)
    whole = uncommented(text, prefix)
    for block in blocks:
        toggled = uncommented(block, prefix)
        assert [(m.name, m.kind) for m in tables(toggled)] == [guesses.pop(0)]
        text = text.replace(block, toggled)
    assert len(tables(text)) == len(proposal.tables)
    # The whole file as well, its header and what was left out.
    assert tables(whole) == tables(text)


# Tables that attach maps otherwise without options than detect does, with the reason. There is
# none: what a table says of its options, SQL alone reads.
OTHERWISE: dict[str, str] = {}


@pytest.mark.parametrize("name", [*REAL, *INVENTED])
def test_attach_without_options_is_what_detect_proposes_and_the_reviewed_mapping(
    app: Application, name: str
) -> None:
    app.build(ddl(name))
    proposed = tables(detect(app.owner).to_toml())
    for table in proposed:
        app.attach(table)
    alone = {table.name: app.mapping(table.name) for table in proposed}
    changes = apply(app.owner, proposed)
    assert {change.name: change.verb for change in changes} == dict.fromkeys(alone, "unchanged")
    for table in tables((SCHEMAS / f"{name}.toml").read_text()):
        if table.name not in OTHERWISE:
            assert alone[table.name] == app.mapping(table.name), table.name
        reviewed = app.owner.execute(
            "select audit_private.resolve_mapping(%s::text::regclass, %s, %s) - 'given'",
            (table.name, table.kind, Jsonb(table.options)),
        ).fetchone()
        assert reviewed == (app.mapping(table.name),), table.name


@pytest.mark.parametrize("name", ["facts/calcom", "facts/documenso", "rails"])
def test_tables_attached_in_any_order_are_mapped_alike_once_attached_again(
    app: Application, name: str
) -> None:
    app.build(ddl(name))
    proposed = tables(detect(app.owner).to_toml())
    for table in reversed(proposed):
        # A membership says so where nothing is known to be an organisation yet.
        with contextlib.suppress(psycopg.errors.InvalidParameterValue):
            app.attach(table)
    apply(app.owner, proposed)
    for table in tables((SCHEMAS / f"{name}.toml").read_text()):
        assert app.mapping(table.name).get("organization") == table.options.get("organization")


@pytest.mark.parametrize("name", [*REAL, *INVENTED])
def test_every_table_stands_under_a_comment(app: Application, name: str) -> None:
    app.build(ddl(name))
    lines = detect(app.owner).to_toml().splitlines()
    for before, line in itertools.pairwise(lines):
        assert not before.endswith("[[table]]") or line.startswith("# "), line
    assert all(len(line) <= 100 for line in lines if line.startswith("# "))


@pytest.mark.parametrize("name", [*REAL, *INVENTED])
def test_no_secret_of_an_attached_table_is_left_unredacted(app: Application, name: str) -> None:
    app.build(ddl(name))
    app.attach_detected()
    in_force = app.owner.execute(
        "select target::regclass, mapping -> 'redact' from audit_private.attachment"
    )
    for table, redacted in in_force.fetchall():
        columns = app.owner.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 "
            "and atttypid not in ('boolean'::regtype, 'timestamptz'::regtype)",
            (table,),
        )
        secret = {column for (column,) in columns if is_secret(column)}
        assert secret <= set(redacted or ()), table


def test_detect_writes_nothing(app: Application) -> None:
    app.build(ddl("tenants"))
    with psycopg.connect(app.db.dsn, autocommit=True) as conn:
        conn.execute("set default_transaction_read_only = on")
        conn.execute("set role app_owner")
        assert detect(conn).tables
        row = conn.execute("select pg_current_xact_id_if_assigned()").fetchone()
    assert row == (None,)


def test_detect_inside_a_transaction_leaves_it_writable(app: Application) -> None:
    app.build(ddl("tenants"))
    conn = app.db.connect("app_owner", autocommit=False)
    conn.execute("set local search_path = public")
    detect(conn)
    conn.execute("insert into tenants (name) values ('x')")
    conn.commit()


def test_only_the_schemas_asked_for_are_proposed(app: Application) -> None:
    app.build(ddl("modules"))
    proposal = detect(app.owner, ["Tenancy"])
    assert {t.name for t in proposal.tables} == {
        '"Tenancy"."Company Member"', '"Tenancy"."Company"', '"Tenancy"."ApiKey"',
    }  # fmt: skip
    with pytest.raises(InvalidInput, match="did you mean 'Tenancy'"):
        detect(app.owner, ["tenancy"])


def test_an_empty_database_gives_a_file_that_attaches_nothing(app: Application) -> None:
    assert load(detect(app.owner).to_toml()) == []


def test_a_table_of_another_owner_is_commented_out_with_a_question(app: Application) -> None:
    app.build(ddl("tenants"))
    with psycopg.connect(app.db.dsn) as conn:
        conn.execute("alter table pipelines owner to postgres")
    proposal = detect(app.owner)
    assert not found(proposal, "public.pipelines").certain
    assert "belongs to another role" in proposal.to_toml()


def test_sessions_and_one_time_tokens_are_no_api_keys(app: Application) -> None:
    app.build(
        """
        create table users (id int primary key, email text, password_hash text);
        create table organizations (id int primary key);
        create table memberships (organization_id int references organizations,
            user_id int references users, role text, primary key (organization_id, user_id));
        create table sessions (id int primary key, user_id int references users, token text);
        create table session_tokens (id int primary key, user_id int references users, token text);
        create table verification_tokens (id int primary key, user_id int, token text, name text);
        create table refresh_tokens (id int primary key, user_id int references users, token text);
        create table users_tokens (id int primary key, user_id int references users,
            token bytea, context text);
        create table push_tokens (id int primary key, user_id int references users, token text);
        create table password_resets (id int primary key, user_id int, token text);
        create table notifications (id int primary key, user_id int references users,
            organization_id int references organizations, body text);
        """
    )
    certain = {(t.name, t.kind) for t in detect(app.owner).tables if t.certain}
    assert certain == {
        ("public.memberships", "membership"), ("public.users", "user"),
        ("public.organizations", "organization"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "admins"),
    [
        (["MEMBER", "OWNER", "ADMIN"], ("OWNER", "ADMIN")),
        (["owner", "manager", "member", "billing"], ("owner",)),
        (["ROLE_ADMIN", "ROLE_USER"], ("ROLE_ADMIN",)),
        (["super_admin", "Administrator", "billing_admin"], ("super_admin", "Administrator")),
        (["org:admin", "org:member", "TEAM_ADMIN"], ("org:admin",)),
        (["viewer", "editor"], ()),
    ],
)
def test_admins_are_owners_and_administrators_in_the_spelling_of_the_label(
    empty_db: Database, labels: Sequence[str], admins: tuple[str, ...]
) -> None:
    with psycopg.connect(empty_db.dsn) as conn:
        row = conn.execute("select audit_private.admin_labels(%s::text[])", (labels,)).fetchone()
    assert row == (list(admins),)


@pytest.mark.parametrize(
    "name", ["team_members", "TeamMembers", "teamMember", "teammember", "TEAM_MEMBER"]
)
def test_one_name_in_all_spellings_has_the_same_words(name: str) -> None:
    assert words(name) == ("team", "member")


def test_the_secrets_of_a_context_are_those_of_attach(empty_db: Database) -> None:
    names = [
        "password", "passwordHash", "key_hash", "hashedKey", "token", "tokenType", "token_count",
        "secretAt", "backupCodes", "recovery_code", "otp_secret", "two_factor_enabled", "salt",
        "basalt", "privateKey", "api_key", "expiresAt", "name", "encryptedData", "tokenExpires",
        "credentialId", "signing_key", "passphrase", "hash_algorithm", "hashAlgorithm", "email",
    ]  # fmt: skip
    for name in schemas.FACTS:
        tables = schemas.facts(name)["tables"].values()
        names += [column["name"] for table in tables for column in table["columns"]]
    with psycopg.connect(empty_db.dsn) as conn:
        query = "select n, audit_private.is_secret(n) from unnest(%s::text[]) as n"
        told: dict[str, bool] = dict(conn.execute(query, (names,)).fetchall())
    assert {name: is_secret(name) for name in names} == told


# What happens with it


def test_calcom_unedited(app: Application) -> None:
    app.build(ddl("facts/calcom"))
    app.build(
        """
        insert into "Team" (id, name, "parentId") values (1, 'Acme', null), (2, 'Sales', 1),
            (3, 'Globex', null);
        insert into users (id, email, role, "organizationId") values (10, 'a@x', 'ADMIN', 1),
            (11, 'b@x', 'USER', null), (12, 'c@x', 'USER', null);
        insert into "UserPassword" values ('h', 10), ('h', 11);
        insert into "Membership" (id, "teamId", "userId", role, accepted) values
            (20, 1, 10, 'OWNER', true), (21, 3, 12, 'ADMIN', true);
        """
    )
    app.attach_detected()
    assert app.told(
        """insert into "Membership" (id, "teamId", "userId", role) values (22, 2, 11, 'MEMBER')""",
        """update "Membership" set role = 'ADMIN' where id = 22""",
        """update "Membership" set accepted = true where id = 22""",
        """update "Membership" set "updatedAt" = now() where id = 22""",
    ) == [
        ("membership.added", "1", "22", "11"),
        ("membership.role_changed", "1", "22", "11"),
        ("membership.updated", "1", "22", "11"),
    ]
    assert app.told(
        """insert into "ApiKey" (id, "userId", "hashedKey") values ('k', 11, 'SECRET')""",
        """update "ApiKey" set "lastUsedAt" = now()""",
        """delete from "ApiKey" """,
        """insert into "Workflow" (id, name, "userId", trigger)
            values (5, 'w', 12, 'NEW_EVENT')""",
        """insert into "WorkflowStep" (id, "stepNumber", action, "workflowId")
            values (6, 1, 'EMAIL_HOST', 5)""",
        """delete from "Workflow" """,
    ) == [
        ("api_key.created", "1", "k", "11"),
        ("api_key.revoked", "1", "k", "11"),
        ("workflow.created", "3", "5", None),
        ("workflow.modified", "3", "5", None),
        ("workflow.deleted", "3", "5", None),
        ("workflow.modified", "3", "5", None),
    ]
    assert app.told(
        "update users set email = 'd@x' where id = 10",
        """update users set "twoFactorEnabled" = true, "twoFactorSecret" = 's' where id = 11""",
        """update "UserPassword" set hash = 'SECRET' where "userId" = 11""",
        'delete from "Team" where id = 2',
    ) == [
        ("auth.email_changed", "1", "10", "10"),
        ("auth.two_factor_enabled", "1", "11", "11"),
        ("auth.password_changed", "1", "11", "11"),
        ("organization.deleted", "1", "2", None),
        ("membership.removed", "1", "22", "11"),
    ]
    # A system administrator of Cal.com is no admin of a customer; nor is a sub-team's owner.
    app.told("""insert into "Membership" (id, "teamId", "userId", role, accepted)
        values (30, 1, 11, 'ADMIN', false)""")
    assert [app.may_read("1", user) for user in ("10", "11", "12")] == [True, False, False]


def test_documenso_unedited(app: Application) -> None:
    app.build(ddl("facts/documenso"))
    app.build(
        """
        insert into "User" (id, email, password) values (1, 'a@x', 'h'), (2, 'b@x', 'h');
        insert into "Organisation" (id, "updatedAt", type, name, url, "ownerUserId",
            "organisationClaimId", "organisationGlobalSettingsId",
            "organisationAuthenticationPortalId")
            values ('o', now(), 'ORGANISATION', 'Acme', 'acme', 1, 'c', 's', 'p');
        insert into "OrganisationGroup" (id, type, "organisationRole", "organisationId") values
            ('ga', 'INTERNAL_ORGANISATION', 'ADMIN', 'o'),
            ('gm', 'INTERNAL_ORGANISATION', 'MEMBER', 'o');
        insert into "Team" (id, name, url, "organisationId", "teamGlobalSettingsId")
            values (7, 't', 't', 'o', 's');
        """
    )
    app.attach_detected()
    member = """insert into "OrganisationMember" (id, "updatedAt", "userId", "organisationId")
        values ('m2', now(), 2, 'o')"""
    group = """insert into "OrganisationGroupMember" (id, "groupId", "organisationMemberId")
        values ('g{0}', '{0}', 'm2')"""
    assert app.told(member, group.format("gm")) == [
        ("membership.added", "o", "m2", "2"),
        ("membership.role_changed", "o", "m2", "2"),
    ]
    assert not app.may_read("o", "2")
    # Documenso promotes by taking the member out of one group and putting them into another.
    assert app.told('delete from "OrganisationGroupMember"', group.format("ga")) == [
        ("membership.role_changed", "o", "m2", "2"),
        ("membership.role_changed", "o", "m2", "2"),
    ]
    assert app.may_read("o", "2")
    assert app.told("""update "OrganisationGroupMember" set "groupId" = 'gm'""") == [
        ("membership.role_changed", "o", "m2", "2")
    ]
    changes = [e["details"] for e in app.db.events("action = 'membership.role_changed'")]
    assert [(c["previous_role"], c["new_role"]) for c in changes] == [
        (None, "MEMBER"),
        ("MEMBER", None),
        (None, "ADMIN"),
        ("ADMIN", "MEMBER"),
    ]
    assert [app.may_read("o", user) for user in ("1", "2")] == [False, False]
    assert app.told(
        """insert into "ApiToken" (id, name, token, "userId", "teamId")
            values (3, 'k', 'SECRET', 2, 7)""",
        'delete from "Team"',
        """update "User" set email = 'c@x' where id = 2""",
        """update "User" set password = 'SECRET', "lastSignedIn" = now() where id = 2""",
        """insert into "Passkey" (id, "userId", name, "credentialId", "credentialPublicKey",
            counter, "credentialDeviceType", "credentialBackedUp")
            values ('p', 2, 'k', 'SECRET', 'SECRET', 0, 'd', true)""",
        """update "Passkey" set counter = 1, "lastUsedAt" = now()""",
        'delete from "Passkey"',
    ) == [
        ("api_key.created", "o", "3", "2"),
        ("api_key.revoked", "o", "3", "2"),
        ("auth.email_changed", "o", "2", "2"),
        ("auth.password_changed", "o", "2", "2"),
        ("auth.two_factor_enabled", "o", "2", "2"),
        ("auth.two_factor_disabled", "o", "2", "2"),
    ]
    assert ("membership.removed", "o", "m2", "2") in app.told('delete from "OrganisationMember"')


def test_formbricks_unedited(app: Application) -> None:
    app.build(ddl("facts/formbricks"))
    app.build(
        """
        insert into "User" (id, updated_at, name, email, password)
            values ('u1', now(), 'a', 'a@x', 'h'), ('u2', now(), 'b', 'b@x', 'h');
        insert into "Organization" (id, updated_at, name) values ('o', now(), 'Acme');
        insert into "Team" (id, updated_at, name, "organizationId") values ('t', now(), 't', 'o');
        insert into "Membership" values ('o', 'u1', true, null, 'owner');
        """
    )
    app.attach_detected()
    assert app.told(
        """insert into "Membership" values ('o', 'u2', false, null, 'member')""",
        """update "Membership" set role = 'owner' where "userId" = 'u2'""",
    ) == [
        ("membership.added", "o", "u2,o", "u2"),
        ("membership.role_changed", "o", "u2,o", "u2"),
    ]
    assert [app.may_read("o", user) for user in ("u1", "u2")] == [True, False]
    accepted = """update "Membership" set accepted = true, role = 'member' where "userId" = 'u2'"""
    assert app.told(accepted) == [("membership.role_changed", "o", "u2,o", "u2")]
    assert app.told(
        """insert into "TeamUser" (updated_at, "teamId", "userId", role)
            values (now(), 't', 'u2', 'admin')""",
        """delete from "Membership" where "userId" = 'u1'""",
        """insert into "ApiKey" (id, label, "hashedKey", "organizationId", "createdBy")
            values ('k', 'l', 'SECRET', 'o', 'u2')""",
        'delete from "ApiKey"',
        """insert into "Workflow" (id, updated_at, name, "workspaceId", "createdBy", definition)
            values ('w', now(), 'n', 'ws', 'u2', '{}')""",
        """update "Workflow" set status = 'enabled'""",
        """insert into "WorkflowVersion" (id, "workflowId", "workspaceId", version, definition)
            values ('v', 'w', 'ws', 1, '{}')""",
        """update "User" set email = 'c@x', password = 'SECRET' where id = 'u2'""",
        """update "User" set "twoFactorEnabled" = true where id = 'u2'""",
    ) == [
        ("membership.added", "o", "t,u2", "u2"),
        ("membership.removed", "o", "u1,o", "u1"),
        ("api_key.created", "o", "k", "u2"),
        ("api_key.revoked", "o", "k", "u2"),
        ("workflow.created", "o", "w", None),
        ("workflow.modified", "o", "w", None),
        ("workflow.modified", "o", "w", None),
        ("auth.email_changed", "o", "u2", "u2"),
        ("auth.password_changed", "o", "u2", "u2"),
        ("auth.two_factor_enabled", "o", "u2", "u2"),
    ]
    assert not app.may_read("o", "u2")


def test_states_of_memberships_and_keys_unedited(app: Application) -> None:
    app.build(ddl("tenants"))
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(10)]
    tenant, owner, person, project, account, key, token, pipeline = ids[:8]
    app.build(
        f"""
        insert into tenants values ('{tenant}', 'Acme', '{owner}');
        insert into people (id, primary_email) values ('{owner}', 'a@x'), ('{person}', 'b@x');
        insert into tenant_members values ('{tenant}', '{owner}', 'member', 'active');
        insert into projects values ('{project}', '{tenant}', 'p');
        insert into service_accounts values ('{account}', '{project}', 's');
        """
    )
    app.attach_detected()
    row = f"{tenant},{person}"
    where = f"where person_id = '{person}'"
    assert app.told(
        f"insert into tenant_members values ('{tenant}', '{person}', 'admin', 'invited')"
    ) == [("membership.added", tenant, row, person)]
    assert [app.may_read(tenant, user) for user in (owner, person)] == [True, False]
    assert app.told(f"update tenant_members set status = 'active' {where}") == [
        ("membership.updated", tenant, row, person)
    ]
    assert app.may_read(tenant, person)
    assert app.told(
        f"update tenant_members set status = 'removed' {where}",
        f"update tenant_members set status = 'active', role = 'member' {where}",
        f"insert into service_account_keys values ('{key}', '{account}', 'SECRET')",
        "update service_account_keys set use_count = 5",
        "update service_account_keys set status = 'revoked'",
        f"insert into personal_access_tokens values ('{token}', '{person}', 'l', 'SECRET')",
        "update personal_access_tokens set is_active = false",
        f"insert into pipelines values ('{pipeline}', '{project}', 'p')",
        f"insert into pipeline_stages (pipeline_id, position) values ('{pipeline}', 1)",
        f"update people set mfa_enabled = true, mfa_secret = 'SECRET' where id = '{person}'",
        f"update people set password_digest = 'SECRET' where id = '{person}'",
    ) == [
        ("membership.removed", tenant, row, person),
        ("membership.added", tenant, row, person),
        ("api_key.created", tenant, key, None),
        ("api_key.revoked", tenant, key, None),
        ("api_key.created", tenant, token, person),
        ("api_key.revoked", tenant, token, person),
        ("workflow.created", tenant, pipeline, None),
        ("workflow.modified", tenant, pipeline, None),
        ("auth.two_factor_enabled", tenant, person, person),
        ("auth.password_changed", tenant, person, person),
    ]
    assert not app.may_read(tenant, person)


def test_users_that_are_their_own_memberships_unedited(app: Application) -> None:
    app.build(ddl("single"))
    app.build(
        """
        insert into workspaces values ('w', 'Acme'), ('v', 'Globex');
        insert into users values ('a', 'w', 'a@x', 'h', 'admin');
        """
    )
    app.attach_detected()
    assert app.told(
        "insert into users values ('b', 'w', 'b@x', 'h', 'member')",
        "update users set role = 'admin' where id = 'b'",
        "update users set email = 'c@x' where id = 'b'",
        "update users set totp_secret = 'SECRET' where id = 'b'",
        "update users set totp_secret = null where id = 'b'",
        "insert into automations values ('f', 'v', 'n', true)",
    ) == [
        ("membership.added", "w", "b", "b"),
        ("membership.role_changed", "w", "b", "b"),
        ("auth.email_changed", "w", "b", "b"),
        ("auth.two_factor_enabled", "w", "b", "b"),
        ("auth.two_factor_disabled", "w", "b", "b"),
        ("workflow.created", "v", "f", None),
    ]
    assert app.may_read("w", "b") and not app.may_read("v", "b")
    assert app.told("update users set deleted_at = now() where id = 'b'") == [
        ("membership.removed", "w", "b", "b")
    ]
    assert not app.may_read("w", "b")


def test_an_owner_s_table_unedited(app: Application) -> None:
    app.build(ddl("django"))
    app.build(
        """
        insert into auth_user (id, password, is_superuser, username, email, is_staff, is_active)
            values (1, 'h', true, 'a', 'a@x', true, true), (2, 'h', false, 'b', 'b@x', false, true);
        insert into organizations_organization (id, name) values (5, 'Acme');
        insert into organizations_organizationuser (id, organization_id, user_id)
            values (7, 5, 2), (8, 5, 1);
        """
    )
    app.attach_detected()
    assert not app.may_read("5", "1") and not app.may_read("5", "2")
    assert app.told(
        "update organizations_organizationuser set is_admin = true where id = 8",
        "insert into organizations_organizationowner values (9, 5, 7)",
        "insert into flows_flow (id, name, organization_id) values (3, 'f', 5)",
        "insert into flows_flownode (id, flow_id, config) values (4, 3, '{}')",
        "insert into flows_flownodeinput (flow_node_id, name) values (4, 'i')",
        "update auth_user set password = 'SECRET', last_login = now() where id = 2",
    ) == [
        ("membership.role_changed", "5", "8", "1"),
        ("membership.role_changed", "5", "7", "2"),
        ("workflow.created", "5", "3", None),
        ("workflow.modified", "5", "3", None),
        ("workflow.modified", "5", "3", None),
        ("auth.password_changed", "5", "2", "2"),
    ]
    assert app.may_read("5", "1") and app.may_read("5", "2")


def test_quoted_names_in_schemas_of_their_own_unedited(app: Application) -> None:
    app.build(ddl("modules"))
    app.build(
        """
        insert into "Identity"."User" ("Email") values ('a@x');
        insert into "Tenancy"."Company" ("Name") values ('Acme');
        insert into "Tenancy"."Role" values (1, 'Member'), (2, 'Admin');
        """
    )
    app.attach_detected()
    assert app.told(
        """insert into "Tenancy"."Company Member" values (1, 1, 1)""",
        """update "Tenancy"."Company Member" set "RoleId" = 2""",
    ) == [("membership.added", "1", "1,1", "1"), ("membership.role_changed", "1", "1,1", "1")]
    (change,) = app.db.events("action = 'membership.role_changed'")
    assert (change["details"]["previous_role"], change["details"]["new_role"]) == (
        "Member",
        "Admin",
    )
    assert not app.may_read("1", "1")
    app.told("""update "Tenancy"."Company Member" set "AcceptedAt" = now()""")
    assert app.may_read("1", "1")
    assert app.told(
        """insert into "Identity"."UserCredential" values (1, 'SECRET')""",
        """update "Identity"."UserCredential" set "FailedAttempts" = 3""",
        """insert into "Identity"."Authenticator" ("UserId", "Secret") values (1, 'SECRET')""",
        """update "Identity"."Authenticator" set "State" = 'verified'""",
        """insert into "Automation Engine"."Automation" ("CompanyId", "order") values (1, 1)""",
        """insert into "Automation Engine"."Automation Step" ("AutomationId") values (1)""",
        """update "Automation Engine"."Automation" set "IsDeleted" = true""",
    ) == [
        ("auth.password_changed", "1", "1", "1"),
        ("two_factor.prepared", "1", "1", "1"),
        ("auth.two_factor_enabled", "1", "1", "1"),
        ("workflow.created", "1", "1", None),
        ("workflow.modified", "1", "1", None),
        ("workflow.deleted", "1", "1", None),
    ]


def test_a_primary_key_that_is_a_secret_is_told_by_its_digest(app: Application) -> None:
    app.build(
        """
        create table users (id int primary key, email text);
        create table organizations (id int primary key);
        create table memberships (organization_id int references organizations,
            user_id int references users, role text, primary key (organization_id, user_id));
        create table api_tokens (key text primary key, user_id int not null references users);
        insert into organizations values (1);
        insert into users values (2, 'a@x');
        insert into memberships values (1, 2, 'member');
        """
    )
    app.attach_detected()
    [(action, organization, target, subject)] = app.told(
        "insert into api_tokens values ('SECRET', 2)"
    )
    assert (action, organization, subject) == ("api_key.created", "1", "2")
    # Keyed by a secret of the installation: nobody can try what it may be the digest of.
    assert re.fullmatch("[0-9a-f]{64}", str(target))
    assert target != hashlib.sha256(b"SECRET").hexdigest()


@pytest.mark.parametrize(
    ("key", "target", "parent"),
    [
        ("id int not null unique,", "id",
         "(select p.found from (select r.secret as key1, (r.id ) as found "
         "from public.api_tokens as r) as p where p.key1 = r.secret)"),
        ("", "secret", "r.secret"),
    ],
)  # fmt: skip
def test_a_secret_is_an_identifier_only_where_there_is_no_other(
    app: Application, key: str, target: str, parent: str
) -> None:
    app.build(
        f"""
        create table users (id int primary key, email text unique, password text);
        create table organizations (id int primary key);
        create table memberships (organization_id int references organizations,
            user_id int references users, role text, primary key (organization_id, user_id));
        create table api_tokens (secret text primary key, {key} name text,
            user_id int not null references users);
        create table api_token_access (secret text not null references api_tokens, project text,
            primary key (secret, project));
        """
    )
    app.attach_detected()
    assert app.mapping("public.api_tokens")["target_id"] == f"r.{target}"
    assert " ".join(app.mapping("public.api_token_access")["parent"].split()) == parent


def test_tables_without_a_kind_are_named(app: Application) -> None:
    app.build("create table gizmo (id int primary key); create table user_session (id int)")
    proposal = detect(app.owner)
    assert proposal.unrecognised == ("public.gizmo",)
    text = proposal.to_toml()
    assert text.endswith("\n# # Left out: no kind was recognised for public.gizmo\n")
    assert "public.user_session: sessions" in text


def test_names_of_tables_without_a_kind_are_wrapped_and_safe() -> None:
    names = tuple(f"public.a_table_of_some_length_{n}" for n in range(30))
    text = Proposal((), (), (*names, '"x\ny"')).to_toml()
    assert all(line.startswith("# ") and len(line) <= 98 for line in text.splitlines() if line)
    assert all(name in text for name in names)
