"""Chromium, an application that is served to it, and what it asked for while it looked."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

MISSING = "Debian's package chromium is missing: apt-get install chromium"
# Where a product mounts the application.
ROOT = "/account/audit"


def path_of_chromium() -> str | None:
    """Return the path of Chromium, or None where it is not installed."""
    return shutil.which("chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path_of_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Stage:
    """Serves what stands on it, mounted in a product, at a free port of this machine."""

    application: Any = None
    origin: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application that stands here now."""
        icon = Route("/favicon.ico", lambda request: Response(status_code=204))
        await Starlette(routes=[icon, Mount(ROOT, self.application)])(scope, receive, send)

    @contextmanager
    def served(self) -> Iterator[Stage]:
        """Serve until the block ends."""
        config = uvicorn.Config(
            self, port=0, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        listening = config.bind_socket()
        self.origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


@dataclass
class Seen:
    """What pages asked for, and what they complained of."""

    hosts: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    def watch(self, context: BrowserContext) -> None:
        """Note whatever the pages of a context do."""
        context.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        context.on("requestfailed", lambda request: self.failed.append(request.url))
        context.on("response", lambda answer: self.statuses.update({answer.url: answer.status}))
        context.on("console", lambda message: self.said.append(message.text))
        context.on("weberror", lambda error: self.said.append(str(error.error)))


@dataclass
class Window:
    """A page of the application in the browser."""

    page: Page
    stage: Stage
    seen: Seen

    def go(self, path: str = "/") -> Page:
        """Open a path of the application."""
        self.page.goto(f"{self.stage.origin}{ROOT}{path}")
        return self.page

    def click(self, link: Locator) -> None:
        """Click on what leads to another page, and wait for it."""
        with self.page.expect_navigation():
            link.click()

    def press(self, key: str) -> None:
        """Press a key that leads to another page, and wait for it."""
        with self.page.expect_navigation():
            self.page.keyboard.press(key)

    @property
    def sentences(self) -> list[str]:
        """What the list says."""
        cells = self.page.locator("td.what")
        return [" ".join(text.split("\n")[0].split()) for text in cells.all_inner_texts()]

    def overflow(self) -> list[str]:
        """Return what stands out of the window at its sides, and what lies on something else."""
        found: list[str] = self.page.evaluate(OVERFLOW)
        return found


Open = Callable[..., Window]

# Whatever has a text of its own is in the window and in its parent; what is hidden does not count.
OVERFLOW = """() => {
  const wide = document.documentElement, found = [];
  if (wide.scrollWidth > wide.clientWidth)
    found.push(`the page is ${wide.scrollWidth} px wide in ${wide.clientWidth}`);
  const own = [...document.querySelectorAll('.audit *')].filter(e => /INPUT|SELECT/.test(e.tagName)
    || [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const seen = own.filter(e => e.checkVisibility({visibilityProperty: true})
    && !e.closest('thead, svg, option, optgroup, datalist, .skip'));
  const boxes = [];
  for (const e of seen) {
    const b = e.getBoundingClientRect();
    if (b.width < 1 || b.height < 1) continue;
    const name = `${e.tagName} ${e.className} ${(e.innerText || e.name || '').slice(0, 40)}`;
    if (b.left < -0.5 || b.right > wide.clientWidth + 0.5)
      found.push(`${name}: ${Math.round(b.left)} to ${Math.round(b.right)}`);
    // Inline boxes that go over several lines enclose what stands beside them.
    if (e.getClientRects().length === 1) boxes.push([e, b, name]);
  }
  boxes.sort((x, y) => x[1].top - y[1].top);
  for (const [i, [e, b, name]] of boxes.entries()) for (const [f, c, other] of boxes.slice(i + 1)) {
    if (c.top > b.bottom) break;
    if (e.contains(f) || f.contains(e)) continue;
    const across = Math.min(b.right, c.right) - Math.max(b.left, c.left);
    const down = Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top);
    if (across > 2 && down > 4) found.push(`${name} lies on ${other}`);
  }
  return found.slice(0, 10);
}"""
