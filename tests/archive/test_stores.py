"""An archive in an object store, and what is said where it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest
import s3fs

from auditdb.archive.place import Place
from auditdb.archive.restoring import restore
from auditdb.archive.run import Archiver
from auditdb.archive.source import Archive
from auditdb.errors import AuditError
from auditdb.evidence.check import Verifier
from auditdb.evidence.erasure import erase
from tests.archive.months import MONTHS, Archived
from tests.conftest import Database

URL = "s3://bucket/audit"


def test_an_object_store_has_an_archive(
    db: Database, tmp_path: Path, bucket: s3fs.S3FileSystem
) -> None:
    archived = Archived(db, tmp_path)
    before = archived.old()
    told = list(Archiver(archived.conn, Place(URL), "app").run("24 months"))
    assert sum(line.startswith("dropped") for line in told) == 2
    assert sorted(bucket.find("bucket")) == sorted(
        f"bucket/audit/database=app/month={month}/{name}"
        for month in MONTHS for name in ("events.parquet", "manifest.json")
    )  # fmt: skip
    place = Place(URL)
    assert place.databases() == ["app"] and place.months("app") == list(MONTHS)
    archive = Archive(archived.auditor, place)
    assert Verifier(archived.auditor, [archived.key.key], archive=archive).run().findings == []
    archive.close()
    for month in MONTHS:
        assert restore(archived.conn, month, place) == 60
    assert archived.old() == before
    list(Archiver(archived.conn, Place(URL), "app").run("24 months", restored=True))
    erase(archived.auditor, subject_id="ann", reason="request 1")
    told = list(Archiver(archived.conn, Place(URL), "app").run())
    assert sum(line.startswith("erased") for line in told) == 2
    path = f"bucket/audit/database=app/month={MONTHS[0]}/events.parquet"
    assert b"ann" not in bucket.cat_file(path)


def test_a_store_without_a_bucket_is_named_and_nothing_is_dropped(
    db: Database, tmp_path: Path, bucket: s3fs.S3FileSystem
) -> None:
    archived = Archived(db, tmp_path)
    archiver = Archiver(archived.conn, Place("s3://none/audit"), "app")
    told = list(archiver.run("24 months"))
    assert archiver.problems == 2
    assert all("cannot write none/audit/database=app" in line for line in told), told
    assert len(archived.old()) == 120
    with pytest.raises(AuditError, match="cannot list"):
        Place("s3://none/audit").databases()
