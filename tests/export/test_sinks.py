"""Sinks: what arrives, byte for byte, and what each says of what came in the way."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import s3fs
import zstandard
from standardwebhooks import Webhook, WebhookVerificationError

from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Delivery, Line, Poison, Rejected, Retry, Sink, SinkError
from auditdb.export.sinks.files import Directory
from auditdb.export.sinks.open import Options, check_sink, open_sink
from auditdb.export.sinks.secrets import Secrets, read_secrets, secrets_of_variables
from auditdb.export.sinks.stdout import StandardOutput
from tests.export.receivers import Answer, Receiver, Request, authority, collector, receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LINES = [
    Line(f"1f2e3d4c-{n}", "2026-11-28T12:00:00.000001Z", json.dumps({"id": n}).encode())
    for n in range(5)
]
NAME = "0001-1f2e3d4c/000000000012-000000000015"
DELIVERY = Delivery(subscription="siem", name=NAME, lines=LINES)
BODY = b"".join(line.data + b"\n" for line in LINES)


def put(sink: Sink, *deliveries: Delivery) -> None:
    async def work() -> None:
        try:
            for delivery in deliveries or (DELIVERY,):
                await sink.put(delivery)
        finally:
            await sink.close()

    asyncio.run(work())


def problem(sink: Sink, kind: type[SinkError], delivery: Delivery = DELIVERY) -> SinkError:
    """Return what a sink says, which is one line."""
    with pytest.raises(SinkError) as raised:
        put(sink, delivery)
    assert type(raised.value) is kind, raised.value
    text = str(raised.value)
    assert text and "\n" not in text and "Traceback" not in text and len(text) < 700
    return raised.value


def opened(url: str, *, token: str | None = None, signing: tuple[str, ...] = (), **given: Any
           ) -> Sink:  # fmt: skip
    return open_sink(url, secrets=Secrets(token=token, signing=signing), options=Options(**given))


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def test_a_delivery_is_written_to_standard_output_and_flushed() -> None:
    out = io.BytesIO()
    put(StandardOutput(out))
    assert out.getvalue() == BODY


def test_the_heading_of_csv_is_written_once_to_standard_output() -> None:
    out = io.BytesIO()
    delivery = Delivery(subscription="s", name="a", lines=LINES[:1], head=b"id\n")
    put(StandardOutput(out), delivery, delivery)
    assert out.getvalue() == b"id\n" + (LINES[0].data + b"\n") * 2


def test_a_reader_of_standard_output_that_left_is_said() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb", buffering=0) as out:
        sink = StandardOutput(out)
        assert "reader of standard output ended" in str(problem(sink, Rejected))


@pytest.mark.parametrize(
    ("compression", "suffix", "unpack"),
    [("gzip", ".gz", gzip.decompress), ("none", "", bytes),
     ("zstd", ".zst", lambda data: zstandard.ZstdDecompressor().decompress(data))],
)  # fmt: skip
def test_a_file_is_named_by_its_ticks_and_the_same_bytes_when_written_again(
    tmp_path: Path, compression: str, suffix: str, unpack: Any
) -> None:
    def write() -> bytes:
        put(opened(tmp_path.as_uri(), compression=compression))
        (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert file.relative_to(tmp_path).as_posix() == f"siem/{NAME}.jsonl{suffix}"
        return file.read_bytes()

    first = write()
    assert unpack(first) == BODY
    assert write() == first


def test_no_file_is_seen_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fsync = os.fsync

    def look(handle: int) -> None:
        seen.append([path.name for path in tmp_path.rglob("*.gz")])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    put(Directory(tmp_path))
    assert seen[0] == [] and len(seen[-1]) == 1


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=f"there is no directory {tmp_path}/misspelt; create it first"
    ):
        Directory(tmp_path / "misspelt")
    folder = tmp_path / "unmounted"
    folder.mkdir()
    sink = Directory(folder)
    folder.rmdir()
    assert "the directory is gone" in str(problem(sink, Rejected))
    assert not folder.exists()


def test_a_store_that_cannot_be_opened_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are connected to when they are opened."""

    def fails(url: str) -> None:
        raise OSError(111, "Connection refused")

    monkeypatch.setattr("fsspec.core.url_to_fs", fails)
    with pytest.raises(InvalidInput, match="sftp://h/x cannot be opened: Connection refused"):
        opened("sftp://h/x")


def test_a_full_disk_passes_and_leaves_nothing_half() -> None:
    """On a file system of two megabytes."""
    with ExitStack() as stack:
        folder = stack.enter_context(small_disk())
        sink = Directory(folder, compression="none")
        large = Delivery(subscription="s", name="0001-x/1-1",
                         lines=[Line("k", None, os.urandom(3_000_000).hex().encode())])  # fmt: skip
        assert "No space left on device" in str(problem(sink, Retry, large))
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        put(Directory(folder))


class small_disk:
    """A directory of its own file system, or of a limit, that is soon full."""

    def __enter__(self) -> Path:
        import subprocess
        import tempfile

        self.folder = Path(tempfile.mkdtemp(prefix="auditdb-full-"))
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(self.folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        if not self.mounted:
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(os, "fsync", _full)
        return self.folder

    def __exit__(self, *_: object) -> None:
        import shutil
        import subprocess

        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
        else:
            self.patch.undo()
        shutil.rmtree(self.folder)


def _full(handle: int) -> None:
    """Stand for a disk that is full: what a mount would do, where nobody may mount."""
    if os.fstat(handle).st_size > 2_000_000:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_object_is_named_by_its_ticks_and_the_same_when_written_again(
    bucket: s3fs.S3FileSystem,
) -> None:
    place = f"bucket/audit/siem/{NAME}.jsonl.gz"
    put(opened("s3://bucket/audit/"))
    first = bucket.cat(place)
    put(opened("s3://bucket/audit"))
    bucket.invalidate_cache()
    assert gzip.decompress(first) == BODY and bucket.cat(place) == first
    assert bucket.find("bucket/audit") == [place]


def test_a_store_elsewhere_gets_it_apart_and_renamed(tmp_path: Path) -> None:
    put(opened(f"local://{tmp_path}"))
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert gzip.decompress(file.read_bytes()) == BODY
    assert file.relative_to(tmp_path).as_posix() == f"siem/{NAME}.jsonl.gz"


def test_a_bucket_that_is_not_there_is_said(bucket: s3fs.S3FileSystem) -> None:
    assert "there is no bucket or container s3://misspelt/x" in str(
        problem(opened("s3://misspelt/x"), Rejected)
    )


def test_credentials_that_are_missing_are_said(
    bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    said = str(problem(opened("s3://bucket/audit"), Rejected))
    assert "credentials" in said


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_credentials_that_a_store_refuses_are_said(
    web: Receiver, bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    refusing(web, Answer(403, (("content-type", "application/xml"),), body), monkeypatch)
    assert "refuses the credentials" in str(problem(opened("s3://bucket/audit"), Rejected))


def refusing(web: Receiver, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the client of the store at a server that gives one answer to everything."""
    web.decide = lambda request: answer
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_is_down_passes(
    bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    assert "cannot write to s3://bucket/audit" in str(problem(opened("s3://bucket/audit"), Retry))


def url(web: Receiver, scheme: str = "http", path: str = "/events") -> str:
    return f"{scheme}://127.0.0.1:{web.port}{path}"


def test_a_request_holds_the_lines_and_is_compressed(web: Receiver) -> None:
    put(opened(url(web), token="t-1"))
    (request,) = web.requests
    assert request.path == "/events" and request.body == BODY
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["authorization"] == "Bearer t-1"
    assert request.headers["webhook-id"] == f"siem-{NAME.replace('/', '-')}"


def test_the_standards_own_library_takes_the_signature(web: Receiver) -> None:
    put(opened(url(web), signing=(SECRET,), compression="none", array=True))
    (request,) = web.requests
    assert Webhook(SECRET).verify(request.raw, request.headers) == [{"id": n} for n in range(5)]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.raw[:-2] + b"8]", request.headers)
    other = "whsec_" + "A" * 32
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(request.raw, request.headers)


def test_two_secrets_sign_while_one_takes_the_place_of_the_other(web: Receiver) -> None:
    other = "whsec_" + "A" * 32
    put(opened(url(web), signing=(SECRET, other), compression="none"))
    (request,) = web.requests
    for secret in (SECRET, other):
        Webhook(secret).verify(request.raw, request.headers, json_parse=False)


def test_a_repeat_has_the_same_id(web: Receiver) -> None:
    for _ in range(2):
        put(opened(url(web)))
    assert len({request.headers["webhook-id"] for request in web.requests}) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Answer(500, body=b"oops\nno"), Retry, "answers 500 Internal Server Error: oops no"),
        (Answer(503), Retry, "answers 503"),
        (Answer(429), Retry, "answers 429"),
        (Answer(408), Retry, "answers 408"),
        (Answer(401), Rejected, "token or secret is missing or not valid"),
        (Answer(403), Rejected, "token or secret is missing or not valid"),
        (Answer(404), Rejected, "answers 404"),
        (Answer(410), Rejected, "answers 410"),
        (Answer(301, (("location", "https://else.test/"),)), Rejected,
         "leads to https://else.test/: give that address"),
        (Answer(400, body=b"bad event"), Poison, "answers 400 Bad Request: bad event"),
        (Answer(413), Poison, "answers 413"),
        (Answer(422), Poison, "answers 422"),
        (Answer(act="reset"), Retry, "closed the connection"),
        (Answer(act="half"), Retry, "closed the connection"),
    ],
)  # fmt: skip
def test_what_a_receiver_answers_is_understood(
    web: Receiver, answer: Answer, kind: type[SinkError], said: str
) -> None:
    web.script(answer)
    assert said in str(problem(opened(url(web), token="secret-token"), kind))
    assert len(web.requests) == 1


@pytest.mark.parametrize("act", ["hang", "drip"])
def test_a_receiver_that_hangs_or_drips_is_left_in_time(web: Receiver, act: str) -> None:
    web.script(Answer(act=act))
    assert "did not answer in 0.5 s" in str(problem(opened(url(web), timeout=0.5), Retry))


def test_retry_after_is_honoured_in_seconds_and_as_a_date(web: Receiver) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    web.script(*[Answer(429, (("retry-after", given),)) for given in ("17", later, "soon", "nan")])
    found = []
    for _ in range(4):
        said = problem(opened(url(web)), Retry)
        assert isinstance(said, Retry)
        found.append(said.after)
    assert found[0] == 17 and found[1] is not None and 60 < found[1] <= 90
    assert found[2:] == [None, None]


def test_a_server_that_is_not_there_passes() -> None:
    assert "127.0.0.1:9 cannot be reached" in str(problem(opened("http://127.0.0.1:9/x"), Retry))


def test_more_than_a_receiver_takes_is_cut_alike_each_time(web: Receiver) -> None:
    many = [Line(f"k-{n}", None, b'{"id":%d,"text":"%s"}' % (n, b"x" * 100)) for n in range(2500)]
    delivery = Delivery(subscription="siem", name=NAME, lines=many)
    web.decide = lambda request: Answer(body=b'{"text":"Success","code":0}')
    for _ in range(2):
        put(opened(url(web, "splunk+http", ""), token="t"), delivery)
    half = len(web.requests) // 2
    assert half >= 3 and [r.body for r in web.requests[:half]] == [
        r.body for r in web.requests[half:]
    ]
    sent = [json.loads(line)["event"]["id"] for r in web.requests[:half]
            for line in r.body.splitlines()]  # fmt: skip
    assert sent == list(range(2500))


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = authority(tmp_path)
    with receiver(ca.server) as web:
        place = f"https://localhost:{web.port}/x"
        said = str(problem(opened(place), Retry))
        assert "the certificate of localhost:" in said and "is not valid: " in said
        assert web.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
        put(opened(place))
        assert web.requests[0].body == BODY


def test_a_certificate_for_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority(tmp_path, "other.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    with receiver(ca.server) as web, collector(ca.server) as logs:
        assert "is not valid" in str(problem(opened(f"https://localhost:{web.port}/"), Retry))
        said = problem(opened(f"syslog+tls://localhost:{logs.port}"), Retry)
        assert "is not valid" in str(said)
        assert web.requests == [] and logs.received == []


def test_splunk_gets_its_events(web: Receiver) -> None:
    web.decide = lambda request: Answer(body=b'{"text":"Success","code":0}')
    put(opened(url(web, "splunk+http", ""), token="t-1"))
    (request,) = web.requests
    assert request.path == "/services/collector/event"
    assert request.headers["authorization"] == "Splunk t-1"
    first = json.loads(request.body.splitlines()[0])
    assert first == {"time": 1795867200.000001, "source": "auditdb:siem", "sourcetype": "auditdb",
                     "event": {"id": 0}}  # fmt: skip


def elastic(*statuses: int) -> Answer:
    statuses += (201,) * (len(LINES) - len(statuses))
    items = [
        {"create": {"status": s, **({"error": {"type": "t", "reason": "r"}} if s > 299 else {})}}
        for s in statuses
    ]
    return Answer(body=json.dumps({"errors": max(statuses) > 299, "items": items}).encode())


def test_elastic_creates_each_document_once_and_takes_a_repeat_for_taken(web: Receiver) -> None:
    web.script(elastic(201, 409, 201, 201, 409))
    put(opened(url(web, "elastic+http", "/audit"), token="t"))
    (request,) = web.requests
    assert request.path == "/audit/_bulk" and request.headers["authorization"] == "ApiKey t"
    lines = [json.loads(line) for line in request.body.splitlines()]
    assert lines[0] == {"create": {"_id": "1f2e3d4c-0"}}
    assert lines[1] == {"@timestamp": "2026-11-28T12:00:00.000001Z", "id": 0}


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [((201, 429), Retry), ((201, 503), Retry), ((400, 201), Poison), ((403,), Rejected)],
)
def test_elastic_says_of_each_document_what_became_of_it(
    web: Receiver, statuses: tuple[int, ...], kind: type[SinkError]
) -> None:
    web.script(elastic(*statuses))
    assert "t: r" in str(problem(opened(url(web, "elastic+http", "/a"), token="t"), kind))


def test_an_answer_of_another_server_than_elastic_counts_for_nothing(web: Receiver) -> None:
    web.script(Answer(body=b"<html>hello"))
    problem(opened(url(web, "elastic+http", "/a"), token="t"), Retry)


def test_datadog_gets_an_array(web: Receiver) -> None:
    web.script(Answer(202, body=b"{}"))
    put(opened(url(web, "datadog+http", ""), token="t"))
    (request,) = web.requests
    assert request.path == "/api/v2/logs" and request.headers["dd-api-key"] == "t"
    first = json.loads(request.body)[0]
    assert json.loads(first.pop("message")) == {"id": 0}
    assert first == {"ddsource": "auditdb", "service": "auditdb", "ddtags": "subscription:siem",
                     "timestamp": "2026-11-28T12:00:00.000001Z"}  # fmt: skip


def otlp(request: Request) -> Answer:
    """Answer as the OTLP receiver of the OpenTelemetry Collector does."""
    if request.path != "/v1/logs":
        return Answer(404)
    if request.headers["content-type"] != "application/json":
        return Answer(415)
    try:
        (resource,) = json.loads(request.body)["resourceLogs"]
        (scope,) = resource["scopeLogs"]
        taken = all(
            record.keys() <= {"timeUnixNano", "severityNumber", "body", "attributes"}
            and int(record.get("timeUnixNano", "0")) < 2**64
            and type(record["severityNumber"]) is int and type(record["body"]["stringValue"]) is str
            and all(type(a["key"]) is str and a["value"].keys() == {"stringValue"}
                    for a in record["attributes"] + resource["resource"]["attributes"])
            for record in scope["logRecords"]
        )  # fmt: skip
    except (KeyError, ValueError, TypeError):
        taken = False
    if not taken:
        return Answer(400, body=b'{"code":3,"message":"readObjectStart: expect { or n"}')
    return Answer(headers=(("content-type", "application/json"),), body=b'{"partialSuccess":{}}')


def test_opentelemetry_gets_a_record_for_each_event(web: Receiver) -> None:
    web.decide = otlp
    put(opened(url(web, "otlp+http", ""), token="t-1"))
    (request,) = web.requests
    assert request.headers["authorization"] == "Bearer t-1"
    (resource,) = json.loads(request.body)["resourceLogs"]
    assert resource["resource"] == {"attributes": [
        {"key": "service.name", "value": {"stringValue": "auditdb"}},
        {"key": "auditdb.subscription", "value": {"stringValue": "siem"}},
    ]}  # fmt: skip
    records = resource["scopeLogs"][0]["logRecords"]
    assert [json.loads(record["body"]["stringValue"])["id"] for record in records] == [*range(5)]
    assert records[0]["timeUnixNano"] == "1795867200000001000"
    assert records[0]["attributes"] == [
        {"key": "log.record.uid", "value": {"stringValue": "1f2e3d4c-0"}}
    ]


def test_a_collector_of_opentelemetry_may_want_no_token(web: Receiver) -> None:
    web.decide = otlp
    put(opened(url(web, "otlp+http", "")))
    assert "authorization" not in web.requests[0].headers


@pytest.mark.parametrize("moment", ["infinity", "1969-12-31 23:59:59+00", "2600-01-01 00:00:00+00"])
def test_a_time_that_opentelemetry_has_no_number_for_is_left_out(
    web: Receiver, moment: str
) -> None:
    web.decide = otlp
    put(opened(url(web, "otlp+http", "")), replace(DELIVERY, lines=[Line("k", moment, b"{}")]))
    assert b"timeUnixNano" not in web.requests[0].body


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (Answer(body=b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}'),
         Poison, "does not accept 2 events: too old"),
        (Answer(body=b'{"partialSuccess":{"rejectedLogRecords":2}}'), Poison, "2 events"),
        (Answer(400, body=b'{"code":3,"message":"no"}'), Poison, "no"),
        (Answer(401), Rejected, "token"),
        (Answer(404), Rejected, "404"),
        (Answer(429, (("retry-after", "7"),)), Retry, "429"),
        (Answer(503), Retry, "503"),
    ],
)  # fmt: skip
def test_what_opentelemetry_refuses_is_said(
    web: Receiver, answer: Answer, kind: type[SinkError], said: str
) -> None:
    web.script(answer)
    assert said in str(problem(opened(url(web, "otlp+http", "")), kind))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"partialSuccess":{"errorMessage":"slow down","rejectedLogRecords":0}}']
)
def test_a_collector_of_opentelemetry_that_took_all_may_say_little(
    web: Receiver, body: bytes
) -> None:
    web.script(Answer(body=body))
    put(opened(url(web, "otlp+http", "")))
    assert len(web.requests) == 1


def test_syslog_gets_a_frame_for_each_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    with collector(ca.server) as logs:
        put(opened(f"syslog+tls://localhost:{logs.port}"))
    (data,) = logs.received
    messages = []
    while data:
        length, _, rest = data.partition(b" ")
        messages.append(rest[: int(length)])
        data = rest[int(length) :]
    form = re.compile(
        rb"<110>1 2026-11-28T12:00:00\.000001Z [!-~]{1,255} auditdb [0-9]+ "
        rb'1f2e3d4c-([0-9]) - (\{"id": \1\})'
    )
    assert [bool(form.fullmatch(message)) for message in messages] == [True] * 5


def test_a_collector_that_breaks_off_has_not_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    lines = [Line(f"k-{n}", None, b"x" * 1000) for n in range(5000)]
    with collector(ca.server) as logs:
        logs.resets_after = 1000
        large = Delivery(subscription="s", name="n", lines=lines)
        problem(opened(f"syslog+tls://localhost:{logs.port}"), Retry, large)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("siem.example", "is not the address of a sink"),
        ("/var/log", "is not the address of a sink"),
        ("file://var/log", "three slashes"),
        ("https://", "names nothing"),
        ("https://u:secret@host/", "leave out user, password"),
        ("https://host/?token=secret", "leave out user, password"),
        ("https://host:port/", "malformed"),
        ("http://siem.example/", "https:// is"),
        ("splunk+http://siem.example/", "splunk+https:// is"),
        ("syslog+tcp://siem.example/", "syslog+tls:// is"),
        ("sumo+https://host/", "is not the address of a sink"),
        ("sumo+http://localhost/", "is not the address of a sink"),
        ("splnk://siem.example/", "did you mean splunk"),
        ("otlp://siem.example/", "did you mean otlp"),
    ],
)
def test_an_address_that_is_no_sink_is_refused_in_a_line(given: str, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_sink(given)
    assert said in str(raised.value) and "secret" not in str(raised.value).replace(
        "file of secrets", ""
    )


def test_what_is_needed_for_a_sink_is_said() -> None:
    with pytest.raises(InvalidInput, match="pip install gcsfs"):
        opened("gs://bucket/x")
    with pytest.raises(InvalidInput, match="splunk wants a token"):
        opened("splunk+https://host/")
    with pytest.raises(InvalidInput, match="compression is 'rar'"):
        opened("https://host/", compression="rar")
    with pytest.raises(InvalidInput, match="whsec_"):
        opened("https://host/", signing=("abc",))


def test_secrets_come_of_variables_and_files_and_are_never_shown(tmp_path: Path) -> None:
    found = secrets_of_variables({"AUDITDB_SINK_TOKEN": "t1\n", "AUDITDB_SINK_SECRET": "a b"})
    assert found.token == "t1" and found.signing == ("a", "b") and "t1" not in repr(found)
    file = tmp_path / "secrets.toml"
    file.write_text('[acme]\ntoken = "t2"\nsecret = ["x", "y"]\n[globex]\nsecret = "z"\n')
    assert read_secrets(file) == {
        "acme": Secrets(token="t2", signing=("x", "y")), "globex": Secrets(signing=("z",)),
    }  # fmt: skip
    for wrong in ('[a]\ntoken = "s3cr', "a = 's3cr'", "[a]\npassword = 's3cr'", "[a]\ntoken = 5"):
        file.write_text(wrong)
        with pytest.raises(InvalidInput) as raised:
            read_secrets(file)
        assert "s3cr" not in f"{raised.value!r} {raised.value.__context__!r}"
    with pytest.raises(InvalidInput, match="No such file"):
        read_secrets(tmp_path / "none")


def test_one_client_serves_many_deliveries(web: Receiver) -> None:
    put(opened(url(web)), *[DELIVERY] * 20)
    assert len(web.requests) == 20


@pytest.mark.parametrize(
    ("moment", "at"),
    [
        ("2026-11-28 12:00:00.000001+00", "2026-11-28T12:00:00.000001Z"),
        ("2026-11-28 12:00:00+00", "2026-11-28T12:00:00Z"),
        ("infinity", None),
        ("0044-03-15 12:00:00+00 BC", None),
        ("12026-11-28 12:00:00+00", None),
    ],
)
def test_the_time_of_an_event_is_one_that_receivers_read(moment: str, at: str | None) -> None:
    assert Line("k", moment, b"").at == at
