"""CloudEvents 1.0 in its JSON format; `data` is the canonical bytes as they are."""

from __future__ import annotations

from json.encoder import encode_basestring

from auditdb.export.canonical import fields_of, place_of
from auditdb.export.formats.base import Format


def _convert(line: bytes) -> bytes:
    fields = fields_of(line)
    _, at = place_of(line)
    target = [fields[name] for name in ("target_type", "target_id") if fields[name]]
    attributes = {
        "specversion": "1.0",
        "id": fields["id"],
        "source": f"urn:uuid:{fields['series']}" if fields["series"] else "urn:auditdb",
        "type": f"auditdb.{fields['action']}",
        "time": at,
        "subject": "/".join(target),
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
