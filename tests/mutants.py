"""Breaks important lines one at a time, and demands that a test fails: `make mutants`.

Each entry of mutants.toml is a guarantee, a change that breaks it, and the tests that must fail
then. A change that no test notices is a guarantee without a test.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

import auditdb
from tests.conftest import ROLES
from tests.server import running

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).with_suffix(".toml")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "dist")
# After so many a test is taken to hang, which is no verdict.
SECONDS = 300

# Roles and databases outlive a test, and a mutant may leave others behind.
STATE = """
select jsonb_build_array(
    (select jsonb_agg(to_jsonb(r) order by rolname) from pg_roles as r),
    (select jsonb_agg(to_jsonb(m) - 'oid' order by roleid, member, grantor)
        from pg_auth_members as m),
    (select jsonb_agg(datname order by datname) from pg_database))::text
"""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A change that breaks a guarantee.

    Attributes:
        name: what `--only` takes.
        guarantee: what no longer holds after the change, in one sentence.
        file: the file that is changed.
        old: the text that is replaced, which is in the file once.
        new: the text that takes its place.
        test: the tests that must fail, as arguments of pytest.
        holds: which guarantees of README (their bold words) and of SECURITY.md (their first
            cells) it stands for.
        server: the major version of PostgreSQL that notices; by default the embedded one does.
        fresh: whether it takes a server on which nothing was installed before.
    """

    name: str
    guarantee: str
    file: str
    old: str
    new: str
    test: str
    holds: tuple[str, ...] = ()
    server: str = ""
    fresh: bool = False

    @property
    def place(self) -> Place:
        """What the server must be like that the tests run on."""
        return Place(self.server, self.fresh)

    def problem(self, root: Path) -> str | None:
        """Return why the change cannot be made in a copy of the repository."""
        if self.old == self.new:
            return "`new` is `old`"
        count = (root / self.file).read_text("utf-8").count(self.old)
        return None if count == 1 else f"`old` is {count} times in {self.file}"

    def apply(self, root: Path) -> None:
        """Make the change in a copy of the repository."""
        path = root / self.file
        path.write_text(path.read_text("utf-8").replace(self.old, self.new), "utf-8")


@dataclass(frozen=True, order=True)
class Place:
    """A version of PostgreSQL, and whether nothing was installed on the server before."""

    version: str
    is_fresh: bool

    @property
    def binaries(self) -> Path | None:
        """The programs of the server; none for the embedded one."""
        return Path(f"/usr/lib/postgresql/{self.version}/bin") if self.version else None

    @property
    def is_here(self) -> bool:
        """Whether this machine has that version."""
        return self.binaries is None or (self.binaries / "postgres").exists()


@dataclass(frozen=True)
class Verdict:
    """What became of a run of tests: what pytest said last, and whether a test failed."""

    code: int
    said: str
    seconds: float

    @property
    def is_noticed(self) -> bool:
        """Whether a test failed: not its collection, nor the setup of its database."""
        return self.code == 1 and re.search(r"\b\d+ failed", self.said) is not None


class Servers:
    """Running servers, each lent to one user at a time."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[_Running]] = defaultdict(list)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        for server in (server for idle in self._idle.values() for server in idle):
            server.stop()

    @contextmanager
    def lent(self, place: Place) -> Iterator[dict[str, str]]:
        """Lend a server, as the environment variables that lead the tests to it."""
        if place.is_fresh:
            yield {"AUDITDB_TEST_BIN": str(place.binaries)} if place.binaries else {}
            return
        idle = self._idle[place.version]
        server = idle.pop() if idle else _Running(place)
        try:
            yield {"AUDITDB_TEST_DSN": server.address}
        finally:
            if server.is_as_before():
                idle.append(server)
            else:
                server.stop()


class _Running:
    """A server that has the roles of auditdb and of the tests, and no database of theirs."""

    def __init__(self, place: Place) -> None:
        self._stack = ExitStack()
        server = self._stack.enter_context(running(place.binaries))
        self.address = make_conninfo("", host=server.host, port=server.port, user=server.user)
        self._execute("create database first")
        auditdb.install(make_conninfo(self.address, dbname="first"))
        self._execute(ROLES)
        self._execute("drop database first with (force)")
        self._state = self._execute(STATE)

    def _execute(self, query: str) -> object:
        with psycopg.connect(self.address, dbname="postgres", autocommit=True) as conn:
            cursor = conn.execute(query.encode())
            return cursor.fetchall() if cursor.description else None

    def is_as_before(self) -> bool:
        """Return whether no role, membership or database was left behind."""
        return self._execute(STATE) == self._state

    def stop(self) -> None:
        """Stop the server and delete its data."""
        self._stack.close()


def read() -> list[Mutant]:
    """Return the mutants of the data file."""
    entries = tomllib.loads(DATA.read_text("utf-8"))["mutant"]
    return [Mutant(**{**entry, "holds": tuple(entry.get("holds", ()))}) for entry in entries]


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the repository to a temporary directory, which is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="auditdb-mutant-") as directory:
        # The tests' server runs as another user.
        os.chmod(directory, 0o755)
        yield Path(shutil.copytree(ROOT, Path(directory) / "auditdb", ignore=NOT_COPIED))


def environment(root: Path, server: dict[str, str]) -> dict[str, str]:
    """Return the environment in which the code of a copy runs, on a server."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith("AUDITDB_")}
    return {**mine, **server, "PYTHONPATH": str(root)}


def list_anew(root: Path, server: dict[str, str]) -> None:
    """Write sql/RELEASE of a copy, or any change of its SQL would be a finding of the doctor."""
    address = [server["AUDITDB_TEST_DSN"]] if "AUDITDB_TEST_DSN" in server else []  # else its own
    subprocess.run(
        [sys.executable, "-m", "tests.release", *address], cwd=root, check=False,
        env=environment(root, server), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def run(root: Path, tests: Iterable[str], server: dict[str, str]) -> Verdict:
    """Run tests of a copy of the repository until the first fails."""
    options = ["-q", "-x", "--tb=no", "-p", "no:randomly"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=root, env=environment(root, server), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=SECONDS)
        said = output.strip().splitlines()[-1] if output.strip() else "nothing"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        said = f"no answer in {SECONDS} seconds"
    return Verdict(process.returncode, said, time.monotonic() - started)


def failing(servers: Servers, place: Place, tests: list[str]) -> dict[str, str]:
    """Return those of the tests that do not pass in the repository as it is, and what they say."""
    with copied() as root, servers.lent(place) as server:
        together = [word for test in tests for word in shlex.split(test)]
        # One process is quicker; but `-k` would choose among the tests of the others.
        if "-k" not in together and run(root, together, server).code == 0:
            return {}
        verdicts = {test: run(root, shlex.split(test), server) for test in tests}
    return {test: verdict.said for test, verdict in verdicts.items() if verdict.code != 0}


def try_mutant(servers: Servers, mutant: Mutant) -> Verdict:
    """Run the tests of a mutant in a copy of the repository that has its change."""
    problem = mutant.problem(ROOT)
    if problem:
        return Verdict(2, problem, 0.0)
    with copied() as root:
        mutant.apply(root)
        with servers.lent(mutant.place) as server:
            if mutant.file.startswith("sql/"):
                # By the embedded server, where the mutant is for another: the list is for all.
                list_anew(root, {} if mutant.server else server)
            return run(root, shlex.split(mutant.test), server)


@contextmanager
def workers(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads that, where something is raised, begin nothing more."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def run_all(mutants: list[Mutant], jobs: int) -> int:
    """Try mutants, print what became of each, and return how many were noticed."""
    with Servers() as servers, workers(jobs) as pool:
        by_place: defaultdict[Place, set[str]] = defaultdict(set)
        for mutant in mutants:
            by_place[mutant.place].add(mutant.test)
        parts = [
            (place, sorted(tests)[start::jobs])
            for place, tests in sorted(by_place.items())
            for start in range(min(jobs, len(tests)))
        ]
        bad: dict[tuple[Place, str], str] = {}
        for (place, _), found in zip(
            parts, pool.map(lambda part: failing(servers, *part), parts), strict=True
        ):
            bad |= {(place, test): said for test, said in found.items()}
        for (_, test), said in bad.items():
            print(f"fails in the repository as it is: {test}: {said}", flush=True)
        ready = [mutant for mutant in mutants if (mutant.place, mutant.test) not in bad]
        noticed = 0
        for mutant, verdict in zip(
            ready, pool.map(lambda mutant: try_mutant(servers, mutant), ready), strict=True
        ):
            noticed += verdict.is_noticed
            word = "noticed" if verdict.is_noticed else "SURVIVED" if not verdict.code else "BROKEN"
            says = mutant.guarantee if verdict.is_noticed else f"{mutant.test}: {verdict.said}"
            print(f"{word:8} {mutant.name} ({verdict.seconds:.1f} s): {says}", flush=True)
    return noticed


def part(text: str) -> slice:
    """Return which mutants are the Nth of M parts, of "N/M"."""
    number, _, parts = text.partition("/")
    if not 1 <= int(number) <= int(parts):
        raise ValueError(text)
    return slice(int(number) - 1, None, int(parts))


def main() -> int:
    """Try the mutants that are asked for, and return 0 if all were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="try this one alone")
    parser.add_argument("--part", type=part, default="1/1", metavar="N/M", help="only every Mth")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    args = parser.parse_args()
    mutants = read()
    if args.only:
        unknown = set(args.only) - {mutant.name for mutant in mutants}
        if unknown:
            parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
        mutants = [mutant for mutant in mutants if mutant.name in args.only]
    mutants = mutants[args.part]
    # As Ctrl-C: the servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here = [mutant for mutant in mutants if mutant.place.is_here]
    noticed = run_all(here, args.jobs)
    for mutant in mutants:
        if mutant not in here:
            print(f"NOT RUN  {mutant.name}: there is no PostgreSQL {mutant.server} here")
    left = f", {len(mutants) - len(here)} not run" if len(here) < len(mutants) else ""
    print(f"{noticed} of {len(here)} noticed{left}")
    return 0 if noticed == len(here) else 1


if __name__ == "__main__":
    sys.exit(main())
