"""Commands of the export: export, subscription."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from auditdb.cli.common import connection, print_json, print_lines
from auditdb.cli.errors import Failure
from auditdb.export.sinks.frames import PRESETS
from auditdb.values.arguments import RESULTS
from auditdb.values.plain import counted, plain

FORMATS = ["jsonl", "ocsf", "cloudevents", "csv"]
SINK_HELP = ("Where: - (standard output), file:///directory, s3://bucket/prefix, gs://, az://, "
             f"https://host/path, {', '.join(f'{name}+https://' for name in PRESETS)}, "
             "syslog+tls://.")  # fmt: skip


@click.command()
@click.argument("name", required=False)
@click.option("--all", "all_", is_flag=True, help="Serve all subscriptions, in one process.")
@click.option("--to", "sink", metavar="SINK",
              help=f"Creates the subscription if it does not exist. {SINK_HELP}")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: jsonl.")
@click.option("--follow", is_flag=True, help="Keep running, and send new events.")
@click.option("--secrets", type=click.Path(path_type=Path), metavar="FILE",
              envvar="AUDITDB_SINK_SECRETS",
              help="TOML: stream_secret =, then [NAME], token = and secret =. Default: "
              "AUDITDB_SINK_SECRETS; AUDITDB_STREAM_SECRET; of one NAME also AUDITDB_SINK_TOKEN "
              "and AUDITDB_SINK_SECRET.")  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print what was delivered as JSON.")
@click.pass_context
def export(
    ctx: click.Context, name: str | None, all_: bool, sink: str | None, form: str | None,
    follow: bool, secrets: Path | None, json_: bool,
) -> None:  # fmt: skip
    """Send every committed event, once and in order, to a sink; continue after the last one sent.

    Run it as a member of audit_auditor: from cron, or as a service with --follow. If delivery
    fails, it retries for a while and then exits with 1. No event is lost: the next run continues.
    """
    if all_ == (name is not None):
        raise click.UsageError("give the NAME of one subscription, or --all")
    if name is None and (sink is not None or form is not None):
        raise click.UsageError("--to and --format need the NAME of one subscription")
    open_ = _opener(name, secrets)
    if name is not None:
        stored = _ensure(ctx, name, sink, form, open_)
        if json_ and stored == "-":
            raise click.UsageError("--json and a sink of - would both print")
    served = _serve(ctx.obj, None if name is None else [name], follow, open_)
    if json_:
        print_json([
            {"name": n, "delivered": served.delivered[n], "batches": served.batches[n],
             "problem": served.problems.get(n)} for n in sorted(served.delivered)
        ])  # fmt: skip
    else:
        for n in sorted(served.delivered):
            events, batches = served.delivered[n], served.batches[n]
            click.echo(
                plain(f"{n}: {counted(events, 'event')} in {counted(batches, 'batch', 'batches')}"),
                err=True,
            )
    if served.problems and not follow:
        raise click.exceptions.Exit(1)


def _ensure(
    ctx: click.Context, name: str, sink: str | None, form: str | None, open_: Callable[..., Any]
) -> str:
    """Return the sink of a subscription; create it if it does not exist; check its options."""
    from auditdb.export.subscription import create_subscription, list_subscriptions

    with connection(ctx) as conn:
        for known in list_subscriptions(conn):
            if known.name == name:
                for what, given, stored in (("--to", sink, known.sink),
                                            ("--format", form, known.format)):  # fmt: skip
                    if given is not None and given != stored:
                        raise Failure(plain(
                            f"{name} has {what} {stored}; make another, or drop this one: "
                            f"auditdb subscription drop {name}"), 1)  # fmt: skip
                return known.sink
        if sink is None:
            raise Failure(plain(f"there is no subscription {name}: give --to SINK to make it, or "
                                "see: auditdb subscription list"), 1)  # fmt: skip
        open_(name, sink, form or "jsonl", {})  # An invalid address is not stored.
        create_subscription(conn, name, sink=sink, format=form or "jsonl")
        return sink


def _opener(name: str | None, file: Path | None) -> Callable[..., Any]:
    """Return a function that opens the sink of a subscription with its secrets."""
    from auditdb.export.formats import FORMATS
    from auditdb.export.sinks.base import Sink
    from auditdb.export.sinks.open import open_sink, open_stream, options_of
    from auditdb.export.sinks.secrets import (
        Secrets,
        read_masters,
        read_secrets,
        secrets_of_variables,
    )

    known = read_secrets(file) if file is not None else {}
    # Variables hold secrets of one subscription: a token must not go to other sinks.
    alone = secrets_of_variables(os.environ) if name is not None else Secrets()
    masters = read_masters(file, os.environ)

    def open_(
        name: str, sink: str, form: str, options: dict[str, Any], is_stream: bool = False
    ) -> Sink:
        given: Any = {
            "options": options_of(options), "array_media_type": FORMATS[form].array_media_type,
        }  # fmt: skip
        if is_stream:
            return open_stream(name, sink, masters=masters, **given)
        return open_sink(sink, secrets=known.get(name, alone), **given)

    return open_


def _serve(dsn: str, names: list[str] | None, follow: bool, open_: Callable[..., Any]) -> Any:
    from auditdb.export.serve import Exporter, Served

    async def work() -> Served:
        exporter = Exporter(
            dsn, lambda s: open_(s.name, s.sink, s.format, s.options, s.is_stream), names=names,
            follow=follow, tell=lambda line: click.echo(plain(line), err=True))  # fmt: skip
        ending = iter([exporter.end])

        def end() -> None:
            # A second signal ends at once: the next run repeats the unfinished deliveries.
            next(ending, lambda: os._exit(130))()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end)
        return await exporter.run()

    return asyncio.run(work())


@click.group()
def subscription() -> None:
    """Create, list, pause, resume, reset and drop subscriptions of the export."""


@subscription.command()
@click.argument("name")
@click.option("--to", "sink", metavar="SINK", required=True, help=SINK_HELP)
@click.option("--format", "form", type=click.Choice(FORMATS), default="jsonl", show_default=True)
@click.option("--organization-id", help="Only events of this organisation.")
@click.option("--action", "actions", multiple=True, help="Only this action; may be repeated.")
@click.option("--category", "categories", multiple=True,
              help="Only events of this category; may be repeated.")  # fmt: skip
@click.option("--result", "results", multiple=True, type=click.Choice(RESULTS),
              help="Only events of this result; may be repeated.")  # fmt: skip
@click.option("--where", multiple=True, metavar="CONDITION",
              help="Events for which COLUMN=VALUE or COLUMN!=VALUE holds; all of several. Columns "
              "are those of the event, and new_values.NAME and the like.")  # fmt: skip
@click.option("--at-least", type=click.IntRange(2, 1000), metavar="NUMBER",
              help="Send only the event that reaches this count; needs --within.")  # fmt: skip
@click.option("--within", metavar="INTERVAL", help="The time window of --at-least.")
@click.option("--per", metavar="COLUMN", help="Count separately for each value of this column.")
@click.option("--from", "begin", type=click.Choice(["start", "now"]), default="start",
              show_default=True, help="Begin with the first event, or with new ones.")  # fmt: skip
@click.option("--lapses-after", metavar="INTERVAL", default="30 days", show_default=True,
              help="How long retention waits for a subscription that is not served.")  # fmt: skip
@click.option("--compression", type=click.Choice(["gzip", "zstd", "none"]),
              help="Compression of files, objects and requests. Default: gzip.")  # fmt: skip
@click.option("--every", type=click.FloatRange(0, 86_400), metavar="SECONDS",
              help="Between deliveries. Default: 60 for files and objects, else 0.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(1, 3600), metavar="SECONDS",
              help="Time limit of a request. Default: 30.")  # fmt: skip
@click.option("--array", is_flag=True, help="HTTPS: send a JSON array instead of lines.")
@click.pass_context
def create(
    ctx: click.Context, /, name: str, sink: str, form: str, begin: Any, compression: str | None,
    every: float | None, timeout: float | None, array: bool, **given: Any,
) -> None:  # fmt: skip
    """Create a subscription, as a member of audit_auditor; auditdb export serves it."""
    from auditdb.export.subscription import create_subscription

    options = {"compression": compression, "every": every, "timeout": timeout,
               "array": array or None}  # fmt: skip
    with connection(ctx) as conn:
        create_subscription(
            conn, name, sink=sink, format=form, begin=begin,
            options={n: value for n, value in options.items() if value is not None},
            **given)  # fmt: skip
    print_lines(f"{name} is created; to serve it, run: auditdb export {name}")


@subscription.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, json_: bool) -> None:
    """List the subscriptions with progress and problems."""
    from auditdb.export.subscription import list_subscriptions

    with connection(ctx) as conn:
        found = list_subscriptions(conn)
    if json_:
        print_json([asdict(one) for one in found])
        return
    from auditdb.cli.render import console, subscriptions_table

    if found:
        console().print(subscriptions_table(found))
    else:
        print_lines("no subscription")


def _change(ctx: click.Context, name: str, what: Any, done: str) -> None:
    from auditdb.export.subscription import change_subscription

    with connection(ctx) as conn:
        change_subscription(conn, name, what)
    print_lines(f"{name} {done}")


@subscription.command()
@click.argument("name")
@click.pass_context
def pause(ctx: click.Context, name: str) -> None:
    """Stop sending until it is resumed; retention waits for it until it lapses."""
    _change(ctx, name, "pause", "is paused")


@subscription.command()
@click.argument("name")
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Continue a subscription that is paused, failed (after you fixed the cause) or lapsed."""
    _change(ctx, name, "resume", "is resumed")


@subscription.command()
@click.argument("name")
@click.option("--to", "begin", type=click.Choice(["start", "now"]), required=True,
              help="The first event, which sends all again; or new events only.")  # fmt: skip
@click.pass_context
def reset(ctx: click.Context, name: str, begin: Any) -> None:
    """Set a subscription back to the first event, or forward to new ones."""
    from auditdb.export.subscription import reset_subscription

    with connection(ctx) as conn:
        reset_subscription(conn, name, begin)
    print_lines(f"{name} is reset")


@subscription.command()
@click.argument("name")
@click.pass_context
def drop(ctx: click.Context, name: str) -> None:
    """Drop a subscription; retention no longer waits for it."""
    _change(ctx, name, "drop", "is dropped")
