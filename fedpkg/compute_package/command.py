"""Parses an entry point's command line as ``bash -c`` would, where that is possible without bash.

A warm executor runs ``python script.py …`` and ``python -m module …`` itself, so it must know the words into which bash
would split the command. `expand` handles quotes, backslashes and ``$NAME``; it refuses anything else that is special to
bash.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpkg.interpreters import COMMANDS

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)")
_PATTERN = set("*?[\\")  # characters of file patterns
_BLANKS = " \t\n"  # characters at which bash splits unquoted values
# Variables that bash itself sets or changes, whatever their values in the environment.
_OF_BASH = re.compile(
    r"_|BASH.*|COMP_.*|DIRSTACK|EPOCH.*|EUID|FUNCNAME|GROUPS|HIST.*|HOST(NAME|TYPE)|IFS|LINENO|MACHTYPE|OLDPWD|OPT.*|OSTYPE"
    r"|PATH|PIPESTATUS|PPID|PS4|PWD|RANDOM|READLINE.*|SECONDS|SHELL|SHELLOPTS|SHLVL|SRANDOM|TERM|UID"
)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+,./:-]+")
_PYTHON = re.compile(r"python(\d+(\.\d+)*)?(\.exe)?")


class NotSimple(Exception):
    """The command needs bash; the message is the part that does."""


@dataclass(frozen=True)
class PythonCall:
    """``python [-u] script.py args`` or ``python -m module args``."""

    interpreter: str  # absolute path
    script: str | None
    module: str | None
    args: tuple[str, ...]


def expand(command: str, environ: Mapping[str, str]) -> list[str]:
    """Split a command into the words that bash would pass on.

    Raises:
        NotSimple: If it uses more of bash than words, quotes and ``$NAME``.
    """
    words: list[str] = []
    word: str | None = None  # None: between words
    at = 0
    while at < len(command):
        char = command[at]
        if char in " \t":
            if word is not None:
                words.append(word)
            word, at = None, at + 1
        elif char == "'":
            end = command.find("'", at + 1)
            if end < 0:
                raise NotSimple("an open quote")
            word, at = (word or "") + command[at + 1 : end], end + 1
        elif char == '"':
            text, at = _double_quoted(command, at + 1, environ)
            word = (word or "") + text
        elif char == "\\":
            if at + 1 >= len(command) or command[at + 1] == "\n":
                raise NotSimple("a line that is continued")
            word, at = (word or "") + command[at + 1], at + 2
        elif char == "$":
            value, at = _variable(command, at, environ)
            if any(c in _PATTERN for c in value):
                raise NotSimple("a variable with a file pattern in it")
            word = _split(value, word, words)
        elif _PLAIN.fullmatch(char) or (char == "=" and words) or (ord(char) > 127 and not char.isspace()):
            word, at = (word or "") + char, at + 1
        else:
            raise NotSimple(f"the character {char!r}")
    if word is not None:
        words.append(word)
    return words


def _split(value: str, word: str | None, words: list[str]) -> str | None:
    """Split an unquoted value at white space; its ends join the text directly before and after it.

    Completed words are added to ``words``; the incomplete last one is returned.
    """
    for number, piece in enumerate(re.split(f"[{_BLANKS}]+", value)):
        if number and word is not None:
            words.append(word)
            word = None
        if piece:
            word = (word or "") + piece
    return word


def _double_quoted(command: str, at: int, environ: Mapping[str, str]) -> tuple[str, int]:
    text = ""
    while at < len(command):
        char = command[at]
        if char == '"':
            return text, at + 1
        if char == "\\" and at + 1 < len(command) and command[at + 1] in '$`"\\\n':
            text += "" if command[at + 1] == "\n" else command[at + 1]
            at += 2
        elif char == "$":
            value, at = _variable(command, at, environ)
            text += value
        elif char in "`!":
            raise NotSimple(f"the character {char!r}")
        else:
            text, at = text + char, at + 1
    raise NotSimple("an open quote")


def _variable(command: str, at: int, environ: Mapping[str, str]) -> tuple[str, int]:
    match = _NAME.match(command, at + 1)
    if match is None:
        raise NotSimple("a '$' that is not a plain variable")
    name = match.group(1) or match.group(2)
    if _OF_BASH.fullmatch(name):
        raise NotSimple(f"bash's own variable ${name}")
    return environ.get(name, ""), match.end()


def python_call(words: Sequence[str], environ: Mapping[str, str]) -> PythonCall:
    """Parse expanded words as a call of Python.

    Raises:
        NotSimple: If they are something else, or use options of Python that a warm interpreter does not support.
    """
    if not words or not _PYTHON.fullmatch(Path(words[0]).name):
        raise NotSimple("a program other than Python")
    interpreter = shutil.which(words[0], path=environ.get("PATH", ""))
    if interpreter is not None and Path(interpreter).parent == COMMANDS:
        interpreter = environ.get("FEDPKG_PYTHON")
    if interpreter is None or not Path(interpreter).is_absolute():
        raise NotSimple(f"an interpreter {words[0]!r} that is not on PATH")
    rest = list(words[1:])
    while rest and rest[0] == "-u":
        rest.pop(0)
    if len(rest) >= 2 and rest[0] == "-m":
        return PythonCall(interpreter, script=None, module=rest[1], args=tuple(rest[2:]))
    if not rest or rest[0].startswith("-"):
        raise NotSimple(f"the Python option {rest[0]!r}" if rest else "Python without a script")
    return PythonCall(interpreter, script=rest[0], module=None, args=tuple(rest[1:]))


def is_python(command: str) -> bool:
    """Whether a command looks like Python, so that users would expect it to run warm."""
    first = command.split(maxsplit=1)[:1]
    return bool(first) and bool(_PYTHON.fullmatch(Path(first[0].strip("\"'")).name))


def shell_line(command: str, appended: Sequence[str]) -> str:
    """The command with further words appended, as one line for bash."""
    return " ".join([command, *(shlex.quote(word) for word in appended)])
