"""Files of the home for answers: nothing outside of it is read, and no link leads out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedpkg.errors import NotFound


def inside(root: Path, path: Path) -> Path:
    """The path of a regular file below ``root``.

    Raises:
        NotFound: it is missing, no regular file, or a link leads out of ``root``.
    """
    try:
        found = path.resolve(strict=True)
        if found.is_relative_to(root.resolve(strict=True)) and stat.S_ISREG(os.lstat(path).st_mode):
            return path
    except (OSError, RuntimeError, ValueError):
        pass
    raise NotFound(f"{path.name} is not a file of the home", hint="it was removed, or is a link")


def tail_of(root: Path, path: Path, size: int) -> tuple[str, bool]:
    """The last bytes of a text file, and whether they are all of it. Raises NotFound."""
    try:
        with inside(root, path).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size).decode(errors="replace"), end <= size
    except OSError as error:
        raise NotFound(f"{path.name} cannot be read: {error.strerror}") from error
