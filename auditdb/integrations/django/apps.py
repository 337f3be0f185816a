"""The app: INSTALLED_APPS += ["auditdb.integrations.django"]."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.module_loading import import_string

_MIDDLEWARE = "auditdb.integrations.django.middleware.AuditMiddleware"


class AuditConfig(AppConfig):
    """Connects auditdb to the project."""

    name = "auditdb.integrations.django"
    label = "auditdb"
    verbose_name = "Audit log"

    def ready(self) -> None:
        """Connect everything. A second call has no effect."""
        from auditdb.integrations.django.commands import claim_commands
        from auditdb.integrations.django.mapping import attach_after_migrate

        checks.register(_check)
        connection_created.connect(_created, dispatch_uid="auditdb")
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                _created(connection=connection)
        claim_commands()
        _claim_tasks()
        if apps.is_installed("django.contrib.auth"):
            from auditdb.integrations.django.events import listen

            listen()
        post_migrate.connect(attach_after_migrate, sender=self, dispatch_uid="auditdb")


def _claim_tasks() -> None:
    """Let each task run under a claim, where Celery is installed."""
    if find_spec("celery") is None:
        return
    from auditdb.integrations.celery import instrument

    instrument()


def _created(*, connection: Any, **_: Any) -> None:
    if connection.vendor == "postgresql":
        # Needs a driver of PostgreSQL, which a project on another database may lack.
        from auditdb.integrations.django.sender import wrap

        wrap(connection)


def _check(**_: Any) -> list[Any]:
    """Return what is wrong with the project's settings."""
    from auditdb.integrations.django.conf import get_context

    try:
        get_context()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="auditdb.E001")]
    if not any(_is_audit_middleware(path) for path in settings.MIDDLEWARE):
        return [
            checks.Warning(
                "MIDDLEWARE has no AuditMiddleware, so requests are recorded without an actor",
                hint=f"Add {_MIDDLEWARE!r} behind AuthenticationMiddleware; silence auditdb.W001 "
                "where no requests are served",
                id="auditdb.W001",
            )
        ]
    return []


def _is_audit_middleware(path: str) -> bool:
    """Return whether it is the middleware or a subclass."""
    from auditdb.integrations.django.middleware import AuditMiddleware

    try:
        found = import_string(path)
    except ImportError:  # Django reports an invalid path itself.
        return False
    return isinstance(found, type) and issubclass(found, AuditMiddleware)
