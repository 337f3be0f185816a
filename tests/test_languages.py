"""The recipes of docs/languages.md: the SQL as it stands there, and Node's with its own driver."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Database

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "languages.md").read_text("utf-8")
MODULES = ROOT / ".venv" / "node_modules"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_sql_records_what_the_views_expect(db: Database) -> None:
    conn = db.connect("app")
    conn.execute("insert into workflow (id, organization_id, name) values (5, 1, 'w')")
    change, impersonated, recorded, denied, read = blocks("sql")
    for statements in (change, impersonated, recorded, denied):
        conn.execute(statements.encode())
    superuser = db.connect()
    assert superuser.execute("select new_role, actor_id from audit.role_change").fetchall() == [
        ("ADMIN", "7")
    ]
    activity = "select user_id, successes, failures from audit.login_activity"
    assert superuser.execute(activity).fetchall() == [("7", 1, 1)]
    pairs = "select impersonator_id, user_id, reason, is_open from audit.impersonation"
    assert superuser.execute(pairs).fetchall() == [("1", "2", "ticket 81", False)]
    (event,) = db.events("result = 'denied'")
    assert (event["actor_id"], event["subject_id"]) == ("7", "2")
    (event,) = db.events("action = 'workflow.modified'")
    assert (event["actor_id"], event["impersonator_id"]) == ("2", "1")
    db.connect("app_reader").execute(read.encode())


PROGRAM = """
const { Pool } = require("pg");
const audit = require("./audit.js");

const pool = new Pool({ connectionString: process.env.APP, max: 3 });
const reader = new Pool({ connectionString: process.env.READER });

const rename = (name) => audit.transaction(pool, (client) =>
  client.query("insert into workflow (organization_id, name) values (1, $1)", [name]));

(async () => {
  await Promise.all(Array.from({ length: 20 }, (_, actor) =>
    audit.withContext({ actorId: actor, details: { task: actor } }, async () => {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
      await rename(`by ${actor}`);
      await audit.record(pool, "report.exported", { targetId: actor });
    })));
  await audit.withContext({ actorId: 7, source: "api", details: { ip: "192.0.2.1" } }, async () => {
    await audit.transaction(pool, () => { throw new Error("no"); }).catch(() => {});
    await audit.withContext({ details: { task: 5 } }, () => audit.record(pool,
      "membership.role_changed", { result: "denied", organizationId: 1, details: { why: "no" } }));
  });
  await rename("by nobody");
  const client = await reader.connect();
  await client.query("begin read only");
  await client.query("select set_config('auditdb.viewer', $1, true)",
    [audit.token(process.env.KEY, 1, 1)]);
  const { rows } = await client.query("select count(*)::int as events from audit.log");
  await client.query("commit");
  client.release();
  await Promise.all([pool.end(), reader.end()]);
  console.log(JSON.stringify(rows[0]));
})();
"""


def address_of(db: Database, role: str) -> str:
    from psycopg.conninfo import conninfo_to_dict

    given: dict[str, Any] = conninfo_to_dict(db.dsn)
    return f"postgresql://{role}:secret@{given['host']}:{given['port']}/{given['dbname']}"


def test_node_carries_the_context_of_each_request_and_makes_tokens(
    db: Database, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None or not (MODULES / "pg").exists():
        pytest.skip("there is no Node with pg; run: npm install --prefix .venv pg")
    (tmp_path / "audit.js").write_text(blocks("js")[0], "utf-8")
    (tmp_path / "main.js").write_text(PROGRAM, "utf-8")
    done = subprocess.run(
        [node, "main.js"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={
            "NODE_PATH": str(MODULES), "APP": address_of(db, "app"), "KEY": db.key,
            "READER": address_of(db, "app_reader"),
        },
    )  # fmt: skip
    assert done.stderr == ""
    events = db.events()
    made = [e for e in events if e["action"] == "workflow.created" and e["actor_id"] != "app"]
    assert len(made) == 20
    for event in made:
        assert event["new_values"]["name"] == f"by {event['actor_id']}"
        assert event["details"]["task"] == int(event["actor_id"])
    exported = [e for e in events if e["action"] == "report.exported"]
    assert sorted(int(e["actor_id"]) for e in exported) == list(range(20))
    assert all(e["actor_id"] == e["target_id"] for e in exported)
    (denied,) = [e for e in events if e["result"] == "denied"]
    assert (denied["actor_id"], denied["source"]) == ("7", "api")
    assert denied["details"] == {"ip": "192.0.2.1", "task": 5, "why": "no"}
    (nobody,) = [e for e in events if (e["new_values"] or {}).get("name") == "by nobody"]
    assert (nobody["actor_type"], nobody["source"]) == ("database", "sql")
    of_acme = [e for e in events if e["organization_id"] == "1"]
    assert json.loads(done.stdout) == {"events": len(of_acme)}
