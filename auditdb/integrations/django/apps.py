"""The app: INSTALLED_APPS += ["auditdb.integrations.django"]."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate


class AuditConfig(AppConfig):
    """Connects auditdb to the project."""

    name = "auditdb.integrations.django"
    label = "auditdb"
    verbose_name = "Audit log"

    def ready(self) -> None:
        """Connect everything; again does no harm."""
        from auditdb.integrations.django.commands import claim_commands
        from auditdb.integrations.django.mapping import attach_after_migrate
        from auditdb.integrations.django.tasks import claim_tasks

        checks.register(_check)
        connection_created.connect(_created, dispatch_uid="auditdb")
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                _created(connection=connection)
        claim_commands()
        claim_tasks()
        if apps.is_installed("django.contrib.auth"):
            from auditdb.integrations.django.events import listen

            listen()
        post_migrate.connect(attach_after_migrate, sender=self, dispatch_uid="auditdb")


def _created(*, connection: Any, **_: Any) -> None:
    if connection.vendor == "postgresql":
        # Needs the driver of PostgreSQL, which a project on another database lacks.
        from auditdb.integrations.django.sender import wrap

        wrap(connection)


def _check(**_: Any) -> list[Any]:
    from auditdb.integrations.django.conf import current

    try:
        current()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="auditdb.E001")]
    return []
