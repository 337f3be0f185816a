"""One sentence an event: who did what to whom, in the words of a language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup, escape

from auditdb.mapping.vocabulary import called
from auditdb.read.event import Event
from auditdb.values.plain import plain
from auditdb.web.names import Known, name_of
from auditdb.web.words import Words

# Makes the markup of a kind of object, its id and its name.
Mark: TypeAlias = Callable[[str, str, str], Markup]


def as_text(kind: str, found: str, name: str) -> Markup:
    """Return a name as it is, for what has no markup; the caller unescapes."""
    del kind, found
    return escape(plain(name))


def is_impersonated(event: Event) -> bool:
    """Return whether one acted as another."""
    return bool(event.impersonator_id) and event.impersonator_id != event.actor_id


@dataclass(frozen=True)
class Teller:
    """Says what happened, given the names that are known, and how one is marked."""

    words: Words
    known: Known
    mark: Mark = as_text

    def person(self, found: str | None) -> Markup:
        """Return a user by name."""
        return self._named("user", found) if found else self.words("nobody")

    def actor(self, event: Event) -> Markup:
        """Return who did it, both people while one acted as the other."""
        if is_impersonated(event):
            return self.words(
                "impersonated",
                impersonator=self.person(event.impersonator_id),
                actor=self._acting(event),
            )
        return self._acting(event)

    def _acting(self, event: Event) -> Markup:
        if not event.actor_id:
            return self.words("nobody")
        if event.actor_type == "user":
            return self.person(event.actor_id)
        if event.actor_type == "api_key":
            return self.words("key_actor", name=self._named("api_key", event.actor_id))
        name = self.mark(event.actor_type, event.actor_id, event.actor_id)
        if event.actor_type == "database":
            return self.words("database_actor", name=name)
        return self.words("system_actor", name=name)

    def _named(self, kind: str, found: str) -> Markup:
        return self.mark(kind, found, self.known.get((kind, found), found))

    def target(self, event: Event) -> Markup:
        """Return what it was done to: its kind and name."""
        if event.target_type is None:
            return Markup("")
        kind = escape(plain(self.words.term("noun", event.target_type)))
        if event.target_id is None:
            return kind
        own = (event.target_type, event.target_id)
        name = self.known.get(own) or name_of(event.new_values) or name_of(event.old_values)
        if "row_id" in (event.details or {}):  # The values are a part's.
            name = self.known.get(own)
        return Markup("{} {}").format(kind, self.mark(*own, name or event.target_id))

    def sentence(self, event: Event) -> Markup:
        """Return what happened, or what somebody tried and could not do."""
        details = event.details or {}
        verb = event.action.partition(".")[2]
        subject = event.subject_id or (event.target_id if event.target_type == "user" else None)
        found = None
        if subject is not None and subject == event.actor_id:
            found = self.words.get("sentence", f"{event.action}.self")
        found = found or self.words.get("sentence", event.action)
        part: Markup | str = ""
        if found is None or (event.captured_from is not None and "row_id" in details):
            if event.captured_from is not None and "row_id" in details and verb != "baseline":
                image = event.new_values if event.new_values is not None else event.old_values
                table = event.captured_from.rpartition(".")[2].strip('"')
                part = escape(plain(name_of(image) or self.words.term("noun", table)))
                if event.old_values is None:
                    verb = "part_added"
                elif event.new_values is None:
                    verb = "part_removed"
                else:
                    verb = "part_changed"
            found = self.words.get("verb", verb if event.target_type else "plain")
            found = found or self.words.get("verb", "other" if event.target_type else "plain")
        assert found is not None
        old, new = self._roles(event)
        done, tried = found
        return Markup(done if event.result == "success" else tried).format(
            **{
                "actor": self.actor(event),
                "impersonator": self.person(event.impersonator_id or event.actor_id),
                "subject": self.person(subject),
                "target": self.target(event),
                "part": part,
                "action": plain(self.words.term("action", event.action)),
                "old": old or self.words("null"),
                "new": new or self.words("null"),
                "as": Markup(self.words.get("sentence", "as")).format(role=new) if new else "",
                "count": plain(details.get("events", ""))[:60],
            }
        )

    def _roles(self, event: Event) -> tuple[Markup | None, Markup | None]:
        """Return the role before and after, of what a trigger saw or a call claimed."""
        details = event.details or {}
        old, new = details.get("previous_role"), details.get("new_role")
        if new is None:
            for name, value in called(event.new_values or {}):
                if "role" in name.lower() or "level" in name.lower():
                    new = value
        mark = [None if role is None else escape(plain(str(role)[:60])) for role in (old, new)]
        return mark[0], mark[1]
