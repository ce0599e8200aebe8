"""What people are told of a tree: its combiners in order, each with what it does and what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.pictures.chart import Node, TreeChart
from fedpkg.strategies.base import ROOT

if TYPE_CHECKING:
    from fedpkg.strategies.tree import Combiner

MOST_CLIENTS = 12  # of one combiner, that are drawn one by one


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


def depth_of(path: str) -> int:
    """How many combiners are above this one; of the root, 0."""
    return path.count("/") + 1 if path else 0


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


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


def chart_of(
    tree: Sequence[Told], *, title: str = "Tree of combiners", notes: Mapping[str, str] | None = None
) -> TreeChart:
    """The combiners with the clients below them; of many clients, the number. ``notes``: by path, a second line."""
    nodes = []
    for one in tree:
        parent = None if not one.path else f"combiner {one.path.rpartition('/')[0]}"
        label = ": ".join(filter(None, [name_of(one.path) or ROOT, one.strategy]))
        nodes.append(Node(f"combiner {one.path}", parent, label, (notes or {}).get(one.path, "")))
        some = one.clients if len(one.clients) <= MOST_CLIENTS else ()
        nodes += [Node(f"client {one.path}/{client}", f"combiner {one.path}", client) for client in some]
        if len(one.clients) > len(some):
            nodes.append(Node(f"clients of {one.path}", f"combiner {one.path}", f"{len(one.clients)} clients"))
    return TreeChart(title=title, nodes=nodes)


def indented(path: str) -> str:
    """The name of a combiner, moved in by its depth."""
    return "  " * depth_of(path) + (name_of(path) or ROOT)


def some_of(names: Sequence[str]) -> str:
    """All names, or the first of many; they need not follow one another, so that no range would tell them."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
