"""Measures a short form of every chapter within 20 minutes, and writes one report.

python -m benchmarks                  # every chapter; dist/bench/report.html and .json
python -m benchmarks --only read      # some chapters
python -m benchmarks --minutes 5      # fewer rows and rounds
python -m benchmarks --dsn ...        # another server; databases bench* are made and dropped
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import runner
from benchmarks.capture import address
from benchmarks.chapters import CHAPTERS
from benchmarks.environment import environment


def main(arguments: list[str] | None = None) -> int:
    """Run the chapters, and return the exit code: 1 if one failed, 130 after Ctrl+C."""
    listed = "\n".join(
        f"  {chapter.name:13} {chapter.seconds:4.0f} s  {chapter.title}; whole: {chapter.command}"
        for chapter in CHAPTERS
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=f"chapters:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [chapter.name for chapter in CHAPTERS]
    parser.add_argument("--only", action="append", choices=names, metavar="CHAPTER",
                        help="run this chapter; may be repeated")  # fmt: skip
    parser.add_argument("--minutes", type=float, help="for all chapters together (20 by default)")
    parser.add_argument("--out", type=Path, default=Path("dist/bench"),
                        help="folder of the report (%(default)s)")  # fmt: skip
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    given = parser.parse_args(arguments)
    if given.minutes is not None and not given.minutes > 0:
        parser.error("--minutes takes a number above 0")
    chosen = [chapter for chapter in CHAPTERS if given.only is None or chapter.name in given.only]
    minutes = given.minutes or sum(c.seconds for c in chosen) / runner.SHARE / 60
    with address(given.dsn) as dsn:
        code = runner.run(chosen, dsn, environment(dsn), given.out, minutes=minutes)
    print(f"The report is in {given.out / 'report.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
