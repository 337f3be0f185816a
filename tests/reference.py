"""Writes docs/cli.md from the commands' own help: python -m tests.reference > docs/cli.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from auditdb.cli import main


def commands(group: click.Group, path: str = "auditdb") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, groups themselves left out."""
    for name in sorted(group.commands):
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def reference() -> str:
    """Return the reference of the command line, as Markdown."""
    parts = [
        "# Command line",
        "Made from `--help` by `make reference`. Exit 0, 1 for a finding or a refusal, 2 for wrong "
        "usage; errors are one line on\nstandard error.",
        f"```\n{_help('auditdb', main)}```",
    ]
    for path, command in commands(main):
        parts += [f"## {path}", f"```\n{_help(path, command)}```"]
    return "\n\n".join(parts) + "\n"


def _help(path: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=path, max_content_width=96, terminal_width=96, **main.context_settings
    )
    # A command keeps the names of its help option from the first context that it met.
    command._help_option = None
    with context:
        return command.get_help(context) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
