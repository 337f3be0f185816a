"""Members of an OCSF event, made of what an event says; ocsf.toml names those of each class."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from json.encoder import encode_basestring
from typing import Any

from auditdb.export.canonical import fields_of, loads, place_of
from auditdb.export.formats.ocsf_mapping import mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "CONNECT", "PATCH"}
# Columns that are nowhere else as they are.
_REST = (
    "actor_type", "impersonator_id", "db_user", "db_role", "target_type", "target_id", "subject_id",
    "source", "captured_from",
)  # fmt: skip


class Said:
    """What an event says: its columns, and its details where they can be read."""

    def __init__(self, line: bytes) -> None:
        self.fields = fields_of(line)
        self.uid, self.at = place_of(line)
        try:
            details = loads(self.fields["details"])
        except RecursionError:
            details = None
        self._details = details if isinstance(details, dict) else {}
        self.has_device = bool(self.detail("device_id") or self.detail("device"))

    def __getitem__(self, column: str) -> Any:
        """Return a column that is a text or null, or the text of jsonb."""
        return self.fields[column]

    def detail(self, *path: str) -> str | None:
        """Return a detail that is a text or a whole number, as a text; else nothing."""
        value: Any = self._details
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) and value else None


def text(value: str | None) -> str | None:
    """Return JSON of a text, nothing of nothing."""
    return None if value is None else encode_basestring(value)


def json_object(**members: str | None) -> str | None:
    """Return JSON of an object whose members are JSON, without those that are nothing."""
    said = ",".join([f'"{name}":{value}' for name, value in members.items() if value is not None])
    return f"{{{said}}}" if said else None


def _typed(table: str, name: str | None) -> dict[str, str]:
    """Return the type of an actor or an entity, as ocsf.toml has it."""
    if not name:
        return {"type_id": "0", "type": '"Unknown"'}
    number, caption = mapping()[table].get(name, (99, name))
    return {"type_id": str(number), "type": encode_basestring(caption)}


def time(said: Said) -> dict[str, str | None]:
    """When: a time that is none of RFC 3339 is only in `metadata.original_time`."""
    if said.at is None:
        return {"time": "0"}
    since = datetime.fromisoformat(said.at) - _EPOCH
    return {
        "time": str(since // timedelta(milliseconds=1)),
        "time_dt": f'"{said.at}"',
        "timezone_offset": "0",
    }


def metadata(said: Said) -> dict[str, str | None]:
    """Version of OCSF, product, what tells the event from others, its action and organisation."""
    series = said["series"]
    profiles = [name for name, is_used in (('"datetime"', said.at), ('"host"', said.has_device))
                if is_used]  # fmt: skip
    made = json_object(
        version=text(mapping()["version"]),
        product=_product(),
        profiles=f"[{','.join(profiles)}]",
        uid=text(said.uid),
        event_code=text(said["action"]),
        correlation_uid=text(f"{series or '-'}:{said['transaction_id']}"),
        tenant_uid=text(said["organization_id"]),
        log_name='"audit.event"',
        log_version=f'"{said["version"]}"',
        original_time=text(said["occurred_at"]),
    )
    return {"metadata": made}


@lru_cache(maxsize=1)
def _product() -> str | None:
    return json_object(**{name: text(value) for name, value in mapping()["product"].items()})


def message(said: Said) -> dict[str, str | None]:
    """Return the event in a few words."""
    actor, impersonator = said["actor_id"], said["impersonator_id"]
    who = f"{impersonator} as {actor}" if impersonator not in (None, actor) else actor
    words = [said["action"], said["target_type"], said["target_id"], who and f"by {who}"]
    reason = said.detail("reason")
    return {"message": text(" ".join(filter(None, words))), "status_detail": text(reason)}


def actor(said: Said) -> dict[str, str | None]:
    """Who: the account that it was done as. Who acted as that account issued the session."""
    number, impersonator = said["actor_id"], said["impersonator_id"]
    user = None
    if number is not None:
        named = "name" if said["actor_type"] == "database" else "uid"
        user = json_object(
            **{named: text(number)},
            **_typed("actor", said["actor_type"]),
            credential_uid=text(number) if said["actor_type"] == "api_key" else None,
        )
    issuer = text(impersonator) if impersonator != number else None
    return {
        "actor": json_object(
            user=user,
            session=json_object(issuer=issuer),
            app_name=text(said["source"]) if user is None else None,
        )
    }


@lru_cache(maxsize=4096)
def _is_address(ip: str) -> bool:
    try:
        ip_address(ip)
    except ValueError:
        return False
    return len(ip) <= 40


def endpoint(said: Said) -> dict[str, str | None]:
    """From where; what is no address is a name."""
    ip = said.detail("ip")
    made: dict[str, str | None] = {}
    if ip is not None:
        made["src_endpoint"] = json_object(**{"ip" if _is_address(ip) else "name": text(ip)})
    if said.has_device:
        uid, name = said.detail("device_id"), said.detail("device")
        made["device"] = json_object(uid=text(uid), name=text(name), type_id="0")
    return made


def http_request(said: Said) -> dict[str, str | None]:
    """The request, as middleware notes it."""
    method, route = said.detail("method"), said.detail("route")
    made = json_object(
        uid=text(said.detail("request_id")),
        user_agent=text(said.detail("user_agent")),
        http_method=f'"{method}"' if method in _METHODS else None,
        url=json_object(path=text(route)) if route else None,
    )
    return {"http_request": made}


def user(said: Said) -> dict[str, str | None]:
    """The account that it is about."""
    uid = said["subject_id"] or (said["target_id"] if said["target_type"] == "user" else None)
    if uid is None:
        return {"user": '{"name":"unknown","type_id":0,"type":"Unknown"}'}
    return {"user": json_object(uid=text(uid), type_id="1", type='"User"')}


def group(said: Said) -> dict[str, str | None]:
    """What the account is a member of: a team, else the organisation."""
    uid = said.detail("group", "id") or said["organization_id"] or said["target_id"] or "unknown"
    kind = said.detail("group", "type") or "organization"
    return {"group": json_object(uid=text(uid), type=text(kind))}


def privileges(said: Said) -> dict[str, str | None]:
    """The role that was given, and where; the one before is in `unmapped`."""
    role = said.detail("new_role") or said.detail("role")
    where = group(said)["group"]
    return {"privileges": f"[{text(role) if role else ''}]", "resources": f"[{where}]"}


def service(said: Said) -> dict[str, str | None]:
    """What the account signed in to, and by which protocol."""
    made: dict[str, str | None] = {"service": json_object(name=text(said["source"]))}
    protocol = mapping()["protocol"].get(said["source"])
    if protocol is not None:
        made |= {"auth_protocol_id": str(protocol[0]), "auth_protocol": text(protocol[1])}
    if said["action"].startswith("auth.impersonation_"):
        made |= {"account_switch_type_id": "2", "account_switch_type": '"Impersonate"'}
    if said["target_type"] == "session":
        made["session"] = json_object(uid=text(said["target_id"]))
    return made


def auth_factors(said: Said) -> dict[str, str | None]:
    """The factor that was used or changed."""
    method = said.detail("method")
    if method is None or method in _METHODS:
        return {}
    number, caption = mapping()["factor"].get(method, (99, method))
    made = json_object(factor_type_id=str(number), factor_type=text(caption))
    return {"auth_factors": f"[{made}]"}


def entity(said: Said) -> dict[str, str | None]:
    """What it was done to, as it was and as it is."""
    name = said["target_type"] or said["action"].partition(".")[0]
    its = {"uid": text(said["target_id"]), "name": None, **_typed("entity", name)}
    if said["target_id"] is None:
        its["name"] = text(name)
    old, new = _value(said, "old_values"), _value(said, "new_values")
    made = {"entity": json_object(**its, data=old)}
    if new is not None:
        made["entity_result"] = json_object(**its, data=new)
    return made


def api(said: Said) -> dict[str, str | None]:
    """What was called, and upon what."""
    made: dict[str, str | None] = {"api": json_object(operation=text(said["action"]))}
    if said.detail("ip") is None:
        # The class wants one: the way in.
        made["src_endpoint"] = json_object(name=text(said["source"]))
    if said["target_id"] is not None:
        target = json_object(uid=text(said["target_id"]), type=text(said["target_type"]))
        made["resources"] = f"[{target}]"
    return made


def unmapped(said: Said, *, has_values: bool) -> dict[str, str | None]:
    """What has no place elsewhere as it is."""
    rest = {name: text(said[name]) for name in _REST}
    values = ("old_values", "new_values") if has_values else ()
    rest |= {name: _value(said, name) for name in (*values, "details")}
    return {"unmapped": json_object(**rest)}


def _value(said: Said, name: str) -> str | None:
    value: str = said[name]
    return None if value == "null" else value


# Of every event; and those that a class has beside, by their names in ocsf.toml.
COMMON = (time, metadata, message, actor, endpoint, http_request)
PARTS: dict[str, Callable[[Said], dict[str, str | None]]] = {
    part.__name__: part for part in (user, group, privileges, service, auth_factors, entity, api)
}
