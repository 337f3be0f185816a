"""The benchmark's tables as Django models, tracked for every operation."""

# mypy: disable-error-code="misc,untyped-decorator"

import pghistory
from django.db import models

from benchmarks.workloads import WIDE_COLUMNS


def every_operation() -> list[pghistory.RowEvent]:
    return [pghistory.InsertEvent(), pghistory.UpdateEvent(), pghistory.DeleteEvent()]


@pghistory.track(*every_operation())
class Member(models.Model):
    """The table of 9 columns."""

    id = models.IntegerField(primary_key=True)
    organization_id = models.IntegerField()
    user_id = models.IntegerField()
    role = models.TextField()
    name = models.TextField()
    email = models.TextField()
    quota = models.IntegerField()
    active = models.BooleanField()
    updated_at = models.DateTimeField()

    class Meta:
        """An existing table."""

        db_table = "member"
        managed = False


@pghistory.track(*every_operation())
class Wide(models.Model):
    """The table of 40 columns."""

    id = models.IntegerField(primary_key=True)
    organization_id = models.IntegerField()
    for _n in range(3, WIDE_COLUMNS + 1):
        locals()[f"c{_n}"] = models.TextField()

    class Meta:
        """An existing table."""

        db_table = "wide"
        managed = False
