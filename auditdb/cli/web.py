"""The command that shows the page: serve."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from auditdb.cli.common import connection
from auditdb.cli.errors import Failure
from auditdb.cli.read import KEY_HELP, read_key
from auditdb.values.plain import plain


@click.command()
@click.option(
    "--viewer-id", required=True, help="The user who reads, an admin of the organisation."
)
@click.option("--organization-id", required=True, help="The organisation whose log is read.")
@click.option("--key-file", metavar="FILE", help=KEY_HELP)
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True,
              help="Port on 127.0.0.1; 0 for any free port.")  # fmt: skip
@click.pass_context
def serve(
    ctx: click.Context, viewer_id: str, organization_id: str, key_file: str | None, port: int
) -> None:
    """Show an organisation's log in a browser on this machine, as one of its admins or owners.

    Use it to try the page before you mount it in an application. Needs a login that is a member of
    audit_reader, as the command log does. Ctrl+C ends it.
    """
    web = needs_web()
    key = read_key(key_file)
    with connection(ctx):
        pass  # Report an invalid database address now, and not on a page.
    access = web.Access(viewer_id=viewer_id, organizations=[organization_id])
    page = web.app(connect=ctx.obj, key=key, viewer=lambda request: access)
    with web.listen(port) as listening:
        show(web, page, listening, f"the log of {plain(organization_id)}")


def show(web: Any, page: Any, listening: Any, what: str) -> None:
    """Serve the page on an open port until Ctrl+C."""
    with suppress(KeyboardInterrupt):
        web.serve(page, listening, lambda at: click.echo(f"{what}: {at} (Ctrl+C ends it)"))


def needs_web() -> Any:
    """Import auditdb.web, or say which extra to install."""
    try:
        from auditdb import web
    except ImportError as error:
        raise Failure(
            f"the page needs {error.name}, of the extra web: install 'auditdb[binary,web]' again, "
            "by pip, pipx install --force or uv tool install",
            1,
        ) from error
    return web
