"""What people are told of a tree: its combiners in order, each with what it does and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.topology.building import depth_of, name_of

if TYPE_CHECKING:
    from fedpkg.strategies.tree import Combiner

ROOT = "(root)"


@dataclass(frozen=True)
class Told:
    """A combiner. ``num_clients``: those below it at any depth; ``clients``: those directly below it."""

    path: str
    depth: int
    strategy: str
    rounds: int
    required: int
    num_clients: int
    clients: tuple[str, ...]

    @property
    def indented(self) -> str:
        return indented(self.path)


def told(root: Combiner) -> list[Told]:
    """The combiners of a tree, each before those below it."""
    everyone = list(root.everyone())
    numbers = {one.path: len(one.clients) for one in everyone}
    for one in reversed(everyone):
        numbers[one.path] += sum(numbers[child.path] for child in one.children)
    return [
        Told(one.path, depth_of(one.path), one.said, one.rounds, one.required, numbers[one.path], one.clients)
        for one in everyone
    ]


def indented(path: str) -> str:
    """The name of a combiner, moved in by its depth."""
    return "  " * depth_of(path) + (name_of(path) or ROOT)


def some_of(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}"
