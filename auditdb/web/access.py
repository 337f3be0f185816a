"""The viewer of the page, as returned by the callback of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from auditdb.errors import InvalidInput
from auditdb.values.convert import Id, as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The viewer of the page, and the organisations that they may ask for.

    The database checks the right by the memberships at each read. An organisation shows nothing
    if the viewer is not one of its admins.

    Args:
        viewer_id: the user who reads, as the memberships have it. Authenticate them first.
        organizations: the organisations they may ask for: ids, or ids with names.
        is_staff: whether this is staff of the vendor, who are not members. They read as an auditor
            (the login must be a member of `audit_auditor`), and the customer sees `audit.viewed` in
            the log, with `viewer_id` as the actor.
        zone: the initial time zone, such as "Europe/Berlin". Default: UTC.
        language: such as "de" or "de-AT". Default: that of the application, also for an unsupported
            language.
        scheme: "light" or "dark". Default: the setting of the browser.

    Raises:
        InvalidInput: an id is no string, integer or UUID; the zone or scheme is not known.
    """

    viewer_id: Id
    organizations: Mapping[Id, str] | Sequence[Id]
    is_staff: bool = False
    zone: str | None = None
    language: str | None = None
    scheme: Literal["light", "dark"] | None = None

    def __post_init__(self) -> None:
        if not as_text("viewer_id", self.viewer_id):
            raise InvalidInput("viewer_id is empty; for nobody answer None")
        if isinstance(self.organizations, str):
            raise InvalidInput("organizations is a string; give a list of ids, or ids and names")
        # For an auditor, an empty id would mean all organisations.
        if not all(as_text("organizations", own) for own in self.organizations):
            raise InvalidInput("organizations holds an id that is empty; give [] for none")
        if self.zone is not None:
            read_zone(self.zone)
        if self.scheme not in (None, "light", "dark"):
            raise InvalidInput(f"scheme is {self.scheme!r}; it is light or dark")

    @property
    def names(self) -> dict[str, str]:
        """The organisations by id, with what each is called."""
        called = self.organizations if isinstance(self.organizations, Mapping) else {}
        ids = [(as_text("organizations", own), own) for own in self.organizations]
        return {text: called.get(own) or text for text, own in ids}


def read_zone(name: str) -> ZoneInfo:
    """Return a time zone by its name.

    Raises:
        InvalidInput: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidInput(
            f"there is no time zone {name[:60]!r}; give one such as Europe/Berlin"
        ) from None
