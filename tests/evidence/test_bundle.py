"""A bundle proves to a stranger what it shows, and an attack on it is found by verify.py alone."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import metamorphic_log
import pytest

import auditdb
from auditdb.errors import InvalidInput, Refused
from auditdb.evidence import verify
from auditdb.evidence.bundle import Bundler
from auditdb.evidence.check import Verifier
from auditdb.evidence.keys import PrivateKey, rotate
from auditdb.evidence.leaf import commit, event_entry
from auditdb.evidence.note import VerificationKey, encode, open_checkpoint, sign
from auditdb.evidence.proof import read_proof
from auditdb.evidence.seal import Sealer
from auditdb.evidence.state import State
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import Tree, leaf_hash
from tests.conftest import Database
from tests.evidence import tampering
from tests.test_cli import error_of, good, run

EVENT = (
    "select audit.record_event('document.read', %s, actor_id => %s, target_type => 'document', "
    "target_id => %s, details => %s) from generate_series(1, %s)"
)


class Sealed:
    """A sealed log of several organisations and ticks."""

    def __init__(self, db: Database, path: Path) -> None:
        self.db, self.path = db, path
        self.key = PrivateKey.make("example.com/audit")
        self.auditor = db.connect("app_auditor")
        self.app = db.connect("app")
        self.state = State(path / "state")
        self.made: list[str] = []
        for at in ("infinity", "-infinity", "0044-03-15 BC", "12000-01-01"):
            db.connect().execute(
                "insert into audit.event (occurred_at, action, result, actor_type, source, "
                "organization_id) values (%s, 'x.y', 'success', 'user', 'web', 'o1')", [at],
            )  # fmt: skip
        for organizations in ("o1 o2", "o2", "o1 o3 o2", "o2 o3", "o1", "o2"):
            self.act(organizations)

    def act(self, organizations: str) -> None:
        """Write some events of each, and seal them."""
        for organization in organizations.split():
            name = f"person of {organization}"
            self.app.execute(
                EVENT, [organization, name, f"document of {organization}",
                        json.dumps({"note": f"secret of {organization}"}), 1 + len(self.made) % 3],
            )  # fmt: skip
        self.seal()
        (row,) = self.auditor.execute(
            "select made_at::text from audit.tick order by id desc limit 1"
        ).fetchall()
        self.made.append(row[0])

    def seal(self) -> None:
        Sealer(self.auditor, self.key, self.state).run()

    def bundle(self, organization: str = "o1", **given: Any) -> Bundle:
        path = self.path / "bundle.zip"
        Bundler(self.auditor).bundle(organization, path, **given)
        return Bundle(path, self.key.key)

    def ids(self, organization: str = "o1") -> list[int]:
        rows = self.db.connect().execute(
            "select id from audit.event where organization_id = %s and action <> 'audit.bundled' "
            "order by id", [organization]
        )  # fmt: skip
        return [row[0] for row in rows]


class Bundle:
    """A bundle that was unzipped."""

    def __init__(self, path: Path, key: VerificationKey) -> None:
        self.zip, self.key = path, key
        self.place = path.with_suffix("")
        with ZipFile(path) as file:
            self.names = set(file.namelist())
            file.extractall(self.place)

    def ids(self) -> list[int]:
        """Return which events it has, without those that tell of bundles before."""
        skeletons = [json.loads(line["skeleton"]) for line in self.lines()]
        return sorted(int(s["id"]) for s in skeletons if s["action"] != "audit.bundled")

    def lines(self) -> list[dict[str, Any]]:
        text = (self.place / "events.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def write_lines(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (self.place / "events.jsonl").write_text(text, "utf-8")
        self.edit("manifest.json", lambda claim: claim.update(events=len(lines)))

    def edit(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.place / name
        value = json.loads(path.read_text("utf-8"))
        change(value)
        path.write_text(json.dumps(value), "utf-8")

    def said(self) -> str:
        """Return what verify.py prints, run as a stranger does."""
        ran = subprocess.run(
            [sys.executable, "-I", "verify.py", str(self.key)],
            capture_output=True, text=True, cwd=self.place, check=False,
        )  # fmt: skip
        assert ran.stderr == ""
        assert ran.returncode == (1 if ran.stdout.startswith("NOT PROVED: ") else 0)
        return ran.stdout

    def problem(self) -> str:
        """Return why it does not hold, in this process."""
        with pytest.raises((ValueError, LookupError)) as raised:
            verify.verify(str(self.key), self.place)
        return str(raised.value)


@pytest.fixture
def sealed(db: Database, tmp_path: Path) -> Sealed:
    return Sealed(db, tmp_path)


def test_a_stranger_finds_all_events_of_an_organization(sealed: Sealed) -> None:
    bundle = sealed.bundle()
    assert bundle.ids() == sealed.ids()
    said = bundle.said()
    assert said.startswith(f"{len(sealed.ids())} events are as they were sealed in example.com/")
    assert "they are all events of o1 in the ticks 1 to " in said
    assert bundle.names == {
        "README.txt", "checkpoint", "complete.json", "events.jsonl", "manifest.json", "verify.py",
    }  # fmt: skip
    assert "python verify.py" in (bundle.place / "README.txt").read_text()


def test_text_that_holds_what_python_takes_for_the_end_of_a_line_is_proved(
    sealed: Sealed,
) -> None:
    details = json.dumps({"note": "a\u2028b\u2029c\u0085d\x1de"})
    sealed.app.execute(EVENT, ["o4", "person\u2028", "doc\u0085", details, 1])
    sealed.seal()
    assert sealed.bundle("o4").said().startswith("1 event is as it was sealed in ")


def test_nothing_of_another_organization_is_shown(sealed: Sealed) -> None:
    bundle = sealed.bundle()
    shown = "".join(
        (bundle.place / name).read_text("utf-8") for name in bundle.names - {"verify.py"}
    )
    assert "secret of o1" in shown and "person of o1" in shown
    for other in ("o2", "o3", "secret of o2", "person of o3"):
        # As a word: a hash in base64 may have any letters.
        assert not re.search(rf"(?<![\w+/]){other}(?![\w+/=])", shown)
    salts = sealed.db.connect().execute(
        "select encode(salt, 'hex') from audit.sealed_organization where organization_id <> 'o1'"
    ).fetchall()  # fmt: skip
    assert len(salts) >= 2 and not any(salt in shown for (salt,) in salts)


@pytest.mark.parametrize("organization", ["o1", "o2", "o3"])
@pytest.mark.parametrize("since", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("until", [None, 1, 2, 4, 5])
def test_a_time_holds_what_its_ticks_hold(
    sealed: Sealed, organization: str, since: int | None, until: int | None
) -> None:
    if since is not None and until is not None and since >= until:
        with pytest.raises(Refused, match="no events were sealed"):
            sealed.bundle(organization, since=sealed.made[since], until=sealed.made[until])
        return
    bundle = sealed.bundle(
        organization,
        since=None if since is None else sealed.made[since],
        until=None if until is None else sealed.made[until],
    )
    numbers = range(since or 0, 6 if until is None else until)
    ticks = sealed.db.connect().execute(
        """select e.id from audit.event as e join audit.seal as s on e.id = any (s.ids)
            join audit.tick as t on t.id = s.tick_id
        where e.organization_id = %s and t.made_at::text = any (%s) order by 1""",
        [organization, [sealed.made[n] for n in numbers]],
    ).fetchall()  # fmt: skip
    assert bundle.ids() == [row[0] for row in ticks]
    assert "they are all events of" in verify.verify(str(bundle.key), bundle.place)


def leave_out(bundle: Bundle, at: int) -> None:
    lines = bundle.lines()
    del lines[at]
    bundle.write_lines(lines)


@pytest.mark.parametrize("at", [0, 1, -1])
def test_an_event_that_is_left_out_is_missed(sealed: Sealed, at: int) -> None:
    bundle = sealed.bundle()
    many = len(bundle.lines())
    leave_out(bundle, at)
    assert bundle.said() == (
        f"NOT PROVED: events in these ticks: {many}, in the bundle: {many - 1}\n"
    )


def test_one_that_is_left_out_is_missed_without_a_word_in_the_manifest(sealed: Sealed) -> None:
    bundle = sealed.bundle()
    many = len(bundle.lines())
    leave_out(bundle, -1)
    bundle.edit("manifest.json", lambda claim: claim.update(events=many))
    assert bundle.problem() == (
        f"manifest.json says events: {many}, but events.jsonl has {many - 1}"
    )


@pytest.mark.parametrize("name", ["skeleton", "personal", "salt", "index", "proof"])
def test_an_event_that_is_changed_is_found(sealed: Sealed, name: str) -> None:
    bundle = sealed.bundle()
    lines = bundle.lines()
    changed: dict[str, Any] = {
        "skeleton": lines[-1]["skeleton"].replace("document.read", "document.deleted"),
        "personal": lines[-1]["personal"].replace("person of o1", "person of o9"),
        "salt": "00" * 16, "index": lines[-1]["index"] + 1, "proof": lines[0]["proof"],
    }  # fmt: skip
    assert changed[name] != lines[-1][name]
    lines[-1][name] = changed[name]
    bundle.write_lines(lines)
    assert bundle.said().startswith("NOT PROVED: leaf ")


def test_an_event_that_is_added_is_found(sealed: Sealed) -> None:
    other = sealed.bundle("o2").lines()
    bundle = sealed.bundle()
    lines = bundle.lines()
    for more in (
        other[0],  # Of another organisation: it is in the log.
        {**lines[0], "skeleton": lines[0]["skeleton"].replace('"id":"', '"id":"9')},
        {**lines[0], "index": lines[0]["index"] + 1},
    ):
        bundle.write_lines([*lines, more])
        assert bundle.said().startswith("NOT PROVED: leaf ")
    bundle.write_lines([*lines, lines[0]])
    assert bundle.problem() == (
        f"manifest.json says events: {len(lines) + 1}, but events.jsonl has {len(lines)}"
    )


def test_an_event_of_the_organization_in_place_of_another_is_found(sealed: Sealed) -> None:
    """The number is right, but it was sealed before or after the time."""
    whole = sealed.bundle().lines()
    bundle = sealed.bundle(since=sealed.made[2])
    lines = bundle.lines()
    assert whole[0]["index"] < lines[0]["index"]
    bundle.write_lines([whole[0], *lines[1:]])
    assert bundle.problem() == f"leaf {whole[0]['index']} is not of it"
    bundle = sealed.bundle(until=sealed.made[4])
    bundle.write_lines([*bundle.lines()[1:], whole[-1]])
    assert bundle.problem() == f"leaf {whole[-1]['index']} is not of it"


def test_a_key_or_a_directory_that_is_none_is_named(sealed: Sealed, tmp_path: Path) -> None:
    place, key = sealed.bundle().place, str(sealed.key.key)

    def said(key: str, *more: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-I", str(place / "verify.py"), key, *more],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (1, "")
        return ran.stdout

    itself = "NOT PROVED: give the verification key itself, name+id+key\n"
    assert said("vkey.txt", str(place)) == said(sealed.key.text(), str(place)) == itself
    assert said(key) == f"NOT PROVED: {tmp_path} is not an unpacked bundle\n"


def test_the_leaf_of_a_map_is_no_event(sealed: Sealed) -> None:
    """It is in the log: who could pass it off as an event could leave one out."""
    bundle = sealed.bundle()
    lines = bundle.lines()
    shown = json.loads((bundle.place / "complete.json").read_text())["maps"]["first"]
    lines[0] = {**shown, "skeleton": lines[0]["skeleton"], "commitment": "00" * 32}
    bundle.write_lines(lines)
    assert bundle.said().startswith("NOT PROVED: leaf ")


def test_what_is_moved_from_one_part_to_the_next_is_found(sealed: Sealed) -> None:
    """The hashed bytes are the same: each part has a length, so that none is taken for another."""
    bundle = sealed.bundle(since=sealed.made[1], until=sealed.made[2])
    assert bundle.lines() == []
    assert "they are all events of o1" in bundle.said()
    # Nothing of an organisation 1 was sealed: whose chain is it?
    bundle.edit("manifest.json", lambda claim: claim.update(organization="1"))
    bundle.edit("complete.json", lambda shown: shown.update(salt=shown["salt"] + b"o".hex()))
    assert bundle.problem() == "a value has 17 bytes instead of 16"
    bundle = sealed.bundle()
    lines = bundle.lines()
    line = lines[0]
    for length, change in (
        (17, {"salt": line["salt"] + line["personal"][:1].encode().hex(),
         "personal": line["personal"][1:]}),
        (15, {"salt": line["salt"][:-2],
         "personal": bytes.fromhex(line["salt"][-2:]).decode("latin-1") + line["personal"]}),
    ):  # fmt: skip
        bundle.write_lines([{**line, **change}, *lines[1:]])
        assert bundle.problem() == f"leaf {line['index']}: a value has {length} bytes instead of 16"
    commitment = commit(bytes.fromhex(line["salt"]), line["personal"].encode())
    whole = commitment + line["skeleton"].encode()
    erased = {"index": line["index"], "proof": line["proof"], "commitment": whole[:33].hex(),
              "skeleton": whole[33:].decode()}  # fmt: skip
    bundle.write_lines([erased, *lines[1:]])
    assert bundle.problem() == f"leaf {line['index']}: a value has 33 bytes instead of 32"


def test_a_personal_part_that_is_held_back_is_said(sealed: Sealed) -> None:
    bundle = sealed.bundle()
    lines = bundle.lines()
    salt, personal = bytes.fromhex(lines[0].pop("salt")), lines[0].pop("personal").encode()
    lines[0]["commitment"] = commit(salt, personal).hex()
    bundle.write_lines(lines)
    assert "1 of them without their personal part; they are all events of o1" in bundle.said()


@pytest.mark.parametrize(
    "edit",
    [
        {"organization": "o2"}, {"organization": "O1"}, {"organization": ""},
        {"log": "example.com"}, {"version": 2}, {"events": 1}, {"events": 0},
        {"since": "2020-01-01T00:00:00.000000Z"},
        {"since": "2040-01-01T00:00:00.000000Z"}, {"until": "2020-01-01T00:00:00.000000Z"},
        {"until": "2040-01-01T00:00:00.000000Z"}, {"since": None}, {"until": None}, {"since": 1},
    ],
)  # fmt: skip
def test_an_edited_manifest_is_found(sealed: Sealed, edit: dict[str, Any]) -> None:
    bundle = sealed.bundle(since=sealed.made[1], until=sealed.made[4])
    assert "they are all" in bundle.said()
    bundle.edit("manifest.json", lambda claim: claim.update(edit))
    assert bundle.said().startswith("NOT PROVED: ")


def test_a_bundle_that_is_cut_at_the_end_is_found(sealed: Sealed) -> None:
    """With all that goes with it: chain, map of an older tick, manifest."""
    whole = sealed.bundle()
    shown = json.loads((whole.place / "complete.json").read_text())
    lines = whole.lines()
    last = max(tick for tick, _ in shown["chain"])
    kept = shown["chain"][-2][1]
    older = sealed.bundle(until=sealed.made[4])
    cut = json.loads((older.place / "complete.json").read_text())["maps"]
    assert int(json.loads(cut["last"]["map"])["tick"]) < last

    def write(**more: Any) -> Bundle:
        bundle = sealed.bundle()
        bundle.write_lines(lines[:kept])
        bundle.edit("complete.json", lambda value: value.update(more))
        return bundle

    assert "events in these ticks" in write().problem()
    assert "cut off" in write(chain=shown["chain"][:-1]).problem()
    maps = {**shown["maps"], "newest": cut["last"], "last": cut["last"]}
    problems = {
        write(chain=shown["chain"][:-1], maps=maps).problem(),
        write(maps=maps).problem(),
        write(maps={**shown["maps"], "last": cut["last"]}).problem(),
    }
    assert len(problems) == 3, problems
    data = whole.zip.read_bytes()
    whole.zip.write_bytes(data[: len(data) - 40])
    with pytest.raises(BadZipFile):
        ZipFile(whole.zip)


def test_a_bundle_of_an_older_tick_under_a_newer_checkpoint_is_found(sealed: Sealed) -> None:
    """All of it is true, and proved; but the organisation has events that are newer."""
    sealed.bundle()
    kept = sealed.path / "kept"
    (sealed.path / "bundle").rename(kept)
    sealed.act("o1 o2")
    bundle = sealed.bundle()
    size = int((bundle.place / "checkpoint").read_text().split("\n")[1])
    tree = Tree(Stored(sealed.auditor), size)

    def prove(line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "proof": [encode(part) for part in tree.include(line["index"])]}

    lines = [json.loads(line) for line in (kept / "events.jsonl").read_text().splitlines()]
    shown = json.loads((kept / "complete.json").read_text())
    shown["maps"] = {name: prove(line) for name, line in shown["maps"].items()}
    assert len(lines) < len(bundle.lines())
    bundle.write_lines([prove(line) for line in lines])
    bundle.edit("complete.json", lambda value: value.update(shown))
    assert bundle.problem() == "the checkpoint has ticks that are newer"


def test_the_checkpoint_and_map_of_an_older_tick_are_of_that_time(sealed: Sealed) -> None:
    """An older bundle holds on; it says until when."""
    was = sealed.bundle()
    said = was.said()
    kept = {name: (was.place / name).read_bytes() for name in was.names}
    sealed.act("o1")
    new = sealed.bundle()
    assert len(new.ids()) > len(json.loads("[" + ",".join(
        kept["events.jsonl"].decode().splitlines()) + "]"))  # fmt: skip
    assert new.said() != said
    for name in ("complete.json", "events.jsonl", "manifest.json"):
        (new.place / name).write_bytes(kept[name])
    assert new.said().startswith("NOT PROVED: ")
    (new.place / "checkpoint").write_bytes(kept["checkpoint"])
    assert new.said() == said


def test_what_is_changed_anywhere_is_found_or_says_the_same(sealed: Sealed) -> None:
    bundle = sealed.bundle(since=sealed.made[1], until=sealed.made[5])
    said = verify.verify(str(bundle.key), bundle.place)
    shown = [(line["skeleton"], line["personal"]) for line in bundle.lines()]
    chance, found = random.Random(7), 0
    for name in ("manifest.json", "complete.json", "events.jsonl", "checkpoint"):
        path = bundle.place / name
        text = path.read_text("utf-8")
        for _ in range(120):
            at = chance.randrange(len(text))
            new = chance.choice([
                text[:at] + chance.choice("0123456789abcdef\"{},o2") + text[at + 1 :],
                text[:at] + text[at + 1 :], text[:at], text[:at] + text[at:][::-1],
            ])  # fmt: skip
            path.write_text(new, "utf-8")
            try:
                now = verify.verify(str(bundle.key), bundle.place)
            except Exception:
                found += 1
                assert verify.main(str(bundle.key), str(bundle.place)) == 1
            else:
                lines = [(line["skeleton"], line["personal"]) for line in bundle.lines()]
                assert (now, lines) == (said, shown), (name, new[max(0, at - 40) : at + 40])
        path.write_text(text, "utf-8")
    assert found > 400


def test_what_is_sealed_and_not_signed_yet_is_left_for_the_next_bundle(sealed: Sealed) -> None:
    ids = sealed.ids()
    for organization in ("o1", "o7"):
        sealed.app.execute(EVENT, [organization, "x", "y", "{}", 3])
    sealed.auditor.execute("select audit.make_tick()")
    while sealed.auditor.execute("select audit.seal_next(2)").fetchone() != (None,):
        bundle = sealed.bundle()
        assert bundle.ids() == ids
        assert "they are all" in verify.verify(str(bundle.key), bundle.place)
    sealed.seal()
    assert len(sealed.bundle().ids()) == len(ids) + 3
    assert len(sealed.bundle("o7").ids()) == 3


def test_what_cannot_be_complete_is_refused(sealed: Sealed) -> None:
    bundler, output = Bundler(sealed.auditor), sealed.path / "x.zip"
    with pytest.raises(Refused, match="no event of organisation o9 was ever sealed"):
        bundler.bundle("o9", output)
    with pytest.raises(InvalidInput, match="is not a time such as"):
        bundler.bundle("o1", output, since="yesteryear")
    with pytest.raises(Refused, match="no events were sealed in that time"):
        bundler.bundle("o1", output, until="2001-01-01")
    superuser = sealed.db.connect()
    tampering.disarm(superuser)
    write = "update audit.event set result = %s where id = %s"
    superuser.execute(write.encode(), ["denied", sealed.ids()[0]])
    with pytest.raises(Refused, match=r"is not as it was sealed. Run: auditdb verify"):
        bundler.bundle("o1", output)
    superuser.execute(write.encode(), ["success", sealed.ids()[0]])
    superuser.execute("delete from audit.event where id = %s", sealed.ids()[:1])
    with pytest.raises(Refused, match=r"events of o1 in that time: \d+; missing: 1"):
        bundler.bundle("o1", output)
    assert not output.exists()
    assert list(sealed.path.glob(".*")) == []
    # What is later is complete again.
    assert sealed.bundle(since=sealed.made[1]).said().count("they are all events of o1")


def test_single_events_are_proved_to_tools_of_others(sealed: Sealed) -> None:
    first, *_, last = sealed.ids()
    output = sealed.path / "proof.zip"
    assert Bundler(sealed.auditor).prove([last, first, last], output) == 2
    bundle = Bundle(output, sealed.key.key)
    assert bundle.said() == (
        "2 events are as they were sealed in example.com/audit; whether there are others is not "
        "shown\n"
    )
    assert bundle.ids() == [first, last]
    for line in bundle.lines():
        proof = read_proof((bundle.place / f"proofs/{line['index']:012}.tlog-proof").read_text())
        entry = event_entry(line["skeleton"].encode(), commit(
            bytes.fromhex(line["salt"]), line["personal"].encode()))  # fmt: skip
        assert proof.check(entry, [sealed.key.key]).origin == "example.com/audit"
        metamorphic_log.checkpoint_verify_inclusion(
            proof.checkpoint, [str(sealed.key.key)], line["index"], leaf_hash(entry), proof.hashes
        )
    for wrong in (10**15, -1):
        with pytest.raises(Refused, match="does not exist, or is not sealed yet"):
            Bundler(sealed.auditor).prove([first, wrong], output)


def test_a_bundle_goes_with_the_first_key_after_a_rotation(sealed: Sealed) -> None:
    new = PrivateKey.make("example.com/audit")
    sealed.auditor.execute("select audit_private.keep_rotation(%s)", [rotate(sealed.key, new.key)])
    both = State(sealed.path / "both")
    note = sealed.state.path.read_text()
    head = open_checkpoint(note, [sealed.key.key])
    both.write(sign(head.text, [sealed.key, new]), [new.key])
    sealed.app.execute(EVENT, ["o1", "x", "y", "{}", 1])
    Sealer(sealed.auditor, new, both).run()
    bundle = sealed.bundle()
    assert "keys/001" in bundle.names
    assert "they are all events of o1" in bundle.said()
    (bundle.place / "keys" / "001").unlink()
    assert "not signed by the verification key" in bundle.said()


@pytest.mark.parametrize("lie", ["leave_out", "another_chain", "nameless", "two_chains"])
def test_who_seals_a_lie_is_found_by_verify_and_not_by_a_bundle(
    sealed: Sealed, lie: str, tmp_path: Path
) -> None:
    """A superuser alters what hashes: SECURITY.md says that a bundle believes the sealer."""
    superuser = sealed.db.connect()
    if lie == "leave_out":
        superuser.execute(
            "create or replace function audit_private.count_organizations(organizations text[]) "
            "returns void language sql as 'select'"
        )
    else:
        sealed.act("o1")
        tampering.disarm(superuser)
        superuser.execute("update audit.sealed_organization set organization_id = 'x' "
                          "where organization_id = 'o1'")  # fmt: skip
    sealed.act("o1")
    if lie == "nameless":
        superuser.execute("update audit.sealed_organization set organization_id = null "
                          "where organization_id = 'x'")  # fmt: skip
    elif lie == "two_chains":
        superuser.execute("alter table audit.sealed_organization drop constraint "
                          "sealed_organization_organization_id_key")  # fmt: skip
        superuser.execute("update audit.sealed_organization set organization_id = 'o1' "
                          "where organization_id = 'x'")  # fmt: skip
    note = sealed.state.path.read_text()
    report = Verifier(sealed.auditor, [sealed.key.key], [("kept", note)]).run()
    assert any("organisation" in line for line in report.findings)
    if lie == "two_chains":
        superuser.execute("update audit.sealed_organization set organization_id = 'x' "
                          "where id = (select min(id) from audit.sealed_organization "
                          "where organization_id = 'o1')")  # fmt: skip
    bundle = sealed.bundle()
    assert len(bundle.ids()) < len(sealed.ids())
    assert "they are all events of o1" in bundle.said()


def test_the_commands_write_what_they_say(sealed: Sealed) -> None:
    output = sealed.path / "out.zip"
    made = good(sealed.db, "bundle", "--organization-id", "o1", "--since", sealed.made[1],
                "--output", str(output), role="app_auditor")  # fmt: skip
    assert made.endswith(f"events of o1, with proofs, in {output}\n")
    assert "they are all events of o1" in Bundle(output, sealed.key.key).said()
    single = sealed.path / "single.zip"
    made = good(sealed.db, "prove", str(sealed.ids()[0]), "--output", str(single),
                role="app_auditor")  # fmt: skip
    assert made == f"1 event, with proofs, in {single}\n"
    assert Bundle(single, sealed.key.key).said().startswith("1 event is as it was sealed in")
    for role in ("app", "app_reader", "app_owner"):
        other = str(sealed.path / "other.zip")
        ran = run(sealed.db, "bundle", "--organization-id", "o1", "--output", other, role=role)
        assert "permission denied" in error_of(ran)
    nowhere = str(sealed.path / "none" / "x.zip")
    for given in (["prove", "1"], ["bundle", "--organization-id", "o1"]):
        ran = run(sealed.db, *given, "--output", nowhere, role="app_auditor")
        assert "cannot write" in error_of(ran, 2)
    assert "is not a valid integer" in run(sealed.db, "prove", "x", "--output", nowhere).stderr


@pytest.mark.parametrize("command", ["prove 1", "bundle --organization-id o1"])
def test_no_command_overwrites_a_file(db: Database, tmp_path: Path, command: str) -> None:
    output = tmp_path / "out.zip"
    output.write_text("precious")
    ran = run(db, *command.split(), "--output", str(output), role="app_auditor")
    assert error_of(ran, 2) == (
        f"Error: {output} already exists; remove it, or give --output another path"
    )
    assert output.read_text() == "precious"


@pytest.mark.parametrize("name", ["manifest.json", "complete.json", "events.jsonl"])
def test_the_file_that_is_no_json_is_named(sealed: Sealed, name: str) -> None:
    bundle = sealed.bundle()
    (bundle.place / name).write_text('{"version"')
    where = "line 1 of events.jsonl" if name == "events.jsonl" else name
    assert bundle.problem().startswith(f"{where} is not valid JSON: ")
    (bundle.place / name).write_bytes(b"\xff")
    assert bundle.problem() == f"{name} is not valid UTF-8"


def test_an_empty_log_has_nothing_to_prove(db: Database, tmp_path: Path) -> None:
    with pytest.raises(auditdb.Refused, match="nothing was sealed yet"):
        Bundler(db.connect("app_auditor")).bundle("o1", tmp_path / "x.zip")
