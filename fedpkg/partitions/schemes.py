"""The schemes by their names, with what is known of each; `fedpkg.data.partitioners` registers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound="type[Any]")


@dataclass(frozen=True)
class Scheme:
    """A class that divides examples or columns; its equation, and authors, year, title and arXiv of its paper."""

    make: type[Any]
    aliases: tuple[str, ...]
    equation: str
    paper: str


SCHEMES: dict[str, Scheme] = {}


def scheme(
    name: str, *, aliases: tuple[str, ...] = (), equation: str = "", paper: str = ""
) -> Callable[[_Class], _Class]:
    """Decorate a class to make it the scheme ``name``."""

    def decorate(make: _Class) -> _Class:
        SCHEMES[name] = Scheme(make, aliases, equation, paper)
        return make

    return decorate
