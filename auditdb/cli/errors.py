"""Errors of the command line: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import psycopg

from auditdb.connection.address import without_password, without_uri
from auditdb.errors import AuditError, InvalidInput, from_psycopg
from auditdb.values.plain import plain


class Failure(click.ClickException):
    """One line on standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn every error into a Failure: exit 1 for a refusal, 2 for invalid usage."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (Failure, click.exceptions.NoArgsIsHelpError):
        raise
    except click.ClickException as error:
        raise Failure(_about_usage(error), error.exit_code) from None
    except InvalidInput as error:
        raise _failure(error, 2) from None
    except AuditError as error:
        raise _failure(error, 1) from None
    except psycopg.Error as error:
        raise _failure(from_psycopg(error), 1) from None
    except KeyboardInterrupt as error:
        if str(error):  # Says how far the work came.
            click.echo(plain(str(error)), err=True)
        raise click.exceptions.Exit(130) from None
    except OSError as error:
        # Otherwise Python flushes the buffer once more at exit, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader of the pipe ended first, as head does. That is not an error.
            raise click.exceptions.Exit(0) from None
        raise Failure(f"cannot write the output: {error.strerror or error}", 1) from None


def _failure(error: AuditError, code: int) -> Failure:
    return Failure(plain(without_uri(" ".join(str(error).split()))), code)


def _about_usage(error: click.ClickException) -> str:
    """Return the message of a usage error, safe on a terminal and without a password."""
    message = plain(without_password(" ".join(error.format_message().split())))
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None or "auditdb " in message or "Did you mean" in message:
        return message
    return f"{message.rstrip('.')}; see {context.command_path} --help"


class Cli(click.Group):
    """Turns every error into one line, and suggests a command for a misspelt one."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line; its errors may quote an address with a password."""
        with errors_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with errors_in_one_line():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest the nearest one."""
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if args[0] not in self.commands and near:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)
