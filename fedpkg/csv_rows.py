"""Rows of small CSV files that people write: traces, lists of entities. Each comes with its place, for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedpkg.errors import DataError


def csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a small CSV file below its header, as values by column (None for an empty cell), and their places.

    Raises:
        DataError: it is not CSV, a row has too many or too few values, or a column appears twice; with the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if head is None:
                head = cells
                if len(set(head)) < len(head):
                    raise DataError(f"{place}: a column appears twice: {', '.join(head)}", path=str(path))
            elif len(cells) != len(head):
                raise DataError(
                    f"{place}: {len(cells)} values for {len(head)} columns ({', '.join(head)})", path=str(path)
                )
            else:
                yield place, {name: cell or None for name, cell in zip(head, cells, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}", path=str(path)) from error
