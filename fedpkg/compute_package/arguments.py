"""How the arguments and the files of a call become words of its command."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable, Mapping

from fedpkg.errors import nearest
from fedpkg.types import Json, leaves

FLAGS, ASSIGNMENTS, WORDS = STYLES = ("flags", "assignments", "words")
IN_MODEL, OUT_MODEL, CONFIG = OF_FILES = ("in_model", "out_model", "config")
OF_A_CLIENT = ("data_path", "client_number")
OF_THE_ORDER = ("client_id", "partition_id", "num_partitions", "round_number", "session_id")
OF_A_CALL = (*OF_THE_ORDER, *OF_A_CLIENT)

_PLACEHOLDER = re.compile("{(" + "|".join(OF_A_CALL) + ")}")
_IN_COMMAND = re.compile("{(" + "|".join((*OF_A_CALL, *OF_FILES)) + ")}")
_BRACES = re.compile(r"(?<!\$){([A-Za-z_]+)}")
# Words that hydra reads as this text, and not as a number, a boolean, a list or an interpolation.
_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_/][A-Za-z0-9_/.:@%?*+-]*", re.ASCII | re.IGNORECASE)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace ``{client_id}``, ``{data_path}`` … in an argument or variable; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)], text)


def fill_arguments(arguments: Mapping[str, Json], values: Mapping[str, str]) -> dict[str, Json]:
    """Arguments with the placeholders in all their texts filled in."""
    return {name: _filled(value, values) for name, value in arguments.items()}


def _filled(value: Json, values: Mapping[str, str]) -> Json:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, dict):
        return fill_arguments(value, values)
    return [_filled(one, values) for one in value] if isinstance(value, list) else value


def has_placeholder(text: str) -> bool:
    """Whether `fill` would change this text."""
    return _PLACEHOLDER.search(text) is not None


def placeholders_in(command: str) -> frozenset[str]:
    """The names of the placeholders in a command: those of arguments, and ``OF_FILES``."""
    return frozenset(match[1] for match in _IN_COMMAND.finditer(command) if not _is_of_bash(command, match.start()))


def takes_paths(command: str) -> bool:
    """Whether the paths of the models are appended to a command: not if it has placeholders for them."""
    return not placeholders_in(command) & {IN_MODEL, OUT_MODEL}


def fill_command(command: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders in a command by their values, quoted so that bash passes each value on unchanged."""
    filled, quote, at = "", "", 0
    while at < len(command):
        match = _IN_COMMAND.match(command, at)
        if match is not None and not _is_of_bash(command, at):
            filled, at = filled + _QUOTED[quote](values[match[1]]), match.end()
            continue
        char = command[at]
        if char == "\\" and quote != "'":
            filled, at = filled + command[at : at + 2], at + 2
            continue
        if char in "'\"":
            quote = "" if quote == char else quote or char
        filled, at = filled + char, at + 1
    return filled


def without_braces(command: str) -> str:
    """The command with the names of its placeholders in their places, to find the program that it runs."""
    return fill_command(command, {name: name for name in (*OF_A_CALL, *OF_FILES)})


def _is_of_bash(command: str, at: int) -> bool:
    return command[at - 1 : at] == "$"


_QUOTED: dict[str, Callable[[str], str]] = {
    "": shlex.quote,
    '"': lambda value: re.sub(r'([\\$"`])', r"\\\1", value),
    "'": lambda value: value.replace("'", "'\"'\"'"),
}


def problem_of_placeholders(entry_point: str, command: str) -> str | None:
    """What is wrong with the placeholders in the command of an entry point."""
    for name in _BRACES.findall(command):
        if name not in (*OF_A_CALL, *OF_FILES) and (near := nearest(name, (*OF_A_CALL, *OF_FILES))):
            return f"there is no placeholder {{{name}}}{near}"
    found = placeholders_in(command)
    if entry_point in ("build", "startup") and IN_MODEL in found:
        return f"'{entry_point}' gets no input model, so {{in_model}} has no value"
    if entry_point == "startup" and OUT_MODEL in found:
        return "'startup' writes no model, so {out_model} has no value"
    if entry_point not in ("build", "startup") and len(found & {IN_MODEL, OUT_MODEL}) == 1:
        (one,) = found & {IN_MODEL, OUT_MODEL}
        other = OUT_MODEL if one == IN_MODEL else IN_MODEL
        return f"the command has {{{one}}} but not {{{other}}}; with one of them, no path is appended"
    return None


# ---- styles


def problem_of_style(style: str) -> str | None:
    """What is wrong with an argument style."""
    if style in STYLES:
        return None
    if "{value}" not in style:
        near = nearest(style, STYLES)
        return (
            f"{style!r} is not an argument style{near}; use {', '.join(STYLES)}, or a template with {{value}}, "
            'such as "--set {name}={value}"'
        )
    try:
        shlex.split(style)
    except ValueError:
        return f"the template {style!r} has an open quote"
    return None


def format_arguments(arguments: Mapping[str, Json], style: str = FLAGS) -> list[str]:
    """The words for arguments; a null has none.

    ``{"lr": 0.01, "layers": [1, 2]}`` becomes ``--lr=0.01 --layers=[1, 2]`` (flags), ``lr=0.01 layers=[1,2]``
    (assignments, as hydra reads them), ``0.01 [1, 2]`` (words); or the words of a template for each argument.
    Arguments in a section are called ``section.name``; as flags, a section is one JSON object.
    """
    words: list[str] = []
    given = {".".join(path): value for path, value in leaves(arguments)} if style != FLAGS else arguments
    for name, value in given.items():
        if value is None or (value == {} and style != FLAGS):
            continue
        if style == FLAGS:
            words.append(f"--{name}={_text(value)}")
        elif style == ASSIGNMENTS:
            words.append(f"{name}={in_hydra(value)}")
        elif style == WORDS:
            words.append(_text(value))
        else:
            parts = {"{name}": name, "{value}": _text(value)}
            for word in shlex.split(style):
                words.append("".join(parts.get(part, part) for part in re.split(r"({name}|{value})", word)))
    return words


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"  # as users of fire and argparse write them
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def in_hydra(value: Json, *, interpolates: bool = False) -> str:
    """A value in the grammar of hydra's overrides.

    Args:
        interpolates: ``${key}`` in a text stays an interpolation; else the text is read as it is.
    """
    inner = functools.partial(in_hydra, interpolates=interpolates)
    if isinstance(value, dict):  # the grammar has no quotes around keys
        keys = [re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", str(key)) for key in value]
        return "{" + ",".join(f"{key}:{inner(one)}" for key, one in zip(keys, value.values(), strict=True)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(inner, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value):
        return value
    # A backslash is special only before a quote, or before ${.
    text = re.sub(r"(\\*)'", lambda match: 2 * match[1] + r"\'", value)
    text = re.sub(r"(\\+)$", lambda match: 2 * match[1], text)
    if not interpolates:
        text = text.replace("${", r"\${")
    return f"'{text}'"
