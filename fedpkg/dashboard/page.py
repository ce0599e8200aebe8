"""What a page is: the values, tables and charts that answer what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fedpkg.dashboard.tables import Table
from fedpkg.pictures.chart import Chart

Part: TypeAlias = "Table | Chart"


@dataclass(frozen=True)
class Page:
    """A page's answer. ``parts`` can be downloaded one by one, by their names; a part may be a function that makes it.

    Args:
        title: the question that the page answers, or a statement.
        values: what the page's template uses.
        notes: what could not be read, such as a damaged row or a missing file.
    """

    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Part | Callable[[], Part]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trail: Sequence[tuple[str, str]] = ()  # (name, address) of the pages above

    def part(self, name: str) -> Part | None:
        """A part; None: the page has none of this name."""
        found = self.parts.get(name)
        return found() if callable(found) else found
