"""Frames: the request format of each kind of receiver, and the check of its response."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from auditdb.export.sinks.base import Delivery, Line, Poison, Rejected, Retry, SinkError
from auditdb.values.plain import counted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The request format of one kind of receiver over HTTPS.

    Attributes:
        path: the path below the address of the sink.
        media_type: of the body. Default: that of a line.
        body: makes the body.
        token_header: the header with the token, as %s.
        needs_token: whether the receiver accepts nothing without a token.
        most: the maximum number of events and bytes of a request.
        check: checks a 2xx response for so many lines; returns an error, or None.
        is_signed: whether requests are signed as in Standard Webhooks.
    """

    path: str = ""
    media_type: str | None = None
    body: Callable[[Delivery], bytes] = field(default=lambda delivery: delivery.body)
    token_header: tuple[str, str] = ("Authorization", "Bearer %s")
    needs_token: bool = True
    most: tuple[int, int] = (10_000, 4_000_000)
    check: Callable[[bytes, int], SinkError | None] = field(default=lambda answer, lines: None)
    is_signed: bool = False


def array(delivery: Delivery) -> bytes:
    """Return the lines as a JSON array."""
    return b"[" + b",".join([line.data for line in delivery.lines]) + b"]"


def _with(members: bytes, line: Line) -> bytes:
    """Return the JSON object of a line, with more members in front."""
    return b"{" + members + (b"," if line.data[1:2] != b"}" else b"") + line.data[1:]


def _seconds(at: str | None) -> str | None:
    try:
        return f"{datetime.fromisoformat(at).timestamp():.6f}" if at else None
    except (ValueError, OverflowError):
        return None


def _splunk_body(delivery: Delivery) -> bytes:
    source = json.dumps(f"auditdb:{delivery.subscription}").encode()
    lines = []
    for line in delivery.lines:
        time = _seconds(line.at)
        begin = b'{"time":%s,' % time.encode() if time else b"{"
        lines.append(b'%s"source":%s,"sourcetype":"auditdb","event":%s}\n'
                     % (begin, source, line.data))  # fmt: skip
    return b"".join(lines)


def _splunk_answer(answer: bytes, lines: int) -> SinkError | None:
    said = _object(answer)
    code = said.get("code")
    if type(code) is not int:
        return Retry("the response is not from Splunk's collector")
    return Retry(f"Splunk says {str(said.get('text'))[:200]}") if code else None


def _elastic_body(delivery: Delivery) -> bytes:
    """Return actions that create each document once. A refused repetition counts as accepted."""
    lines = []
    for line in delivery.lines:
        lines.append(b'{"create":{"_id":%s}}\n' % json.dumps(line.key).encode())
        at = b'"@timestamp":%s' % json.dumps(line.at).encode() if line.at else b""
        lines.append((_with(at, line) if at else line.data) + b"\n")
    return b"".join(lines)


def _elastic_answer(answer: bytes, lines: int) -> SinkError | None:
    items = _object(answer).get("items")
    made: list[Any] = [
        next(iter(item.values()), None) if isinstance(item, dict) else None
        for item in (items if isinstance(items, list) else ())
    ]
    if len(made) != lines or not all(
        isinstance(one, dict) and type(one.get("status")) is int for one in made
    ):
        return Retry("the response is not from Elastic's _bulk for this number of events")
    wrong = [one for one in made if not (200 <= one["status"] < 300 or one["status"] == 409)]
    if not wrong:
        return None
    codes = {one["status"] for one in wrong}
    error = wrong[0].get("error") or {}
    reason = f"{error.get('type')}: {error.get('reason')}"[:300] if isinstance(error, dict) else ""
    if codes & {429} or max(codes) >= 500:
        return Retry(f"Elastic did not take {counted(len(wrong), 'event')}: {reason}")
    if codes & {401, 403, 404}:
        return Rejected(f"Elastic refuses {counted(len(wrong), 'event')}: {reason}")
    return Poison(f"Elastic refuses {counted(len(wrong), 'event')}: {reason}")


def _datadog_body(delivery: Delivery) -> bytes:
    tags = json.dumps(f"subscription:{delivery.subscription}").encode()
    entries = [
        b'{"ddsource":"auditdb","service":"auditdb","ddtags":%s%s,"message":%s}'
        % (tags, b',"timestamp":%s' % json.dumps(line.at).encode() if line.at else b"",
           json.dumps(line.data.decode()).encode())
        for line in delivery.lines
    ]  # fmt: skip
    return b"[" + b",".join(entries) + b"]"


def _nanoseconds(at: str | None) -> int | None:
    """Return a time as OpenTelemetry counts it, if its 64 bits without a sign can hold it."""
    try:
        since = datetime.fromisoformat(at) - _EPOCH if at else None
    except ValueError:
        return None
    count = since // timedelta(microseconds=1) * 1000 if since is not None else 0
    return count if 0 < count < 2**64 else None


def _attributes(texts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": text}} for name, text in texts.items()]


def _otlp_record(line: Line) -> dict[str, Any]:
    nanoseconds = _nanoseconds(line.at)
    return {
        # Numbers of 64 bits are texts in JSON of protobuf. 9 is INFO.
        **({"timeUnixNano": str(nanoseconds)} if nanoseconds else {}),
        "severityNumber": 9,
        "body": {"stringValue": line.data.decode()},
        "attributes": _attributes({"log.record.uid": line.key}),
    }


def _otlp_body(delivery: Delivery) -> bytes:
    named = {"service.name": "auditdb", "auditdb.subscription": delivery.subscription}
    records = [_otlp_record(line) for line in delivery.lines]
    logs = {
        "resource": {"attributes": _attributes(named)},
        "scopeLogs": [{"scope": {"name": "auditdb"}, "logRecords": records}],
    }
    return json.dumps({"resourceLogs": [logs]}, separators=(",", ":")).encode()


def _otlp_answer(answer: bytes, lines: int) -> SinkError | None:
    """Return what was refused; who took all may say nothing, as Loki does."""
    said = _json(answer or b"{}")
    partial: Any = said.get("partialSuccess", {}) if isinstance(said, dict) else None
    rejected: Any = partial.get("rejectedLogRecords", 0) if isinstance(partial, dict) else None
    if type(rejected) not in (int, str) or not re.fullmatch("[0-9]{1,19}", str(rejected)):
        return Retry("the response is not from an OTLP receiver")
    if not int(rejected):
        return None
    reason = str(partial.get("errorMessage", ""))[:300]
    events = counted(int(rejected), "event")
    return Poison(f"the OTLP receiver does not accept {events}: {reason}".rstrip(": "))


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def _object(answer: bytes) -> dict[str, Any]:
    said = _json(answer)
    return said if isinstance(said, dict) else {}


FRAMES: dict[str, Frame] = {
    "https": Frame(is_signed=True, needs_token=False),
    "splunk": Frame(
        path="/services/collector/event", media_type="application/json", body=_splunk_body,
        token_header=("Authorization", "Splunk %s"), most=(1000, 800_000), check=_splunk_answer),
    "elastic": Frame(
        path="/_bulk", media_type="application/x-ndjson", body=_elastic_body,
        token_header=("Authorization", "ApiKey %s"), check=_elastic_answer),
    "datadog": Frame(
        path="/api/v2/logs", media_type="application/json", body=_datadog_body,
        token_header=("DD-API-KEY", "%s"), most=(1000, 4_000_000)),
    "otlp": Frame(
        path="/v1/logs", media_type="application/json", body=_otlp_body, needs_token=False,
        most=(1000, 2_000_000), check=_otlp_answer),
}  # fmt: skip
# What stands before +https:// in the address of a sink.
PRESETS = [name for name in FRAMES if name != "https"]


def pieces(delivery: Delivery, most: tuple[int, int]) -> Sequence[Delivery]:
    """Split a delivery in halves until each part fits the limits of a receiver."""
    lines = delivery.lines
    if len(lines) <= 1 or (len(lines) <= most[0] and sum(len(x.data) for x in lines) <= most[1]):
        return [delivery]
    first, second = delivery.halves()
    return [*pieces(first, most), *pieces(second, most)]
