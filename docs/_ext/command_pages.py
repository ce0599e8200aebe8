"""A page for each command of `fedpkg`, from what click knows of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from markdown import block, code, contents, inline, page, table

from fedpkg.cli.main import NOUNS, fedpkg

_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]+")
_EVERYWHERE = {"--home", "--verbose", "--json", "--help"}  # options of every command


def pages() -> Iterator[tuple[str, str]]:
    rows = [[f"[`fedpkg {noun}`]({noun}.md)", inline(command_of(noun).get_short_help_str(200))] for noun in NOUNS]
    about = (
        "`fedpkg COMMAND --help` prints what these pages say. Results go to standard output, everything else to standard "
        "error."
    )
    listed = table(["command", ""], rows)
    options = "## Options of every command\n\n" + _options(command_of("doctor"), of_every=True)
    yield "cli/index.md", page("Command line", about, listed, options, contents(list(NOUNS), hidden=True))
    for noun in NOUNS:
        yield f"cli/{noun}.md", page(f"fedpkg {noun}", *_told(command_of(noun), f"fedpkg {noun}", depth=2))


def command_of(noun: str) -> click.Command:
    command = fedpkg.get_command(click.Context(fedpkg), noun)
    assert command is not None
    return command


def _told(command: click.Command, path: str, *, depth: int) -> Iterator[str]:
    with click.Context(command, info_name=path) as context:
        if not isinstance(command, click.Group):
            yield block("text", context.get_usage().removeprefix("Usage: "))
        yield _help(command.help or "")
        if command.epilog:  # its examples
            yield _help(command.epilog)
        if options := _options(command):
            yield options
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                if below is not None and not below.hidden:
                    yield f"{'#' * depth} {path} {name}"
                    yield from _told(below, f"{path} {name}", depth=depth + 1)


def _help(text: str) -> str:
    """Help as Markdown: a paragraph that keeps its lines (click's \\b) is code."""
    told = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b"):
            lines = paragraph.split("\n", 1)[1]
            told.append(block("text", inspect.cleandoc("\n" + lines)))
        else:
            told.append(inline(_with_options(paragraph)))
    return "\n\n".join(told)


def _with_options(text: str) -> str:
    """Names of options as code, where they are not in code already."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _OPTION.sub(r"`\g<0>`", part) for part in parts)


def _options(command: click.Command, *, of_every: bool = False) -> str:
    rows = []
    for one in command.params:
        if not isinstance(one, click.Option) or one.hidden or bool(_EVERYWHERE.intersection(one.opts)) is not of_every:
            continue
        names = ", ".join([*one.opts, *one.secondary_opts])
        value = "" if one.is_flag or one.count else f" {one.make_metavar(click.Context(command))}"
        rows.append([code(names + value), inline(re.sub(r"\s{2,}", " ", one.help or ""))])
    return table(["option", ""], rows) if rows else ""
