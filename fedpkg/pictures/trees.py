"""The places of a tree's nodes, and of a dendrogram's merges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedpkg.pictures.chart import Dendrogram, Node


def places(nodes: Sequence[Node]) -> dict[str, tuple[int, float]]:
    """Name → (depth, row). Leaves have the rows 0, 1, 2 … in depth-first order; a parent lies amid its children."""
    children: dict[str | None, list[str]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node.name)
    found: dict[str, tuple[int, float]] = {}
    rows = 0
    left = [(name, 0, False) for name in reversed(children.get(None, []))]
    while left:  # no recursion: a trail of models may have thousands of nodes
        name, depth, is_done = left.pop()
        below = children.get(name, [])
        if below and not is_done:
            left += [(name, depth, True), *((child, depth + 1, False) for child in reversed(below))]
        elif below:
            found[name] = (depth, (found[below[0]][1] + found[below[-1]][1]) / 2)
        else:
            found[name] = (depth, float(rows))
            rows += 1
    return found


@dataclass(frozen=True)
class Bracket:
    """A merge: from two rows at their heights to the height at which they are joined. ``group``: None: of several."""

    rows: tuple[float, float]
    heights: tuple[float, float]
    height: float
    group: int | None


def brackets(chart: Dendrogram) -> tuple[list[int], list[Bracket]]:
    """The leaves from top to bottom so that no lines cross, and the merges. Groups have numbers in their order.

    A leaf that is a group of its own has a line in its colour, from itself to the merge.
    """
    count = len(chart.labels)
    order: list[int] = []
    left = [count + len(chart.merges) - 1] if count else []
    while left:  # no recursion: a dendrogram may be as deep as it has leaves
        if (number := left.pop()) < count:
            order.append(number)
        else:
            left += [chart.merges[number - count][1], chart.merges[number - count][0]]
    groups = {name: number for number, name in enumerate(dict.fromkeys(chart.groups))}
    found_at: dict[int, tuple[float, float, int | None]] = {
        leaf: (float(row), 0.0, groups[chart.groups[leaf]]) for row, leaf in enumerate(order)
    }
    found = []
    for number, (one, other, height) in enumerate(chart.merges):
        (row, low, group), (other_row, other_low, other_group) = found_at[one], found_at[other]
        group = group if group == other_group else None
        found.append(Bracket((row, other_row), (low, other_low), height, group))
        if group is None:
            alone = [found_at[number] for number in (one, other) if number < count]
            found += [Bracket((at, at), (0.0, height), height, own) for at, _, own in alone]
        found_at[count + number] = ((row + other_row) / 2, height, group)
    return order, found
