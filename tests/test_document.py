"""A proposal that is merged into a mapping file which people edited."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from auditdb.cli import main
from auditdb.detect.document import Proposal, update
from auditdb.detect.draft import Question, Suggestion
from auditdb.detect.propose import detect
from auditdb.errors import InvalidInput
from auditdb.mapping.file import KindMapping, TableMapping, load
from tests.conftest import APPLICATION, Database

NEW = """
create table api_tokens (id int primary key, user_id int not null references app_user,
    name text not null, token_hash text not null);
"""

# As a person leaves it: own order, options, spellings, a kind, comments, a table that is skipped.
EDITED = """\
# ours; see wiki/audit
[[table]]   # the important one
kind = "membership"
name = 'membership'
  role = "role"

[[table]]
name = "public.app_user"
kind = "user"

#[[table]]
#name = "public.workflow"
#kind = "workflow"

# # [[table]]
# # too noisy, says Ann
# # name = 'public."workflow_step"'
# # kind = "workflow"

[detect]
skip = ["api_key"]

[[kind]]
name = "invoice"
verbs = { created = "invoice.issued" }

[[table]]
name = "public.organization"
kind = "organization"
# the end, without a line feed"""


@pytest.fixture
def owner(empty_db: Database) -> psycopg.Connection[Any]:
    conn = empty_db.connect("app_owner")
    conn.execute(APPLICATION.encode())
    return conn


def names(text: str) -> set[str]:
    return {m.name for m in load(text) if isinstance(m, TableMapping)}


@pytest.mark.parametrize(("end", "tail"), [("\n", ""), ("\r\n", ""), ("\n", "\n\n# \t \n\n\n")])
def test_what_is_new_is_added_below_and_what_stands_is_kept_to_the_byte(
    owner: psycopg.Connection[Any], end: str, tail: str
) -> None:
    edited = EDITED.replace("\n", end) + tail
    before = update(owner, detect(owner), edited)
    assert (before.text, before.lines) == (edited, ())
    owner.execute(NEW.encode())
    after = update(owner, detect(owner), edited)
    assert after.lines == ("new       public.api_tokens as api_key",)
    assert after.text.startswith(edited + (end if tail else end * 2) + "# # New on ")
    assert names(after.text) - names(edited) == {"public.api_tokens"}
    assert [m for m in load(after.text) if isinstance(m, KindMapping)]
    assert ("\r\n" in after.text) == (end == "\r\n")
    assert after.text.count("\n") == after.text.count(end)
    # What was added is known from then on.
    again = update(owner, detect(owner), after.text)
    assert (again.text, again.lines) == (after.text, ())


@pytest.mark.parametrize("known", [
    '[[table]]\nname = "api_tokens"\nkind = "api_tokens"\n',
    '#[[table]]\n#name = "public.api_tokens"\n#kind = "workflow"\n',
    "# # [[table]]\n# # why\n# # name = 'public.api_tokens'\n# # kind = 'workflow'\n",
    '[detect]\nskip = ["public.api_tokens"]\n',
    "[detect]\nskip = ['api_tokens']\n",
])  # fmt: skip
def test_a_table_that_is_there_or_commented_out_or_skipped_is_known(
    owner: psycopg.Connection[Any], known: str
) -> None:
    owner.execute(NEW.encode())
    updated = update(owner, detect(owner), EDITED.partition("[detect]")[0] + known)
    assert not any("public.api_tokens" in line for line in updated.lines)
    assert not any(name.endswith("api_tokens") for name in names(updated.text) - names(known))


@pytest.mark.parametrize("unknown", [
    '# [[kind]]\n# name = "api_tokens"\n', "# api_tokens is not audited\n",
    "[detect]\nskip = ['api_tokens_2']\n",
    '# [[table]]\n# name = "a.b.c.d"\n# [[table]]\n# name = "\n# [[table]]\n# name = 1\n',
])  # fmt: skip
def test_a_table_that_is_only_spoken_of_is_added(
    owner: psycopg.Connection[Any], unknown: str
) -> None:
    owner.execute(NEW.encode())
    updated = update(owner, detect(owner), EDITED.partition("[detect]")[0] + unknown)
    assert "new       public.api_tokens as api_key" in updated.lines


def test_a_guess_is_added_commented_out_with_its_questions_and_options(
    owner: psycopg.Connection[Any],
) -> None:
    asked = (Question("unsure", "Is it?"),)
    guess = Suggestion("public.note", "note", "Why.", asked, False, {"alive": "r.ended = ''"})
    updated = update(owner, Proposal((guess,), (), ()), EDITED)
    assert updated.lines == ("new       public.note as note (a guess, commented out)",)
    block = updated.text.split("\n\n")[-1].splitlines()
    assert block == [
        "# [[table]]", "# # Why.", "# # ? Is it?", '# name = "public.note"', '# kind = "note"',
        "# alive = \"r.ended = ''\"",
    ]  # fmt: skip
    assert names(updated.text) == names(EDITED)
    toggled = "\n".join(line.removeprefix("# ") for line in block)
    assert load(toggled) == [TableMapping("public.note", "note", {"alive": "r.ended = ''"})]


def test_what_was_left_out_is_told_once(owner: psycopg.Connection[Any]) -> None:
    long = "because of many reasons, " * 9
    proposal = Proposal((), ("public.a: why.", f'public."b c": {long}.'), ("public.gizmo",))
    updated = update(owner, proposal, "# # public.a_b and public.gizmos\n" + EDITED)
    assert len(updated.lines) == 3 and updated.lines[2].startswith("left out  public.gizmo: ")
    # No table is new: there is nothing to look for under a date.
    added = updated.text.removeprefix("# # public.a_b and public.gizmos\n" + EDITED)
    assert added.lstrip().startswith("# # Left out:\n# # - public.a: why.\n")
    assert "New on" not in added
    again = update(owner, proposal, updated.text)
    assert (again.text, again.lines) == (updated.text, ())


def test_a_table_that_is_gone_or_has_another_name_is_told(owner: psycopg.Connection[Any]) -> None:
    owner.execute("select audit.attach('workflow', 'workflow')")
    owner.execute("alter table workflow rename to process; drop table api_key")
    updated = update(owner, detect(owner), EDITED)
    assert updated.text == EDITED
    numbers = {line.split()[-1]: n for n, line in enumerate(EDITED.splitlines(), 1) if line}
    renamed, gone = numbers['"public.workflow"'], numbers['["api_key"]']
    assert updated.lines == (
        "renamed   public.workflow is public.process now: "
        f'write "public.process" in line {renamed}',
        f"gone      api_key: take it out of line {gone}",
    )


def test_the_line_to_edit_is_that_of_the_name_alone_and_what_to_write_is_toml(
    owner: psycopg.Connection[Any],
) -> None:
    owner.execute("select audit.attach('workflow', 'workflow')")
    owner.execute('alter table workflow rename to "Process"')
    step = "# parts of public.workflow\nname = 'public.workflow_step'\nkind = 'workflow'\n"
    file = f"[[table]]\n{step}[[table]]\nname = 'public.workflow'\nkind = 'workflow'\n"
    [told] = [n for n in update(owner, detect(owner), file).lines if n.startswith("renamed")]
    assert told.endswith("""now: write 'public."Process"' in line 6""")


def test_a_file_that_is_no_mapping_file_is_refused(owner: psycopg.Connection[Any]) -> None:
    for text in ("[[table]\n", "[[table]]\nname = 'a'\n", "tables = 1\n"):
        with pytest.raises(InvalidInput, match=r"^f\.toml"):
            update(owner, Proposal((), ()), text, "f.toml")


# The command

Run = Callable[..., Result]


@pytest.fixture
def run(empty_db: Database) -> Run:
    def run(*args: str) -> Result:
        dsn = ["--dsn", empty_db.conninfo("app_owner")]
        return CliRunner().invoke(main, [*dsn, "detect", *args])

    return run


def test_update_makes_a_file_that_is_missing_or_empty_and_adds_to_one_that_is_there(
    owner: psycopg.Connection[Any], run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "auditdb.toml"
    proposed = run().stdout
    assert run("--update", str(path)).exit_code == 0
    assert path.read_text() == proposed
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    path.write_text("")
    assert run("--update", str(path)).exit_code == 0
    assert path.read_text() == proposed
    path.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    owner.execute(NEW.encode())
    result = run("--update", str(link))
    assert (result.exit_code, result.stdout) == (0, "new       public.api_tokens as api_key\n")
    assert link.is_symlink() and path.read_text().startswith(proposed)
    assert "public.api_tokens" in names(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = path.stat()
    assert run("--update", str(path)).stdout == f"nothing new for {path}\n"
    assert path.stat() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["auditdb.toml", "link.toml"]


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize(("given", "message"), [
    ("-", "--update takes a file"), ("{}", "cannot read the mapping file"),
    ("{}/no/such", "cannot write"),
])  # fmt: skip
def test_update_says_in_one_line_what_it_cannot_do(
    owner: psycopg.Connection[Any], run: Run, tmp_path: Path, given: str, message: str
) -> None:
    result = run("--update", given.format(tmp_path))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_file_that_changes_meanwhile_and_one_that_cannot_be_written_stay_as_they_are(
    owner: psycopg.Connection[Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "auditdb.toml"
    path.write_text(EDITED)
    owner.execute(NEW.encode())
    with monkeypatch.context() as patched:
        patched.setattr("auditdb.detect.document.update", _edits(path))
        result = run("--update", str(path))
    assert result.exit_code == 2 and "was changed meanwhile" in result.stderr
    assert path.read_text() == f"{EDITED}\n# mine"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        result = run("--update", str(path))
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert path.read_text() == f"{EDITED}\n# mine"
    assert [p.name for p in tmp_path.iterdir()] == ["auditdb.toml"]


def _edits(path: Path) -> Callable[..., Any]:
    def edit(*args: Any) -> Any:
        path.write_text(f"{EDITED}\n# mine")
        return update(*args)

    return edit
