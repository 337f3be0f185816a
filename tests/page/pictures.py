"""Writes docs/pictures: the demo's log in a browser. `python -m tests.page.pictures`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Page
from rich.console import Console

from auditdb.demo import run
from auditdb.web import Access, app
from tests.page.browser import ROOT, Stage, chromium

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
WIDTHS = {1280: 1000, 800: 1000, 360: 720}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def take(access: dict[str, Any], **given: Any) -> None:
    """Write each page in each scheme and width."""
    site = app(viewer=lambda request: Access(**access), **given)
    with Stage(site).served() as stage, chromium() as browser:
        page = browser.new_page()
        for name, path in (("list", "/"), ("event", "")):
            page.goto(f"{stage.origin}{ROOT}{path or '/?action=membership.role_changed'}")
            if not path:
                page.locator("td.time a").last.click()
            shoot(page, name)


def shoot(page: Page, name: str) -> None:
    """Write a page as it is in each scheme and width."""
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            taken = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
            taken.quantize(256, Image.Quantize.MAXCOVERAGE).save(
                FOLDER / f"{name}-{scheme}-{width}.png", optimize=True
            )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    if not run(look=take, console=Console(file=io.StringIO())):
        raise SystemExit("the demo failed")
