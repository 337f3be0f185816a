"""`make bench`: chapters keep to their time, a fault of one is one line, the report is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from psycopg.conninfo import make_conninfo

from benchmarks import chapters, runner
from benchmarks.__main__ import main
from benchmarks.environment import environment
from benchmarks.runner import Chapter, Found, LeftOut, Run
from tests.server import Server

ROOT = Path(__file__).resolve().parent.parent
KNOWN = {"date", "commit", "cpu", "cpus", "memory_gb", "kernel", "filesystem", "server", "settings",
         "auditdb", "python", "load_average_before", "load_average_after"}  # fmt: skip


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def chapter(name: str, seconds: float, measure: Callable[[Run], Found]) -> Chapter:
    return Chapter(
        name=name, title=f"Of {name} & <more>", seconds=seconds,
        command=f"python -m benchmarks.{name}", measure=measure,
    )  # fmt: skip


def found(value: float = 1.5) -> Found:
    rows: list[dict[str, Any]] = [{"way": "<auditdb>", "us": value}, {"way": "none", "us": None}]
    return Found({"Microseconds": rows}, [("µs", [("<auditdb>", value)])])


def report_of(folder: Path) -> tuple[dict[str, Any], str]:
    html = (folder / "report.html").read_text("utf-8")
    return json.loads((folder / "report.json").read_text("utf-8")), html


def run(work: list[Chapter], folder: Path, minutes: float = 10, clock: Any = None) -> int:
    given = {"clock": clock} if clock else {}
    said: list[str] = []
    code = runner.run(work, "", {}, folder, minutes=minutes, say=said.append, **given)
    assert len(said) == len(json.loads((folder / "report.json").read_text("utf-8"))["chapters"])
    return code


def test_rounds_end_where_the_next_would_not_fit() -> None:
    clock = Clock()
    rounds = runner.Rounds(100, clock.now + 35, clock)
    numbers = []
    for number in rounds:
        numbers.append(number)
        clock.now += 10
    assert numbers == [0, 1, 2] and rounds.done == 3


def test_one_round_is_measured_however_late_it_is() -> None:
    clock = Clock()
    assert list(runner.Rounds(100, clock.now - 1, clock)) == [0, 1]
    assert list(runner.Rounds(5, clock.now + 1, clock)) == [0, 1, 2, 3, 4]


def test_chapters_share_the_time_and_give_back_what_one_took_too_long(tmp_path: Path) -> None:
    clock = Clock()
    took = {"first": 1.0, "slow": 500.0, "third": 1.0, "last": 1.0}

    def measure(name: str) -> Callable[[Run], Found]:
        def inner(given: Run) -> Found:
            clock.now += took[name]
            return found()

        return inner

    work = [chapter(name, 100, measure(name)) for name in took]
    assert run(work, tmp_path, minutes=10, clock=clock) == 0
    allowed = [c["allowed_s"] for c in report_of(tmp_path)[0]["chapters"]]
    # 600 s of which 8 % are kept; the slow one leaves 99 for two.
    assert allowed == [138.0, 138.0, 49.5, 98.0]
    assert [c["took_s"] for c in report_of(tmp_path)[0]["chapters"]] == list(took.values())


def test_less_time_is_fewer_rows(tmp_path: Path) -> None:
    sizes = []

    def measure(given: Run) -> Found:
        sizes.append((given.size(1000), given.size(1000, 300)))
        return found()

    for minutes in (100, 1, 0.1):
        run([chapter("a", 552, measure)], tmp_path, minutes=minutes, clock=Clock())
    assert sizes == [(1000, 1000), (100, 300), (10, 300)]


def test_a_chapter_that_fails_is_a_line_and_the_others_run_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(given: Run) -> Found:
        raise ValueError("no\nway <here>")

    def exits(given: Run) -> Found:
        raise SystemExit("a package failed")

    def lacks(given: Run) -> Found:
        raise LeftOut("not installed")

    work = [chapter("a", 1, fails), chapter("b", 1, exits), chapter("c", 1, lacks),
            chapter("d", 1, lambda given: found())]  # fmt: skip
    assert run(work, tmp_path) == 1
    data, html = report_of(tmp_path)
    assert [(c["state"], c["reason"]) for c in data["chapters"]] == [
        ("failed", "ValueError: no way <here>"), ("failed", "SystemExit: a package failed"),
        ("left out", "not installed"), ("done", ""),
    ]  # fmt: skip
    assert "failed: ValueError: no way &lt;here&gt;</p>" in html
    assert "ValueError" in capsys.readouterr().err
    assert run(work[2:], tmp_path) == 0


def test_ctrl_c_leaves_the_report_of_what_was_done(tmp_path: Path) -> None:
    def interrupted(given: Run) -> Found:
        try:
            raise KeyboardInterrupt
        finally:
            # As a process that is gone already, when what it does is ended.
            raise BrokenPipeError

    work = [chapter("a", 1, lambda given: found()), chapter("b", 1, interrupted),
            chapter("c", 1, lambda given: found())]  # fmt: skip
    assert run(work, tmp_path) == 130
    data, html = report_of(tmp_path)
    assert [(c["name"], c["state"]) for c in data["chapters"]] == [
        ("a", "done"), ("b", "interrupted"),
    ]  # fmt: skip
    assert "<svg" in html


def test_the_report_needs_no_other_file_and_has_each_part(tmp_path: Path) -> None:
    def measure(given: Run) -> Found:
        for _ in given.rounds(3):
            pass
        return found(1234.5)

    assert run([chapter("a", 1, measure), chapter("b", 1, measure)], tmp_path) == 0
    data, html = report_of(tmp_path)
    for name in ("a", "b"):
        assert f"<code>python -m benchmarks.{name}</code>" in html
        assert html.count(f'id="{name}"') == html.count(f'href="#{name}"') == 1
    assert "Of a &amp; &lt;more&gt;" in html and "&lt;auditdb&gt;" in html
    assert "<td>1,234.5" in html and "the first to warm up: 3</p>" in html
    plots = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(plots) == 2
    for plot in plots:
        ElementTree.fromstring(plot)
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", html) and "<script" not in html
    assert data["chapters"][0]["tables"] == found(1234.5).tables
    assert data["chapters"][0]["rounds"] == [3]
    assert len(data["environment"]["load_average_after"]) == 3


def test_all_chapters_fit_into_twenty_minutes_and_their_commands_are_there() -> None:
    assert sum(chapter.seconds for chapter in chapters.CHAPTERS) <= 20 * 60 * runner.SHARE
    assert len({chapter.name for chapter in chapters.CHAPTERS}) == len(chapters.CHAPTERS)
    for each in chapters.CHAPTERS:
        module = each.command.removeprefix("python -m benchmarks.").split()[0]
        assert (ROOT / "benchmarks" / f"{module}.py").exists(), each.command


def test_every_command_that_a_document_names_is_there() -> None:
    named = {
        (document.name, module)
        for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for module in re.findall(r"python\s+-m\s+benchmarks\.(\w+)", document.read_text("utf-8"))
    }
    assert len(named) > 10
    assert not [(d, m) for d, m in named if not (ROOT / "benchmarks" / f"{m}.py").exists()]


def test_the_environment_says_what_numbers_depend_on(server: Server, tmp_path: Path) -> None:
    dsn = address_of(server)
    runner.run([chapter("a", 1, lambda given: found())], dsn, environment(dsn), tmp_path,
               minutes=1, say=lambda line: None)  # fmt: skip
    data, html = report_of(tmp_path)
    assert data["environment"].keys() >= KNOWN
    assert data["environment"]["server"].startswith("PostgreSQL ")
    assert data["environment"]["settings"]["wal_level"] == "logical"
    assert "wal_level = logical" in html


def test_a_real_chapter_in_its_smallest_form(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", "integrations", "--minutes", "0.001", "--out", str(tmp_path)]
    assert main([*arguments, "--dsn", address_of(server)]) == 0
    data, _ = report_of(tmp_path)
    ((only,), rows) = data["chapters"], data["chapters"][0]["tables"]["A transaction, µs"]
    assert only["state"] == "done" and only["rounds"] == [2]
    assert {row["us"] for row in rows} == {"psycopg", "psycopg2", "asyncpg"}
    assert all(row["by hand"] > 0 for row in rows)
    assert str(tmp_path / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--minutes", "-1"], ["--only", "nothing"]])
def test_wrong_usage_measures_nothing(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(wrong)
    assert raised.value.code == 2


def address_of(server: Server) -> str:
    return make_conninfo(
        "", host=server.host, port=server.port, user=server.user, password=server.password,
        dbname="postgres",
    )  # fmt: skip
