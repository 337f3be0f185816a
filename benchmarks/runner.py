"""Runs chapters, each within its share of the time, and writes what they found as one report."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from benchmarks import chart
from benchmarks.environment import load_average

Clock = Callable[[], float]
TEMPLATE = Path(__file__).with_name("report.html")
# Of the whole time; what is left is for the server's start, and for chapters that take longer.
SHARE = 0.92


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


class LeftOut(Exception):
    """A chapter that cannot run here, for a reason that is no fault."""


@dataclass
class Rounds:
    """Numbers of rounds, as many as fit: 0 warms up, and 1 is always measured.

    No round begins that would end after the deadline, if it took as long as the longest so far.
    """

    at_most: int
    deadline: float
    clock: Clock = time.monotonic
    done: int = 0

    def __iter__(self) -> Iterator[int]:
        """Give the numbers."""
        longest = 0.0
        for number in range(self.at_most):
            began = self.clock()
            if number >= 2 and began + longest > self.deadline:
                return
            yield number
            longest = max(longest, self.clock() - began)
            self.done = number + 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a chapter is given.

    Attributes:
        dsn: address of the server, as its superuser.
        deadline: when it should be done, by the clock.
        scale: how large it should be, 1 being the size that its share of 20 minutes allows.
        clock: what time is measured with.
        given: the rounds that it asked for.
    """

    dsn: str
    deadline: float
    scale: float = 1.0
    clock: Clock = time.monotonic
    given: list[Rounds] = field(default_factory=list)

    def rounds(self, at_most: int, share: float = 1.0) -> Rounds:
        """Return the rounds that fit into a share of what remains of the time."""
        now = self.clock()
        self.given.append(Rounds(at_most, now + share * (self.deadline - now), self.clock))
        return self.given[-1]

    def size(self, whole: int, least: int = 1) -> int:
        """Return a number of rows or events that is in proportion to the time, at most `whole`."""
        return max(least, int(whole * min(1.0, self.scale)))


@dataclass(frozen=True)
class Found:
    """What a chapter found: tables by their title, and the panels of its plot."""

    tables: dict[str, list[dict[str, Any]]]
    panels: list[chart.Panel]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A chapter: its name, how long it may take, the command that runs it whole, and itself."""

    name: str
    title: str
    seconds: float
    command: str
    measure: Callable[[Run], Found]


@dataclass
class Outcome:
    """What became of a chapter: "done", "failed", "left out" or "interrupted", and why."""

    name: str
    title: str
    command: str
    allowed_s: float
    took_s: float = 0.0
    state: str = "done"
    reason: str = ""
    rounds: list[int] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    plot: str = ""


def run(
    chapters: Sequence[Chapter],
    dsn: str,
    environment: dict[str, Any],
    folder: Path,
    *,
    minutes: float,
    clock: Clock = time.monotonic,
    say: Callable[[str], None] = say,
) -> int:
    """Run chapters, write the report after each, and return the exit code.

    Args:
        chapters: what is run, in this order.
        dsn: address of the server, as its superuser.
        environment: what the numbers depend on.
        folder: where report.html and report.json are written.
        minutes: how long all of them may take together.
        clock: what time is measured with.
        say: tells how it goes.
    """
    end = clock() + minutes * 60
    scale = minutes * 60 * SHARE / sum(chapter.seconds for chapter in chapters)
    outcomes: list[Outcome] = []
    environment["load_average_before"] = load_average()
    for number, chapter in enumerate(chapters):
        # What those before took too long is taken from all that follow, by their shares.
        waiting = sum(later.seconds for later in chapters[number:])
        allowed = chapter.seconds * max(0.0, min(scale, (end - clock()) / waiting))
        outcomes.append(_measured(chapter, dsn, allowed, clock))
        environment["load_average_after"] = load_average()
        write(folder, environment, outcomes)
        done = outcomes[-1]
        say(f"{done.name:12} {done.took_s:6.1f} of {allowed:.1f} s  {done.state}"
            + (f": {done.reason}" if done.reason else ""))  # fmt: skip
        if done.state == "interrupted":
            return 130
    return int(any(outcome.state == "failed" for outcome in outcomes))


def _measured(chapter: Chapter, dsn: str, allowed: float, clock: Clock) -> Outcome:
    outcome = Outcome(chapter.name, chapter.title, chapter.command, round(allowed, 1))
    began = clock()
    given = Run(
        dsn=dsn, deadline=began + allowed, scale=allowed / chapter.seconds, clock=clock
    )  # fmt: skip
    try:
        found = chapter.measure(given)
        outcome.tables, outcome.plot = found.tables, chart.bars(found.panels)
    except LeftOut as reason:
        outcome.state, outcome.reason = "left out", str(reason)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        outcome.state = "interrupted" if _is_interrupt(error) else "failed"
        if outcome.state == "failed":
            traceback.print_exception(error)
            outcome.reason = " ".join(f"{type(error).__name__}: {error}".split())
    # Those of a process of its own are not known.
    outcome.rounds = [rounds.done for rounds in given.given if rounds.done]
    outcome.took_s = round(clock() - began, 1)
    return outcome


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl+C is behind an error: what cleans up after it may fail in its own way."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def write(folder: Path, environment: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Write report.json, and report.html, which needs no other file."""
    folder.mkdir(parents=True, exist_ok=True)
    chapters = [asdict(outcome) for outcome in outcomes]
    data = [{k: v for k, v in chapter.items() if k != "plot"} for chapter in chapters]
    report = {"environment": environment, "chapters": data}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["cell"] = _cell
    for chapter in chapters:
        chapter["plot"] = Markup(chapter["plot"])
    html = page.from_string(TEMPLATE.read_text("utf-8")).render(report, chapters=chapters)
    (folder / "report.html").write_text(html, "utf-8")


def _cell(value: object) -> str:
    if isinstance(value, float | int):
        return f"{value:,}"
    return "" if value is None else str(value)
