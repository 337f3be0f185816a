"""Events of authentication, which no table of the application shows.

Each function returns a new event about a user, to be recorded: `auditdb.record(conn,
auth.login(7))`. The user is target and subject, and the actor as well unless `actor_id` or the
context in force names another. What more is known of every such event:

- `organization_id`: where the user belongs to one. Without it, only auditors see the event.
- `result`: `success`, `failure` or `denied`. Default: success.
- `source`: the way in, such as `web`, `api`, `saml` or `oauth`. Default: that of the context.
- `details`: a mapping, such as `ip`, `user_agent`, `reason`.

Every function raises TypeError where an argument is misspelt, and InvalidInput where a value is
none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from auditdb.values.arguments import ALIASES, unknown_argument
from auditdb.values.convert import Id
from auditdb.write.event import NewEvent


class AuthFields(TypedDict, total=False):
    """What every event of authentication may say; see the module."""

    organization_id: Id | None
    result: str
    actor_id: Id | None
    source: str | None
    details: Mapping[str, Any] | None


_NAMES = AuthFields.__annotations__.keys()
# What the functions of this module record: each is named as its action's verb.
VERBS = (
    "login", "logout", "session_revoked", "password_changed", "password_reset_requested",
    "account_locked", "account_unlocked", "two_factor_enabled", "two_factor_disabled",
    "recovery_code_used", "email_changed", "email_verified", "impersonation_started",
    "impersonation_stopped",
)  # fmt: skip


def login(
    user_id: Id | None, *, method: str | None = None, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that a user signed in, or tried to.

    Args:
        user_id: the user; None where no user is known by what was entered. Say in `details` what
            that was.
        method: how, such as `password`, `magic_link`, `passkey`, `saml`, `oauth`, `totp`,
            `recovery_code`; kept as `details.method`.
        fields: see `auditdb.auth`.

    Example:
        >>> login(7, organization_id=1, source="saml").action
        'auth.login'
    """
    return _about("login", user_id, fields, method=method)


def logout(user_id: Id, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that a user signed out.

    Example:
        >>> logout(7).action
        'auth.logout'
    """
    return _about("logout", user_id, fields)


def session_revoked(
    user_id: Id, *, session_id: Id | None = None, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that a session of a user was ended before its time, by whom the actor says.

    Args:
        user_id: the user.
        session_id: which session, by an identifier that opens none; None for every session.
        fields: see `auditdb.auth`.

    Example:
        >>> session_revoked(7, session_id=12, actor_id=1).target_type
        'session'
    """
    event = _about("session_revoked", user_id, fields)
    if session_id is None:
        return event
    return replace(event, target_type="session", target_id=session_id)


def password_changed(user_id: Id, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that a user's password was set or changed.

    Example:
        >>> password_changed(7, details={"reason": "reset"}).subject_id
        7
    """
    return _about("password_changed", user_id, fields)


def password_reset_requested(user_id: Id | None, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that somebody asked for a way to set a user's password anew.

    Who asked is not signed in: without `actor_id` or a context the event has no actor.

    Args:
        user_id: the user; None where no user is known by what was entered.
        fields: see `auditdb.auth`.

    Example:
        >>> password_reset_requested(7, details={"ip": "203.0.113.9"}).action
        'auth.password_reset_requested'
    """
    event = _about("password_reset_requested", user_id, fields)
    return replace(event, default_actor_id=None, default_actor_type=None)


def account_locked(user_id: Id, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that a user may not sign in any more, such as after too many failures.

    Without `actor_id` or a context the system did it.

    Example:
        >>> account_locked(7, details={"reason": "10 failures"}).action
        'auth.account_locked'
    """
    return _by_system(_about("account_locked", user_id, fields))


def account_unlocked(user_id: Id, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that a user may sign in again.

    Example:
        >>> account_unlocked(7, actor_id=1).action
        'auth.account_unlocked'
    """
    return _by_system(_about("account_unlocked", user_id, fields))


def two_factor_enabled(
    user_id: Id, *, method: str | None = None, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that a user switched two-factor authentication on.

    Args:
        user_id: the user.
        method: which factor, such as `totp` or `passkey`; kept as `details.method`.
        fields: see `auditdb.auth`.

    Example:
        >>> two_factor_enabled(7, method="totp").details
        {'method': 'totp'}
    """
    return _about("two_factor_enabled", user_id, fields, method=method)


def two_factor_disabled(
    user_id: Id, *, method: str | None = None, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that a user switched two-factor authentication off.

    Example:
        >>> two_factor_disabled(7, actor_id=1).actor_id
        1
    """
    return _about("two_factor_disabled", user_id, fields, method=method)


def recovery_code_used(user_id: Id, **fields: Unpack[AuthFields]) -> NewEvent:
    """Return the event that a user signed in with a recovery code instead of a second factor.

    Example:
        >>> recovery_code_used(7, details={"left": 9}).action
        'auth.recovery_code_used'
    """
    return _about("recovery_code_used", user_id, fields)


def email_changed(
    user_id: Id,
    *,
    old_email: str | None = None,
    new_email: str | None = None,
    **fields: Unpack[AuthFields],
) -> NewEvent:
    """Return the event that the e-mail address of a user changed.

    Example:
        >>> email_changed(7, new_email="b@acme.test").new_values
        {'email': 'b@acme.test'}
    """
    return replace(
        _about("email_changed", user_id, fields),
        old_values=None if old_email is None else {"email": old_email},
        new_values=None if new_email is None else {"email": new_email},
    )


def email_verified(
    user_id: Id, *, email: str | None = None, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that a user showed that an e-mail address is theirs, or tried to.

    Args:
        user_id: the user.
        email: which address; kept as `details.email`.
        fields: see `auditdb.auth`. A link that is expired or used is a `result` of `failure`.

    Example:
        >>> email_verified(7, email="b@acme.test").details
        {'email': 'b@acme.test'}
    """
    event = _about("email_verified", user_id, fields)
    return event if email is None else event.with_details({"email": email})


def impersonation_started(
    impersonator_id: Id, user_id: Id, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that an administrator begins to act as a user; give the reason in `details`.

    Then set the context of each request with the user as `actor_id` and the administrator as
    `impersonator_id`.

    Example:
        >>> impersonation_started(1, 7, details={"reason": "ticket 81"}).impersonator_id
        1
    """
    return _impersonation("started", impersonator_id, user_id, fields)


def impersonation_stopped(
    impersonator_id: Id, user_id: Id, **fields: Unpack[AuthFields]
) -> NewEvent:
    """Return the event that an administrator ceases to act as a user.

    Example:
        >>> impersonation_stopped(1, 7).actor_id
        1
    """
    return _impersonation("stopped", impersonator_id, user_id, fields)


def _about(
    verb: str, user_id: Id | None, fields: AuthFields, *, method: str | None = None
) -> NewEvent:
    """Return the event `auth.<verb>` about a user, who acts where nobody else is named."""
    for name in fields.keys() - _NAMES:
        raise unknown_argument(f"auth.{verb}()", name, _NAMES, ALIASES)
    event = NewEvent(
        action=f"auth.{verb}",
        target_type="user",
        target_id=user_id,
        subject_id=user_id,
        default_actor_id=user_id,
        default_actor_type="user",
        **fields,
    )
    return event if method is None else event.with_details({"method": method})


def _by_system(event: NewEvent) -> NewEvent:
    """Return an event that is nobody's act where no actor is named."""
    return replace(event, default_actor_id=None, default_actor_type="system")


def _impersonation(verb: str, impersonator_id: Id, user_id: Id, fields: AuthFields) -> NewEvent:
    event = _about(f"impersonation_{verb}", user_id, fields)
    return replace(event, actor_id=impersonator_id, impersonator_id=impersonator_id)
