"""Each snippet of docs/django.md is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import auditdb
from tests.conftest import Database
from tests.integrations import django_setup

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs/django.md").read_text("utf-8")
SNIPPETS = [
    (language, textwrap.dedent(code))
    for language, code in re.findall(r"^ *```(\w+)\n(.*?)^ *```", TEXT, re.M | re.S)
]


def snippet(words: str) -> str:
    (found,) = [code for _, code in SNIPPETS if words in code]
    return found


def test_every_snippet_is_one_of_these() -> None:
    words = (
        "pip install 'auditdb[django]'", "# settings.py", "manage.py auditdb install", "--no-deps",
        "cursor.copy", "with attempt", "operations = [", "def get_context",
    )  # fmt: skip
    assert [code for _, code in SNIPPETS] == [snippet(word) for word in words]
    assert len((snippet("# settings.py") + snippet("auditdb install")).splitlines()) <= 10


def test_a_project_adds_it(empty_db: Database, tmp_path: Path) -> None:
    base = "tests.integrations.django_project.settings"
    (tmp_path / "own_settings.py").write_text(
        f"from {base} import *\n"
        "INSTALLED_APPS = [name for name in INSTALLED_APPS if 'auditdb' not in name]\n"
        "INSTALLED_APPS.remove('tests.integrations.django_project.shop')\n"
        "MIDDLEWARE = [name for name in MIDDLEWARE if 'auditdb' not in name]\n"
        "ROOT_URLCONF = 'own_urls'\n" + snippet("# settings.py")
    )
    (tmp_path / "own_urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "manage.py").write_text(
        "import sys\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(sys.argv)\n"
    )
    (tmp_path / "python").symlink_to(sys.executable)
    environment = django_setup.environment(
        database=django_setup.options(empty_db.dsn, "postgres")
    ) | {"DJANGO_SETTINGS_MODULE": "own_settings", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    commands = snippet("manage.py auditdb install").replace("python ", f"{sys.executable} ")
    script = f"set -e\n{sys.executable} manage.py migrate -v 0\n{commands}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    # The doctor may find that nobody is an admin here.
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    with empty_db.connect() as conn:
        attached = conn.execute(
            "select count(*) from pg_trigger where tgrelid = 'auth_user'::regclass "
            "and tgname like 'auditdb%'"
        ).fetchone()
    assert attached is not None and attached[0] > 0, done.stdout + done.stderr


def test_copies_records_and_attempts(django_db: Database, project: Callable[..., None]) -> None:
    from django.core.exceptions import PermissionDenied

    from tests.integrations.django_project.shop.models import Workflow
    from tests.integrations.test_django import new_user

    names = {"user": new_user("ann"), "PermissionDenied": PermissionDenied, "Workflow": Workflow}
    with auditdb.context(actor_id=7):
        exec(snippet("cursor.copy"), dict(names))
        with pytest.raises(PermissionDenied):
            exec(snippet("with attempt"), dict(names))
    copied, exported, refused = django_db.events("source = 'web'")
    assert copied["new_values"]["name"] == "Reminders"
    assert exported["details"]["rows"] == 40
    assert (refused["action"], refused["result"]) == ("workflow.deleted", "denied")
    assert {event["actor_id"] for event in (copied, exported, refused)} == {"7"}


def test_operations_are_those_of_the_project() -> None:
    django_setup.set_up()
    names: dict[str, Any] = {}
    exec(snippet("operations = ["), names)
    from tests.integrations.django_project.shop import migrations

    first = __import__(f"{migrations.__name__}.0001_initial", fromlist=["Migration"])
    written = first.Migration.operations[-1].deconstruct()
    assert names["operations"][0].deconstruct() == written


def test_a_get_context_of_a_project() -> None:
    django_setup.set_up()
    from django.test import RequestFactory

    class User:
        pk, is_authenticated, organization_id = 7, True, 5

    names: dict[str, Any] = {}
    exec(snippet("def get_context"), names)
    request = RequestFactory().get("/")
    assert names["get_context"](request)["organization_id"] is None
    request.user = User()
    said = names["get_context"](request)
    assert (said["actor_id"], said["organization_id"]) == ("7", 5)
