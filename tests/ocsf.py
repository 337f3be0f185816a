"""Writes docs/ocsf.md, how actions become OCSF: python -m tests.ocsf."""

from __future__ import annotations

import re
from pathlib import Path

from auditdb.export.formats.ocsf_mapping import mapping, meaning_of
from auditdb.mapping.kinds import KINDS

SQL = Path(__file__).parents[1] / "sql"
# A row of audit.action: its name, and a sentence.
DESCRIBED = r"[(]'([a-z_]+[.][a-z_]+)',\s*'(?:[A-Z]|auditdb )"
HEADER = """\
# Events as OCSF {version}

`--format ocsf` makes of each event one of the [Open Cybersecurity Schema Framework](https://schema.ocsf.io/{version}/).
The tables are made of `auditdb/export/formats/ocsf.toml` by `make reference`.

| of the event | in OCSF |
| --- | --- |
| `action` | class, activity, `severity`; `metadata.event_code` |
| `result` | `status`, `status_code`; severity is at least Low of a failure, Medium of a denial |
| `occurred_at` | `time` in milliseconds, `time_dt`, `metadata.original_time` |
| series and `id` | `metadata.uid` |
| series and `transaction_id` | `metadata.correlation_uid` |
| `organization_id` | `metadata.tenant_uid` |
| `actor_id`, `actor_type` | `actor.user`; where nobody is named, `actor.app_name` is the `source` |
| `impersonator_id` | `actor.session.issuer`: who acts as `actor.user` |
| `subject_id` | `user` of classes that have one |
| `target_type`, `target_id` | `entity`; `resources` of API Activity |
| `old_values`, `new_values` | `entity.data`, `entity_result.data`; of other classes in `unmapped` |
| `details.ip` | `src_endpoint.ip`; `src_endpoint.name` if it is no address |
| `details.device_id`, `device` | `device` |
| `details.user_agent`, `request_id`, `method`, `route` | `http_request` |
| `details.reason` | `status_detail` |
| `details.method` of a sign-in or a factor | `auth_factors` |
| `details.new_role`, `group` | `privileges`, `resources`, `group` |

Nothing of an event is lost: what has no place of its own as it is stands in `unmapped` under its
own name, such as `unmapped.details`, which has all of them. A time that RFC 3339 cannot write is in
`metadata.original_time` alone, and `time` is 0. `metadata.uid` tells a repeat.
"""
ACTIONS = """\
## Actions

| action | class | activity | severity |
| --- | --- | --- | --- |"""
VERBS = """\
## Other actions

Of any other action that has a target the verb decides, be it of a kind of your own or recorded.
What is left is {with_target} with a target, {without_target} without; the verb is the name of
activity 99.

| verb | class | activity | severity |
| --- | --- | --- | --- |"""


def built_in() -> set[str]:
    """Return the actions that auditdb brings, and those of its kinds."""
    own = {
        action for path in SQL.rglob("*.sql") for action in re.findall(DESCRIBED, path.read_text())
    }
    for kind in KINDS.values():
        own |= {action for action in (*kind.verbs.values(), *kind.facts.values()) if action}
        own |= {f"{kind.name}.{verb}" for verb in ("baseline", "truncated") if kind.verbs}
    return own


def _row(name: str, action: str) -> str:
    data = mapping()
    class_name, activity, caption, severity = meaning_of(action, has_target=True)
    its = data["class"][class_name]
    return (
        f"| `{name}` | {its['caption']} {its['uid']} | {caption} {activity} "
        f"| {data['severity'][str(severity)]} |"
    )


def markdown() -> str:
    """Return the document."""
    data = mapping()
    names = {
        key: "{caption} {uid}".format(**data["class"][value])
        for key, value in data["otherwise"].items()
    }
    return "\n".join([
        HEADER.format(version=data["version"]),
        ACTIONS,
        *(_row(action, action) for action in sorted(built_in() | set(data["action"]))),
        "",
        VERBS.format(**names),
        *(_row(verb, f"any.{verb}") for verb in sorted(data["verb"])),
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    print(markdown(), end="")
