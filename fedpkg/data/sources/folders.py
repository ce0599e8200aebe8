"""The files of a dataset that is a folder, and their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedpkg.errors import DataError
from fedpkg.files import sha256_file, walk


def files_below(folder: Path) -> list[Path]:
    """All files in a folder, at any depth, in the order of their paths."""
    return sorted(Path(entry.path) for _, entries in walk(folder) for entry in entries if not entry.is_dir())


def digest_of_folder(folder: Path) -> str:
    """``sha256:`` and the digest of the names and contents of all files below. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"dataset {folder}: no such folder", path=str(folder))
    found = hashlib.sha256()
    for path in files_below(folder):
        found.update(f"{path.relative_to(folder)}\0{sha256_file(path)}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{found.hexdigest()}/"
