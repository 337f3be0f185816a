"""Authentication events, which no table of the application shows.

Each function records one event about a user in the connection's transaction and returns its id, as
`auditdb.record` does and with its errors. The user is target and subject, and the actor as well
unless `actor_id` or the context in force names another. `result` is `success`, `failure` or
`denied`; what else is given, such as `ip`, `method` or `reason`, becomes part of `details`,
unless it is named as, or nearly as, an argument or a column of the log: that is a TypeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection, Connection

from auditdb._record import event_statement, send_event, send_event_async
from auditdb.connection.begin import Statement
from auditdb.values.arguments import check_details
from auditdb.values.convert import Id


def login(
    conn: Connection[Any],
    user_id: Id | None,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that a user signed in, or tried to.

    `user_id` is None where no user is known by what was entered; say in `details` what that was.

    Example:
        >>> login(conn, 7, organization_id=1, source="saml")  # doctest: +SKIP
        1042
    """
    event = _user_event("login", user_id, organization_id, result, actor_id, source, details)
    return send_event(conn, event)


async def login_async(
    conn: AsyncConnection[Any],
    user_id: Id | None,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `login` does."""
    event = _user_event("login", user_id, organization_id, result, actor_id, source, details)
    return await send_event_async(conn, event)


def password_changed(
    conn: Connection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that a user's password was set or changed.

    Example:
        >>> password_changed(conn, 7, organization_id=1, reason="reset")  # doctest: +SKIP
        1042
    """
    event = _user_event(
        "password_changed", user_id, organization_id, result, actor_id, source, details
    )
    return send_event(conn, event)


async def password_changed_async(
    conn: AsyncConnection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `password_changed` does."""
    event = _user_event(
        "password_changed", user_id, organization_id, result, actor_id, source, details
    )
    return await send_event_async(conn, event)


def two_factor_enabled(
    conn: Connection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that a user switched two-factor authentication on.

    Example:
        >>> two_factor_enabled(conn, 7, organization_id=1, method="totp")  # doctest: +SKIP
        1042
    """
    event = _user_event(
        "two_factor_enabled", user_id, organization_id, result, actor_id, source, details
    )
    return send_event(conn, event)


async def two_factor_enabled_async(
    conn: AsyncConnection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `two_factor_enabled` does."""
    event = _user_event(
        "two_factor_enabled", user_id, organization_id, result, actor_id, source, details
    )
    return await send_event_async(conn, event)


def two_factor_disabled(
    conn: Connection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that two-factor authentication of a user was switched off.

    Example:
        >>> two_factor_disabled(conn, 7, organization_id=1, actor_id=1)  # doctest: +SKIP
        1042
    """
    event = _user_event(
        "two_factor_disabled", user_id, organization_id, result, actor_id, source, details
    )
    return send_event(conn, event)


async def two_factor_disabled_async(
    conn: AsyncConnection[Any],
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `two_factor_disabled` does."""
    event = _user_event(
        "two_factor_disabled", user_id, organization_id, result, actor_id, source, details
    )
    return await send_event_async(conn, event)


def impersonation_started(
    conn: Connection[Any],
    impersonator_id: Id,
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that an administrator begins to act as a user; give the `reason` if there is one.

    Then set the context of each request with the user as `actor_id` and the administrator as
    `impersonator_id`.

    Example:
        >>> impersonation_started(conn, 1, 7, organization_id=1, reason="#81")  # doctest: +SKIP
        1042
    """
    event = _impersonation_event(
        "started", impersonator_id, user_id, organization_id, result, source, details
    )
    return send_event(conn, event)


async def impersonation_started_async(
    conn: AsyncConnection[Any],
    impersonator_id: Id,
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `impersonation_started` does."""
    event = _impersonation_event(
        "started", impersonator_id, user_id, organization_id, result, source, details
    )
    return await send_event_async(conn, event)


def impersonation_stopped(
    conn: Connection[Any],
    impersonator_id: Id,
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that an administrator ceases to act as a user.

    Example:
        >>> impersonation_stopped(conn, 1, 7, organization_id=1, source="web")  # doctest: +SKIP
        1042
    """
    event = _impersonation_event(
        "stopped", impersonator_id, user_id, organization_id, result, source, details
    )
    return send_event(conn, event)


async def impersonation_stopped_async(
    conn: AsyncConnection[Any],
    impersonator_id: Id,
    user_id: Id,
    *,
    organization_id: Id | None = None,
    result: str = "success",
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `impersonation_stopped` does."""
    event = _impersonation_event(
        "stopped", impersonator_id, user_id, organization_id, result, source, details
    )
    return await send_event_async(conn, event)


def email_changed(
    conn: Connection[Any],
    user_id: Id,
    *,
    old_email: str | None = None,
    new_email: str | None = None,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record that the e-mail address of a user changed, from `old_email` to `new_email`.

    Example:
        >>> email_changed(conn, 7, organization_id=1, new_email="b@acme.test")  # doctest: +SKIP
        1042
    """
    event = _user_event(
        "email_changed",
        user_id,
        organization_id,
        result,
        actor_id,
        source,
        details,
        old_email,
        new_email,
    )
    return send_event(conn, event)


async def email_changed_async(
    conn: AsyncConnection[Any],
    user_id: Id,
    *,
    old_email: str | None = None,
    new_email: str | None = None,
    organization_id: Id | None = None,
    result: str = "success",
    actor_id: Id | None = None,
    source: str | None = None,
    **details: Any,
) -> int:
    """Record as `email_changed` does."""
    event = _user_event(
        "email_changed",
        user_id,
        organization_id,
        result,
        actor_id,
        source,
        details,
        old_email,
        new_email,
    )
    return await send_event_async(conn, event)


def _user_event(
    verb: str,
    user_id: Id | None,
    organization_id: Id | None,
    result: str,
    actor_id: Id | None,
    source: str | None,
    details: Mapping[str, Any],
    old_email: str | None = None,
    new_email: str | None = None,
) -> Statement:
    known = {"user_id", "organization_id", "result", "actor_id", "source"}
    if verb == "email_changed":
        known |= {"old_email", "new_email"}
    check_details(f"auth.{verb}()", details, frozenset(known))
    return event_statement(
        f"auth.{verb}",
        result,
        default_actor=user_id,
        default_type="user",
        organization_id=organization_id,
        target_type="user",
        target_id=user_id,
        subject_id=user_id,
        actor_id=actor_id,
        source=source,
        old_values=None if old_email is None else {"email": old_email},
        new_values=None if new_email is None else {"email": new_email},
        details=details or None,
    )


def _impersonation_event(
    verb: str,
    impersonator_id: Id,
    user_id: Id,
    organization_id: Id | None,
    result: str,
    source: str | None,
    details: Mapping[str, Any],
) -> Statement:
    known = frozenset(("impersonator_id", "user_id", "organization_id", "result", "source"))
    check_details(f"auth.impersonation_{verb}()", details, known)
    return event_statement(
        f"auth.impersonation_{verb}",
        result,
        organization_id=organization_id,
        target_type="user",
        target_id=user_id,
        subject_id=user_id,
        actor_id=impersonator_id,
        impersonator_id=impersonator_id,
        source=source,
        details=details or None,
    )
