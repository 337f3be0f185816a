"""The site of the documentation: whole, without a link that leads nowhere, and on its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.website import relinked

ROOT = Path(__file__).resolve().parent.parent


def build(folder: Path, config: str = "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    made = {"index", "architecture", "security", "house-rules", "changelog", "threats", "licence"}
    assert {path.stem for path in site.glob("*.html")} == documents | made | {"404"}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\s\">]+)"
        r"|url\([\"']?((?:https?:)?//[^)]+)"
    )
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert [found[0] for page in pages for found in loaded.finditer(page.read_text("utf-8"))] == []


def test_python_reference_has_signatures_and_arguments(site: Path) -> None:
    page = (site / "api.html").read_text("utf-8")
    for name in ("context", "record", "attempt", "reader", "auditor", "install"):
        assert f'id="auditdb.{name}"' in page
    assert "viewer_id" in page and "__post_init__" not in page


@pytest.mark.parametrize("link", ["nowhere.md", "mapping.md#no-such-heading", "../NOWHERE.md"])
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "mapping.md").write_text(f"# Mapping\n\n[there]({link})\n")
    (tmp_path / "mkdocs.yml").write_text(
        re.search(r"^validation:\n(?:  .*\n)+", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)[0]  # type: ignore[index]
        + "site_name: x\n"
    )
    done = build(tmp_path / "site", str(tmp_path / "mkdocs.yml"))
    assert done.returncode == 1 and link.split("#")[-1] in done.stderr


def test_links_lead_to_pages_of_the_site_and_what_it_has_not_is_named() -> None:
    text = "[a](docs/page.md#mount-it) [b](SECURITY.md) [c](tests/server.py) [d](https://x.test)"
    assert relinked(text, ROOT) == "[a](page.md#mount-it) [b](security.md) c [d](https://x.test)"
    assert relinked("[docs/sql.md](docs/sql.md)", ROOT) == "[SQL reference](sql.md)"
    assert relinked("[a](../README.md) [b](pictures/x.png)", ROOT / "docs") == (
        "[a](index.md) [b](pictures/x.png)"
    )
