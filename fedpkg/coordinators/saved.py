"""Files that a program writes into its working folder. They are kept when the program ends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fedpkg.files import remove_tree, walk

FOLDER = "coordinator"  # of a session's folder: what belongs to its coordinator
SAVED = "saved"  # … and in that, the files that its programs have written
_CACHES = ("__pycache__", ".pytest_cache")


def facts_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file in a folder, by its relative path."""
    return {name: (facts.st_size, facts.st_mtime_ns) for name, facts in _files(folder)}


def saved_files(session_folder: Path) -> tuple[Path, list[str]]:
    """The folder of the files that a session's programs have written, and their relative paths, sorted."""
    folder = session_folder / FOLDER / SAVED
    return folder, sorted(name for name, _facts in _files(folder))


def keep_written(folder: Path, before: Mapping[str, tuple[int, int]], target: Path) -> list[str]:
    """Move files that are new or changed since ``before`` to the folder ``target``; return their relative paths.

    Links, special files, files with several links, and caches of Python are not kept.
    """
    kept = []
    for name, facts in _files(folder):
        if before.get(name) == (facts.st_size, facts.st_mtime_ns) or facts.st_nlink != 1:
            continue
        place = target / name
        for outer in Path(name).parents:
            if (target / outer).is_file():  # an earlier start wrote a file where this one has a folder
                (target / outer).unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            remove_tree(place)
        os.replace(folder / name, place)
        kept.append(name)
    return sorted(kept)


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path, entries in walk(folder):
        inner = Path(path).relative_to(folder)
        if set(inner.parts) & set(_CACHES):
            continue
        for entry in entries:
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode):
                    yield str(inner / entry.name), facts
