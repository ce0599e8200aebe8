"""Small files that people write: traces, lists of entities. Rows of CSV come with their places, for messages."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpkg.errors import DataError
from fedpkg.files import read_bounded

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class SmallFile:
    """The bytes of a file."""

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: Path, what: str, hint: str) -> SmallFile:
        """Raises DataError: the file cannot be read or has more than 64 MiB; ``what`` it is, and the hint."""
        try:
            return cls(path, read_bounded(path, MAX_BYTES))
        except OSError as error:
            raise DataError(f"{path}: {what} cannot be read: {error.strerror}", hint=hint, path=str(path)) from error

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def text(self) -> str:
        """Raises DataError: it is not UTF-8."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: it is not UTF-8 text", path=str(self.path)) from error


def csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a small CSV file below its header, as values by column (None for an empty cell), and their places.

    Raises:
        DataError: it is not CSV, a row has too many or too few values, or a column appears twice; with the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head, name_of_file = None, str(path)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            place = f"{name_of_file}, line {reader.line_num}"
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
