"""Creates the tables, and attaches one."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models

from auditdb.integrations.django.operations import Attach


class Migration(migrations.Migration):
    """The first."""

    initial = True
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            "Organization",
            [("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())],
            {"db_table": "organization"},
        ),
        migrations.CreateModel(
            "Workflow",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.TextField()),
                ("organization", models.ForeignKey("shop.Organization", models.CASCADE)),
            ],
            {"db_table": "workflow"},
        ),
        Attach("shop.Workflow", kind="workflow", organization="organization_id"),
    ]
