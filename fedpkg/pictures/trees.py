"""The places of a tree's nodes."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.pictures.chart import Node


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
