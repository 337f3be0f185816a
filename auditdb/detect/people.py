"""Rules for users, organisations, memberships, and tables that give members roles."""

from __future__ import annotations

import json
import re

from auditdb.detect.catalog import Column, Table
from auditdb.detect.draft import Draft, Question
from auditdb.detect.naming import flat, has_any, said, weights, words
from auditdb.detect.tenancy import Membership


def organizations(draft: Draft) -> None:
    """The organisations themselves."""
    table = draft.tenancy.organization
    if table is not None and table.key is not None:
        draft.take(
            table,
            "organization",
            "Organisations: if an identifier is used again, its new admins read from here on.",
        )


def memberships(draft: Draft) -> None:
    """Memberships of organisations and of teams in them, and other tables with their roles."""
    primary = draft.tenancy.primary
    for m in sorted(
        draft.tenancy.memberships,
        key=lambda m: (
            m is not primary, m.group is not draft.tenancy.organization, m.table.sql
        ),
    ):  # fmt: skip
        if m.table.oid in draft.found:
            continue
        is_set = m.group is not None and draft.tenancy.is_permission_set(m.group)
        if is_set or (m.group is None and not draft.tenancy.reaches(m.table)):
            _role_of_user(draft, m)
        else:
            _membership(draft, m)


def _membership(draft: Draft, m: Membership) -> None:
    """Rows that put a user into a group, or into an organisation that a column names."""
    tenancy, table, group = draft.tenancy, m.table, m.group
    way = tenancy.reaches(table)
    if not tenancy.has_subject(table) or (
        way is None and not tenancy.reaches_by_user(table) and not tenancy.is_single
    ):
        return
    inner = group is not None and (tenancy.primary is None or group is not tenancy.organization)
    called = group.name if group is not None else "the organisation that a column names"
    admins = not inner or tenancy.primary is None
    questions = [_asks_admin(draft, table)] if admins else []
    if m.score < 5:
        questions.append(
            Question(
                "membership-unsure",
                f"Are rows of {table.name} memberships? Its name or its keys do not say.",
            )
        )
    certain = m.score >= 5 or (m.score >= 3 and admins)
    if inner and way is None and not tenancy.is_single:
        certain = False
        questions.append(
            Question(
                "group-unknown", f"Nothing says which organisation a row of {called} belongs to."
            )
        )
    elif way is False and inner:
        questions.append(draft.asks_organization(table, "membership"))
    part = "" if tenancy.is_single else ", which is a part of an organisation"
    draft.take(
        table,
        "membership",
        f"Memberships of {called}{part}: an admin of it is no admin of the organisation."
        if inner
        else f"Memberships: a row puts a user into {called}.",
        questions=questions,
        certain=certain,
    )
    if not inner:
        _carriers(draft, table)


def _carriers(draft: Draft, members: Table) -> None:
    """Tables whose rows give roles to members; a guess without a foreign key to the members."""
    known = draft.tenancy.catalog.carriers(members)
    named = [
        draft.source(link)
        for link in draft.tenancy.catalog.links_to(members)
        if not set(draft.source(link).words) & said("people.no_member")
        and any(draft.target(other).head == "role" for other in draft.links(draft.source(link)))
    ]
    for carrier in dict.fromkeys((*known, *named)):
        if carrier.oid in draft.found or carrier is draft.tenancy.users:
            continue
        draft.take(
            carrier,
            "membership",
            f"Gives roles to {members.name}: a new or deleted row is a change of role.",
            questions=[
                None
                if carrier in known
                else Question(
                    "role-unsure",
                    f"Does {members.name} have its roles from here? Then say so in its block: "
                    "role and admin.",
                )
            ],
            certain=carrier in known,
            is_part=True,
        )


def _role_of_user(draft: Draft, m: Membership) -> None:
    """Rows that give a user a role without a group: an application with one organisation."""
    tenancy, table = draft.tenancy, m.table
    if tenancy.is_single or (tenancy.users is not None and tenancy.reaches(tenancy.users)):
        draft.take(
            table,
            "membership",
            "A row gives a user a role.",
            questions=[_asks_admin(draft, table)],
            certain=m.score >= 5,
        )
    else:
        draft.take(
            table,
            "membership",
            "A row gives a user a role in the whole application, and in no organisation.",
            questions=[Question("role-of-nobody", "Whose log should show it? As it is, nobody's.")],
            certain=False,
            options={"organization": "null::text", "admin": "false"},
        )


def _asks_admin(draft: Draft, table: Table) -> Question | None:
    """Return the question about who may read the log."""
    catalog = draft.tenancy.catalog
    if draft.tenancy.is_single:
        has_role = catalog.has_role(table) or any(
            draft.target(link).head == "role" for link in draft.links(table)
        )
        if has_role:
            return Question(
                "admin-labels",
                "Which roles make an admin, who may read the log? Attach takes those named owner, "
                "admin, administrator or superadmin, in no part of the application.",
            )
        return Question(
            "admin-unknown", "No role was recognised: whose rows make an admin? Nobody reads yet."
        )
    admin = catalog.admin(table)
    if admin == "false":
        number = _number(table)
        written = f"r.{number.sql} in (1, 2)" if number else ""
        return Question(
            "admin-unknown",
            "No role was recognised: whose rows make an admin? Nobody reads yet."
            if number is None
            else f"Its {number.name} is a number that only the application can name: which make "
            f"an admin? Nobody reads yet. Write here admin = {json.dumps(written)}, with these "
            "numbers.",
        )
    if "lower(" in admin:
        return Question(
            "admin-labels",
            "The catalog does not list the values of its role or status: does an admin have "
            "others than those that attach takes for one?",
        )
    return None


def _number(table: Table) -> Column | None:
    """Return the column that holds the role as a number."""
    return next(
        (
            column
            for column in table.columns
            if column.category == "N" and words(column.name)[-1] in {"role", "level"}
        ),
        None,
    )


def _asks_token(draft: Draft, table: Table) -> Question | None:
    """Return the question about a token of a user with an unclear purpose."""
    taken = draft.tenancy.catalog.has_fact(table, "token")
    for column in table.columns:
        name = flat(column.name)
        if column.category not in "SU":
            continue
        if re.match(r"(personal|static)?(api|personalaccess)(token|key)", name):
            return None
        if re.fullmatch(r"(auth|authentication|access)?token(hash|digest)?", name):
            return Question(
                "token-unsure",
                f"Does a program sign in as the user by {column.name}, for as long as it is there? "
                + (
                    'It is told as an API key. If it is of a session or used once: token = "".'
                    if taken
                    else f'Then write here token = "{column.name}": it is told as an API key.'
                ),
            )
    return None


def users(draft: Draft) -> None:
    """The users. If their row holds organisation and role, it is the membership too."""
    tenancy = draft.tenancy
    table = tenancy.users
    if table is None:
        draft.remarks.append(_no_users(draft))
        return
    why = "Users sign in with it: e-mail, password, two-factor."
    questions = [draft.asks_organization(table), _asks_token(draft, table)]
    if tenancy.is_single and not tenancy.memberships:
        why += " Their row holds their role as well."
        questions.append(_asks_admin(draft, table))
    elif tenancy.primary is None and not tenancy.memberships:
        if tenancy.reaches(table) is not None and tenancy.catalog.has_role(table):
            why = "Users belong to one organisation each: their row is the membership as well."
            questions.append(_asks_admin(draft, table))
        else:
            questions.append(
                Question(
                    "who-reads", "No table of memberships was recognised: who may read the log?"
                )
            )
    draft.take(table, "user", why, questions=questions)


def _no_users(draft: Draft) -> str:
    """Return the note that no users were found, with the tables named most like users."""
    said_by = weights("people.user")
    near = [t.sql for t in sorted(draft.free(), key=lambda t: -said_by.get(t.head, 0))
            if t.head in said_by][:3]  # fmt: skip
    remark = "No table with e-mail addresses or passwords of users was recognised."
    if not near:
        return remark
    return f'{remark} If it is {" or ".join(near)}, attach that as kind "user".'


def invitations(draft: Draft) -> None:
    """Invitations in a table of their own, before there is a membership."""
    noise = said("workflow.run") | said("workflow.result")
    for table in draft.free():
        told = set(table.words)
        named = bool(said("invite.name") & set(table.words[-2:])) and not told & noise
        signs = _signs_of_invitation(table)
        is_in_group = draft.tenancy.reaches(table) is not None and table.head not in said(
            "people.member"
        )
        structured = (
            is_in_group
            and not told & (said("people.no_member") - {"invite"})
            and ("inviter" in signs or {"secret", "role"} <= signs)
            and "invitee" in signs
            and len(signs) >= 3
            and not told & {"mail", "email"}
        )
        if not named and not structured:
            if "signup" in told and {"secret", "role"} <= signs:
                draft.take(
                    table,
                    "invitation",
                    "Links to sign up with a role, judged by the columns.",
                    questions=[Question("invite-unsure", "Do people invite others by these?")],
                    certain=False,
                )
            continue
        draft.take(
            table,
            "invitation",
            "Invitations: invitation.created, .updated, .deleted."
            if not named
            else "Invitations by e-mail: invitation.created, .updated, .deleted.",
            questions=[draft.asks_organization(table)],
            certain=named or {"inviter", "secret"} & signs != set(),
        )


def _signs_of_invitation(table: Table) -> set[str]:
    """Return the columns of an invitation: invited person, inviter, secret, role and expiry."""
    signs = set()
    for column in table.columns:
        told = set(words(column.name))
        if told & said("column.invitee"):
            signs.add("invitee")
        if has_any(column.name, said("invite.inviter")):
            signs.add("inviter")
        if told & said("column.secret") and column.category in "SU":
            signs.add("secret")
        if "role" in told:
            signs.add("role")
        if told & said("column.until"):
            signs.add("end")
    return signs
