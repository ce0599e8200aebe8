"""Reads TOML, and finds the line of a key for messages."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\s*({_KEYS})\s*\]")
_ENTRY = re.compile(rf"\s*({_KEYS})\s*=")


class NotToml(ValueError):
    """A text is not valid TOML; ``line`` is None if it is unknown."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem, line)
        self.problem = problem
        self.line = line


def read_toml(text: str) -> dict[str, Any]:
    """The table in a text. Raises NotToml."""
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = tomllib.loads(text)
        return table
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = text.rstrip("\n").count("\n") + 1 if place is None else int(place[1])  # else: at end of document
        raise NotToml(f"not valid TOML: {re.sub(r' *[(]at .*', '', str(error))}", line) from None
    except RecursionError:
        raise NotToml("nested too deeply") from None


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """The number of the line that sets a key, or begins the table of that name; None if it is not found.

    A key that is not found itself, such as one in an inline table, has the line of what is around it.
    """
    wanted = tuple(keys)
    table: tuple[str, ...] = ()
    around = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            if table == wanted:
                return number
            if table == wanted[: len(table)]:
                around = number
        elif entry := _ENTRY.match(line):
            found = (*table, *_parts(entry[1]))
            if found == wanted:
                return number
            if found == wanted[: len(found)]:
                around = number
    return around


def _parts(keys: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, keys))
