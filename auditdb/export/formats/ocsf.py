"""OCSF: ocsf.toml maps each action to a class and an activity.

Values without a place in the class are kept in `unmapped`. jsonb values are copied unchanged.
"""

from __future__ import annotations

from auditdb.export.formats.base import Format
from auditdb.export.formats.ocsf_mapping import case_of
from auditdb.export.formats.ocsf_parts import COMMON, PARTS, Said, json_object, unmapped


def _convert(line: bytes) -> bytes:
    said = Said(line)
    case = case_of(said["action"], said["result"], bool(said["target_id"]))
    members: dict[str, str | None] = {}
    for part in COMMON:
        members.update(part(said))
    for name in case.parts:
        members.update(PARTS[name](said))
    members.update(unmapped(said, has_values="entity" not in case.parts))
    return f"{case.head},{(json_object(**members) or '')[1:]}".encode()


OCSF = Format(name="ocsf", convert=_convert)
