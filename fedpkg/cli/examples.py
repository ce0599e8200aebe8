"""Help texts end with their examples."""

from __future__ import annotations

import inspect
from types import MethodType

import click

_EXAMPLE = "\b\n  fedpkg "


def examples_last(command: click.Command) -> click.Command:
    """Have a command and its sub-commands show the examples of their docstrings behind the options."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    if examples := [text.removeprefix("\b\n") for text in paragraphs if text.startswith(_EXAMPLE)]:
        command.help = "\n\n".join(text for text in paragraphs if not text.startswith(_EXAMPLE))
        command.epilog = "\b\n" + inspect.cleandoc("\n".join(["", *examples]))
        command.format_epilog = MethodType(_show, command)  # type: ignore[method-assign]
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        examples_last(below)
    return command


def _show(command: click.Command, _context: click.Context, formatter: click.HelpFormatter) -> None:
    with formatter.section("Examples"):
        formatter.write_text(command.epilog or "")
