"""What the command line can do, as functions: for scripts of an operator, and for tests.

`install`, `preview`, `uninstall` and `describe` take an address, since they need transactions of
their own. The others take a connection of psycopg whose login may do it: `audit_operator`, or for
mappings the owner of the tables as well. Each has a docstring with arguments, errors and an
example.

- `install`, `script`, `preview` (install --dry-run), `uninstall`, `describe` (uninstall without
  --yes)
- `detect`, `load` (of a mapping file), `plan` (attach --dry-run), `apply` (attach), and of one
  table `attach`, `detach`, `define_kind`, `baseline`
- `status`, `read_metrics`, `diagnose` and `fix` (doctor), `maintain`, `create_key`, `list_keys`
- `hold_organization`, `release_organization`, `list_holds` (hold), `limit_visibility`,
  `list_visibility` (visible)
- `publish_log`, `unpublish_log` (publish), `collect_source`, `drop_source`, `list_sources`
  (collect)
"""

from typing import TYPE_CHECKING

from auditdb.values.door import door

if TYPE_CHECKING:
    from auditdb.collect.collect import Source, collect_source, drop_source, list_sources
    from auditdb.collect.publish import publish_log, unpublish_log
    from auditdb.detect.document import Proposal
    from auditdb.detect.propose import detect
    from auditdb.mapping.apply import apply
    from auditdb.mapping.attach import attach, define_kind, detach
    from auditdb.mapping.baseline import baseline
    from auditdb.mapping.file import KindMapping, TableMapping, load
    from auditdb.mapping.plan import Change, plan
    from auditdb.operate.doctor import Finding, diagnose, fix
    from auditdb.operate.hold import (
        LegalHold,
        VisibleRetention,
        hold_organization,
        limit_visibility,
        list_holds,
        list_visibility,
        release_organization,
    )
    from auditdb.operate.install import install, script
    from auditdb.operate.keys import create_key, list_keys
    from auditdb.operate.maintain import maintain
    from auditdb.operate.metrics import Sample, read_metrics
    from auditdb.operate.preview import preview
    from auditdb.operate.status import Status, status
    from auditdb.operate.uninstall import describe, uninstall

__all__ = [
    "Change",
    "Finding",
    "KindMapping",
    "LegalHold",
    "Proposal",
    "Sample",
    "Source",
    "Status",
    "TableMapping",
    "VisibleRetention",
    "apply",
    "attach",
    "baseline",
    "collect_source",
    "create_key",
    "define_kind",
    "describe",
    "detach",
    "detect",
    "diagnose",
    "drop_source",
    "fix",
    "hold_organization",
    "install",
    "limit_visibility",
    "list_holds",
    "list_keys",
    "list_sources",
    "list_visibility",
    "load",
    "maintain",
    "plan",
    "preview",
    "publish_log",
    "read_metrics",
    "release_organization",
    "script",
    "status",
    "uninstall",
    "unpublish_log",
]

__getattr__ = door(
    __name__,
    {
        "auditdb.collect.collect": ["Source", "collect_source", "drop_source", "list_sources"],
        "auditdb.collect.publish": ["publish_log", "unpublish_log"],
        "auditdb.detect.document": ["Proposal"],
        "auditdb.detect.propose": ["detect"],
        "auditdb.mapping.apply": ["apply"],
        "auditdb.mapping.attach": ["attach", "define_kind", "detach"],
        "auditdb.mapping.baseline": ["baseline"],
        "auditdb.mapping.file": ["KindMapping", "TableMapping", "load"],
        "auditdb.mapping.plan": ["Change", "plan"],
        "auditdb.operate.doctor": ["Finding", "diagnose", "fix"],
        "auditdb.operate.hold": [
            "LegalHold",
            "VisibleRetention",
            "hold_organization",
            "limit_visibility",
            "list_holds",
            "list_visibility",
            "release_organization",
        ],
        "auditdb.operate.install": ["install", "script"],
        "auditdb.operate.keys": ["create_key", "list_keys"],
        "auditdb.operate.maintain": ["maintain"],
        "auditdb.operate.metrics": ["Sample", "read_metrics"],
        "auditdb.operate.preview": ["preview"],
        "auditdb.operate.status": ["Status", "status"],
        "auditdb.operate.uninstall": ["describe", "uninstall"],
    },
)
