"""What a stream of a customer reaches: the public internet, and nothing inside."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import standardwebhooks
from click.testing import CliRunner, Result

from auditdb.cli import main
from auditdb.errors import InvalidInput
from auditdb.export.sinks import public
from auditdb.export.sinks.base import Poison, Rejected, Retry
from auditdb.export.sinks.open import Options, open_stream
from auditdb.export.sinks.public import PublicHttps, is_public
from auditdb.export.sinks.secrets import read_masters, read_secrets
from auditdb.export.sinks.webhook import stream_secret
from tests.conftest import Database
from tests.export.receivers import Answer, Receiver, authority, receiver
from tests.export.test_sinks import BODY, opened, problem, put
from tests.export.test_streams import create, streams

MASTER = "0123456789abcdef0123456789abcdef"
NEXT = "fedcba9876543210fedcba9876543210"


def stream(web: Receiver, *masters: str, path: str = "/hook") -> PublicHttps:
    secrets = tuple(stream_secret(master, "stream-1") for master in masters or (MASTER,))
    return PublicHttps(f"https://localhost:{web.port}{path}", secrets=secrets, timeout=3)


def lines() -> list[str]:
    return [json.dumps(json.loads(line)) for line in BODY.splitlines()]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    ca = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    with receiver(ca.server) as found:
        yield found


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 alone is taken for an address of the internet."""
    monkeypatch.setattr(public, "is_public", lambda text: text == "127.0.0.1")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1",
     "168.63.129.16", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fec0::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1",
     "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1",
     "::ffff:0:10.0.0.1", "100::1"],
)  # fmt: skip
def test_an_address_of_the_inside_is_none_of_the_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)  # fmt: skip
def test_an_address_of_the_internet_is_one(address: str) -> None:
    assert is_public(address)


def test_a_host_inside_is_not_reached_and_looks_like_one_that_there_is_not(web: Receiver) -> None:
    # The naive twin reaches it.
    put(opened(f"https://localhost:{web.port}/hook"))
    assert len(web.requests) == 1
    inside = str(problem(stream(web), Retry))
    nowhere = PublicHttps("https://nowhere.invalid:8443/", secrets=(), timeout=9)
    assert inside == f"localhost:{web.port} cannot be reached at a public address"
    assert str(problem(nowhere, Retry)) == inside.replace(
        f"localhost:{web.port}", "nowhere.invalid:8443"
    )
    for host in ("127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0"):
        sink = PublicHttps(f"https://{host}:{web.port}/", secrets=(), timeout=9)
        assert "cannot be reached at a public address" in str(problem(sink, Retry))
    assert len(web.requests) == 1


def test_a_closed_port_looks_like_an_address_inside(web: Receiver, outside: None) -> None:
    sink = PublicHttps("https://localhost:1/", secrets=(), timeout=9)
    assert str(problem(sink, Retry)) == "localhost:1 cannot be reached at a public address"


def test_it_goes_to_the_very_address_that_was_looked_at(
    tmp_path: Path, outside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another address a moment later leads nowhere else."""
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.0.0.1", "127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    monkeypatch.setattr(public, "look_up", look_up)
    ca = authority(tmp_path, "hooks.acme.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    with receiver(ca.server) as web:
        place = f"hooks.acme.test:{web.port}"
        # Nobody else knows this name: who looked it up anew would not come here.
        put(PublicHttps(f"https://{place}/hook", secrets=(), timeout=3))
        (request,) = web.requests
        assert [json.dumps(e) for e in json.loads(request.raw)] == lines()
        assert request.headers["host"] == place and request.path == "/hook"
        assert asked == ["hooks.acme.test"]
        problem(PublicHttps(f"https://{place}/hook", secrets=(), timeout=3), Retry)
        assert len(web.requests) == 1


def test_the_certificate_is_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: None
) -> None:
    # It is one of the address, too, which is what is connected to.
    for name in ("other.test", "127.0.0.1"):
        folder = tmp_path / name
        folder.mkdir()
        ca = authority(folder, name)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
        with receiver(ca.server) as web:
            said = str(problem(stream(web), Retry))
            assert said == f"the certificate of localhost:{web.port} is not valid"
            assert web.requests == []


def test_what_it_says_of_an_answer_quotes_nothing_of_it(web: Receiver, outside: None) -> None:
    for status, kind in ((500, Retry), (400, Poison), (404, Rejected), (302, Rejected)):
        web.script(Answer(status, (("location", "https://inside.test/"),), b"secret of inside"))
        said = str(problem(stream(web), kind))
        assert said.startswith(f"localhost:{web.port} answers {status}")
        assert "inside" not in said


def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked(
    web: Receiver, outside: None
) -> None:
    web.script(Answer(200, (("content-encoding", "gzip"),), b"no gzip at all"))
    put(stream(web))


def test_the_standards_own_library_takes_its_signature_by_both_secrets(
    web: Receiver, outside: None
) -> None:
    put(stream(web, NEXT, MASTER))
    (request,) = web.requests
    for master in (NEXT, MASTER):
        secret = stream_secret(master, "stream-1")
        standardwebhooks.Webhook(secret).verify(request.raw, request.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        other = stream_secret(MASTER, "stream-2")
        standardwebhooks.Webhook(other).verify(request.raw, request.headers)


def test_a_secret_is_made_of_the_masters_and_the_name_alone() -> None:
    made = hmac.new(MASTER.encode(), b"auditdb stream stream-1", hashlib.sha256).digest()
    assert stream_secret(MASTER, "stream-1") == "whsec_" + base64.b64encode(made).decode()


def test_the_secret_of_streams_comes_from_a_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text(f'stream_secret = ["{NEXT}", "{MASTER}"]\n[siem]\ntoken = "t"\n')
    assert read_masters(file, {"AUDITDB_STREAM_SECRET": "x"}) == (NEXT, MASTER)
    assert read_secrets(file).keys() == {"siem"}
    assert read_masters(None, {"AUDITDB_STREAM_SECRET": f"{MASTER} {NEXT}"}) == (MASTER, NEXT)
    assert read_masters(None, {}) == ()
    file.write_text('stream_secret = "short"\n')
    with pytest.raises(InvalidInput, match="at least 32 characters") as error:
        read_masters(file, {})
    assert "short" not in str(error.value)
    with pytest.raises(InvalidInput, match="AUDITDB_STREAM_SECRET"):
        open_stream("s", "https://a.test/", masters=(), options=Options())


def export(db: Database, *arguments: str, **variables: str) -> Result:
    given = ["--dsn", db.conninfo("app_auditor"), "export", "--all", *arguments]
    return CliRunner().invoke(main, given, env=variables)


def rows(web: Receiver) -> list[dict[str, Any]]:
    return [event for request in web.requests for event in json.loads(request.raw)]


def test_the_exporter_serves_a_stream_signed_and_of_its_organisation_alone(
    db: Database, web: Receiver, outside: None, tmp_path: Path
) -> None:
    name = create(db)
    inside = create(db)
    (tmp_path / "out").mkdir()
    db.connect("app_auditor").execute(
        "select audit.subscribe('siem', %s)", [(tmp_path / "out").as_uri()]
    )
    with psycopg.connect(db.dsn) as conn:
        move = "update audit.subscription set sink = %s where name = %s"
        conn.execute(move, [f"https://localhost:{web.port}/hook", name])
        conn.execute(move, [f"https://127.0.0.2:{web.port}/hook", inside])
    app = db.connect("app")
    for organization in ("1", "2", "1"):
        app.execute("select audit.record_event('auth.login', %s)", [organization])
    refused = export(db)
    assert "stream of an organisation" in refused.stderr and web.requests == []
    result = export(db, AUDITDB_STREAM_SECRET=MASTER)
    assert [row["action"] for row in rows(web) if row["action"][:6] != "audit."] == [
        "auth.login"
    ] * 2
    assert {row["organization_id"] for row in rows(web)} == {"1"}
    secret = stream_secret(MASTER, name)
    first = standardwebhooks.Webhook(secret).verify(web.requests[0].raw, web.requests[0].headers)
    assert first[0]["organization_id"] == "1"
    # One that leads inside fails alone, and its admin reads no more than that.
    assert f"127.0.0.2:{web.port} cannot be reached at a public address" in result.stderr
    assert list((tmp_path / "out").rglob("*.gz"))
    told = {s["name"]: (s["delivered"] > 0, s["problem"]) for s in streams(db)}
    assert told == {
        name: (True, None),
        inside: (False, f"127.0.0.2:{web.port} cannot be reached at a public address"),
    }
