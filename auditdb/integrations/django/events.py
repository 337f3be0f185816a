"""Events of authentication, from the signals of Django, django-allauth and django-hijack.

A sign-in never fails because of its event: an error while recording is only logged.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model, signals
from django.db import connections, router, transaction

from auditdb import auth
from auditdb.integrations.django.conf import covers, current
from auditdb.integrations.django.write import record
from auditdb.values.convert import is_text
from auditdb.write.event import NewEvent

_logger = logging.getLogger("auditdb")


def listen() -> None:
    """Connect to the signals of the installed apps."""
    _on(signals.user_logged_in, _logged_in)
    _on(signals.user_login_failed, _login_failed)
    _on(signals.user_logged_out, _logged_out)
    for app, name, receiver in (
        ("hijack", "hijack_started", _hijack_started),
        ("hijack", "hijack_ended", _hijack_ended),
        ("allauth.account", "email_changed", _email_changed),
        ("allauth.account", "password_set", _password_changed),
        ("allauth.account", "password_changed", _password_changed),
        ("allauth.account", "password_reset", _password_changed),
        ("allauth.mfa", "authenticator_used", _factor_used),
        ("allauth.mfa", "authentication_failed", _factor_failed),
        ("allauth.mfa", "authenticator_added", _factor_added),
        ("allauth.mfa", "authenticator_removed", _factor_removed),
    ):
        if apps.is_installed(app):
            signal = getattr(import_module(f"{app}.signals"), name, None)
            if signal is not None:  # Other versions may lack a signal.
                _on(signal, receiver)


def _on(signal: Any, receiver: Any) -> None:
    signal.connect(receiver, dispatch_uid=f"auditdb.{receiver.__name__}")


def _tell(group: str, event: NewEvent) -> None:
    """Record an event if the project enables its group; never raise an error."""
    using = router.db_for_write(get_user_model())
    connection = connections[using]
    if group not in (current().events or ()) or not covers(using, connection.vendor):
        return
    try:
        if connection.in_atomic_block:
            with transaction.atomic(using=using):
                record(event, using=using)
        else:
            record(event, using=using)
    except Exception:
        _logger.exception("auditdb could not record %s", event.action)


def _logged_in(*, request: Any, user: Any, **_: Any) -> None:
    if not _is_hijack(request):
        _tell("login", auth.login(str(user.pk)))


def _login_failed(*, credentials: Any, **_: Any) -> None:
    model = get_user_model()
    entered = credentials.get(model.USERNAME_FIELD, credentials.get("username"))
    text = "" if entered is None else str(entered)[:150]
    if not text or "login" not in (current().events or ()):
        return  # The attempt names no user.
    user_id = None
    if is_text(text):
        try:
            known = model._default_manager.filter(**{model.USERNAME_FIELD: text})
            user_id = known.values_list("pk", flat=True).first()
        except Exception:
            _logger.exception("auditdb could not look up who failed to sign in")
    _tell(
        "login",
        auth.login(
            None if user_id is None else str(user_id),
            result="failure",
            details={"username": text},
        ),
    )


def _logged_out(*, user: Any, **_: Any) -> None:
    if user is not None and user.pk is not None:
        _tell("logout", auth.logout(str(user.pk)))


def _is_hijack(request: Any) -> bool:
    """Return whether a sign-in is a part of starting or stopping an impersonation."""
    if not apps.is_installed("hijack"):
        return False
    match = getattr(request, "resolver_match", None)
    view = getattr(getattr(match, "func", None), "view_class", None)
    # Views of the project may be subclasses of these.
    return any(cls.__module__ == "hijack.views" for cls in getattr(view, "__mro__", ()))


def _hijack_started(*, hijacker: Any, hijacked: Any, **_: Any) -> None:
    event = auth.impersonation_started(str(hijacker.pk), str(hijacked.pk))
    _tell("impersonation", event)


def _hijack_ended(*, hijacker: Any, hijacked: Any, **_: Any) -> None:
    event = auth.impersonation_stopped(str(hijacker.pk), str(hijacked.pk))
    _tell("impersonation", event)


def _email_changed(
    *, user: Any, from_email_address: Any = None, to_email_address: Any = None, **_: Any
) -> None:
    event = auth.email_changed(
        str(user.pk),
        old_email=getattr(from_email_address, "email", None),
        new_email=getattr(to_email_address, "email", None),
    )
    _tell("email", event)


def _password_changed(*, user: Any, **_: Any) -> None:
    _tell("password", auth.password_changed(str(user.pk)))


def _factor_used(*, user: Any, authenticator: Any, **_: Any) -> None:
    if authenticator.type == "recovery_codes":
        _tell("recovery_code", auth.recovery_code_used(str(user.pk)))


def _factor_failed(*, user: Any, authenticator: Any = None, **_: Any) -> None:
    method = getattr(authenticator, "type", None)
    _tell("login", auth.login(str(user.pk), result="failure", method=method))


def _factor_added(*, user: Any, authenticator: Any, **_: Any) -> None:
    if authenticator.type != "recovery_codes":
        _tell("two_factor", auth.two_factor_enabled(str(user.pk), method=authenticator.type))


def _factor_removed(*, user: Any, authenticator: Any, **_: Any) -> None:
    if authenticator.type != "recovery_codes":
        _tell("two_factor", auth.two_factor_disabled(str(user.pk), method=authenticator.type))
