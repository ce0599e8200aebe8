"""What a page is: the values, tables and charts that answer what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpkg.dashboard.tables import Table
from fedpkg.pictures.chart import Chart


@dataclass(frozen=True)
class Page:
    """A page's answer. ``parts`` can be downloaded one by one, by their names.

    Args:
        title: the question that the page answers, or a statement.
        values: what the page's template uses.
        notes: what could not be read, such as a damaged row or a missing file.
    """

    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Table | Chart] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trail: Sequence[tuple[str, str]] = ()  # (name, address) of the pages above
