"""The clients of a run and the data of each, from the section ``clients`` of its configuration."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from fedpkg.config import ClientsConfig
from fedpkg.data.base import ClientData
from fedpkg.data.partition_files import partition_files
from fedpkg.errors import DataError, nearest

_OF_A_CLIENT = re.compile(r"(client|site|node)[-_ ]?[0-9]+", re.IGNORECASE)
_LONGEST_ID_BYTES = 200  # ids become parts of file names


def prepare_clients(
    clients: ClientsConfig, *, cache: Path, seed: int, check: Callable[[], None] = lambda: None
) -> list[ClientData]:
    """All clients, in the order of their partition ids; data that fedpkg splits is on disk afterwards.

    - ``folders``: every match of the pattern (for a plain folder: each folder in it) is a client, in natural order
      (client2 before client10), named after the match; with ``count``, only the first ``count`` matches.
    - ``count``: client-0 … client-9, numbers padded to equal width; with ``data``, each has a file with its part.

    Args:
        check: Called before each file that is written. If it raises, the split is undone.

    Raises:
        DataError: If nothing matches, a name cannot be an id, or the dataset cannot be read or split.
    """
    if clients.folders is not None:
        found = _find(clients.folders)
        if len(found) < (clients.count or 0):
            raise DataError(
                f"clients.folders: {clients.folders} matches {len(found)}, but clients.count is {clients.count}",
                hint="lower clients.count, or use a pattern that matches more",
                pattern=clients.folders,
            )
        found = found[: clients.count]
        return [ClientData(name, k, len(found), path, None) for k, (name, path) in enumerate(found)]
    if clients.data is None:
        count = clients.count or 0
        return [ClientData(name, k, count, None, None) for k, name in enumerate(_numbered(count))]
    files = partition_files(clients.data, clients.count, cache=cache, seed=seed, check=check)
    return [
        ClientData(name, k, len(files), file.path, file.num_examples)
        for k, (name, file) in enumerate(zip(_numbered(len(files)), files, strict=True))
    ]


def _numbered(count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"client-{k:0{width}d}" for k in range(count)]


def client_groups(clients: ClientsConfig, client_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The clients of each group in ``clients.groups``, in the order of all clients.

    Raises:
        DataError: If a pattern matches no client.
    """
    groups = {}
    for group, patterns in clients.groups.items():
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in client_ids):
                raise DataError(
                    f"clients.groups.{group}: no client id matches {pattern!r}{nearest(pattern, client_ids)}",
                    hint=f"the {len(client_ids)} ids: {', '.join(client_ids[:5])}{' …' * (len(client_ids) > 5)}",
                    pattern=pattern,
                )
        members = (name for name in client_ids if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        groups[group] = tuple(members)
    return groups


def folder_of_clients(paths: Sequence[Path]) -> Path | None:
    """The one of the matches that seems to hold the folders of all clients: the pattern is one level too high.

    That is a folder `clients` with nothing but folders, or one match with folders called client1, site-2 or so.
    """
    for path in paths:
        if not path.is_dir():
            continue
        inner = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        are_named = len(paths) == 1 and all(_OF_A_CLIENT.fullmatch(entry.name) for entry in inner)
        if len(inner) > 1 and (path.name.lower() == "clients" or are_named) and all(map(Path.is_dir, inner)):
            return path
    return None


def _find(pattern: str) -> list[tuple[str, Path]]:
    """Client ids and paths of a pattern's matches."""
    folder = Path(pattern)
    if folder.is_dir():
        paths = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        nothing = f"clients.folders: there are no folders in {pattern}"
    elif folder.is_file():  # also if its name looks like a pattern
        paths, nothing = [folder], ""
    else:
        paths = [Path(match) for match in glob.glob(pattern, recursive=True)]
        nothing = f"clients.folders (--data): nothing matches {pattern}"
    if not paths:
        hint = "use a pattern that matches one folder (or file) per client, for example data/clients/*"
        raise DataError(nothing, hint=hint, pattern=pattern)
    paths = sorted((Path(os.path.abspath(path)) for path in paths), key=_natural)
    if broken := [path for path in paths if not path.exists()]:
        raise DataError(f"clients.folders: {broken[0]} is a broken link", hint="repair or remove it", pattern=pattern)
    kinds = {path.is_dir() for path in paths}
    if len(kinds) > 1:
        stray = next(path for path in paths if not path.is_dir())
        raise DataError(
            f"clients.folders: {pattern} matches folders and files, among them {stray}",
            hint=f"use a pattern that matches only one of the two{_deeper(paths)}",
            pattern=pattern,
        )
    names = _names(paths, pattern, folders=kinds == {True})
    for name, path in zip(names, paths, strict=True):
        _check_id(name, path)
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        same = [str(path) for name, path in zip(names, paths, strict=True) if name == twice[0]]
        raise DataError(
            f"clients.folders: {len(same)} clients would be called '{twice[0]}': {', '.join(same[:3])}",
            hint="use a pattern that matches one folder or file per client",
            pattern=pattern,
        )
    return list(zip(names, paths, strict=True))


def _deeper(paths: Sequence[Path]) -> str:
    folder = folder_of_clients(paths)
    return "" if folder is None else f": {folder}/* matches one folder for each client"


def _names(paths: list[Path], pattern: str, *, folders: bool) -> list[str]:
    """The names of folders; for files, and for folders with equal names, the first part of the paths that differs."""
    names = [path.name for path in paths]
    if folders and len(set(names)) == len(names):
        return names
    if len(paths) == 1:  # nothing to compare: the first part with a wildcard
        rows = [paths[0].parts, tuple(map(glob.escape, paths[0].parts)), Path(os.path.abspath(pattern)).parts]
        level = next(
            (i for i, (part, same, sign) in enumerate(zip(*rows, strict=False)) if sign not in (part, same)), -1
        )
    else:
        rows = [path.parts for path in paths]
        level = next(i for i, parts in enumerate(zip(*rows, strict=False)) if len(set(parts)) > 1)
    return [path.parts[level] if 0 <= level < len(path.parts) - 1 else path.stem for path in paths]


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sort key that puts client2 before client10."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)


def _check_id(name: str, path: Path) -> None:
    # isprintable() is False for control characters, line ends, and bytes of a file name that are not UTF-8.
    if name and name.isprintable() and not name.startswith(".") and len(name.encode()) <= _LONGEST_ID_BYTES:
        return
    raise DataError(
        f"{str(path)!r}: {name!r} cannot be a client's id",
        hint=f"rename it: use at most {_LONGEST_ID_BYTES} bytes of printable characters, and no dot at the beginning",
        path=str(path),
    )
