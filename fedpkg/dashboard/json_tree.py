"""JSON of clients as a tree that people read: short lists in a line, tables of numbers as heat maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fedpkg.dashboard.curves import matrix_of
from fedpkg.pictures.axes import number_text
from fedpkg.pictures.chart import HeatMap
from fedpkg.types import Json

MOST_NODES = 1500  # of one tree
MOST_MATRICES = 8
MOST_TEXT = 2000  # characters of one text
MOST_ITEMS = 40  # of a list that is written in a line


@dataclass
class Twig:
    """A node of the tree: its name, and a text, inner nodes or the name of a plot. ``more``: inner nodes left out."""

    name: str
    text: str = ""
    is_long: bool = False  # a text of several lines
    inner: list[Twig] = field(default_factory=list)
    plot: str = ""
    more: int = 0


@dataclass
class JsonTree:
    """``root`` and the heat maps in it, by the names of their plots."""

    root: Twig
    plots: dict[str, HeatMap]


def tree_of(name: str, value: Json) -> JsonTree:
    """The tree; large values are cut off, and say how much is left out."""
    plots: dict[str, HeatMap] = {}
    left = [MOST_NODES]
    return JsonTree(_twig(name, name, value, plots, left, 0), plots)


def _twig(name: str, path: str, value: Json, plots: dict[str, HeatMap], left: list[int], depth: int) -> Twig:
    left[0] -= 1
    if isinstance(value, str):
        cut = value[:MOST_TEXT] + (f"… ({len(value)} characters)" if len(value) > MOST_TEXT else "")
        return Twig(name, cut, is_long="\n" in value or len(value) > 120)
    if not isinstance(value, (Mapping, list)):
        return Twig(name, _scalar(value))
    if not value:
        return Twig(name, "empty")
    chart = matrix_of(path, value) if len(plots) < MOST_MATRICES else None
    if chart is not None:
        plot = f"matrix-{len(plots)}"
        plots[plot] = chart
        return Twig(name, plot=plot)
    if isinstance(value, list) and not any(isinstance(one, (Mapping, list)) for one in value):
        return Twig(name, _line(value))
    found = Twig(name)
    for key, inner in _items(value):
        if left[0] <= 0 or depth >= 20:
            break
        found.inner.append(_twig(key, f"{path}.{key}" if path else key, inner, plots, left, depth + 1))
    found.more = len(value) - len(found.inner)
    return found


def _items(value: Mapping[str, Json] | list[Json]) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        yield from value.items()
    else:
        yield from ((str(number), one) for number, one in enumerate(value))


def _line(values: list[Json]) -> str:
    told = ", ".join(_scalar(one)[:200] for one in values[:MOST_ITEMS])
    return told + (f" … and {len(values) - MOST_ITEMS} more" if len(values) > MOST_ITEMS else "")


def _scalar(value: Json) -> str:
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**6):
        return number_text(value) if abs(value) < 1e300 else str(value)[:40]
    return value if isinstance(value, str) else json.dumps(value)
