"""CloudEvents 1.0 in its JSON format; `data` is the canonical bytes as they are."""

from __future__ import annotations

import re
from json.encoder import encode_basestring

from auditdb.export.canonical import fields_of, place_of
from auditdb.export.formats.base import Format

# What the texts of attributes may not hold: controls, and code points that are no characters.
_FORBIDDEN = re.compile(
    "[\0-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(1, 17))
    + "]"
)


def _convert(line: bytes) -> bytes:
    fields = fields_of(line)
    _, at = place_of(line)
    subject = "/".join(fields[name] for name in ("target_type", "target_id") if fields[name])
    attributes = {
        "specversion": "1.0",
        "id": fields["id"],
        "source": f"urn:uuid:{fields['series']}" if fields["series"] else "urn:auditdb",
        "type": _FORBIDDEN.sub("?", f"auditdb.{fields['action']}"),
        "time": at,
        "subject": None if _FORBIDDEN.search(subject) else subject,
        "datacontenttype": "application/json",
        "dataschema": "urn:auditdb:event:1",
    }
    said = ",".join(
        f'"{name}":{encode_basestring(value)}' for name, value in attributes.items() if value
    )
    return b'{%s,"data":%s}' % (said.encode(), line)


CLOUDEVENTS = Format(
    name="cloudevents",
    convert=_convert,
    array_media_type="application/cloudevents-batch+json",
)
