"""Workflows of organisations."""

from __future__ import annotations

from django.db import models


class Organization(models.Model):
    """A customer."""

    name = models.TextField()

    class Meta:
        db_table = "organization"


class Workflow(models.Model):
    """What belongs to one."""

    organization = models.ForeignKey(Organization, models.CASCADE)
    name = models.TextField()

    class Meta:
        db_table = "workflow"
