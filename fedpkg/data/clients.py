"""The clients of a run and the data of each, from the section ``clients`` of its configuration."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpkg.config import ClientsConfig, DataConfig
from fedpkg.data.base import ClientData
from fedpkg.data.entities import Entities, Entity, entities_of
from fedpkg.data.split import PartitionFile, split_dataset
from fedpkg.errors import DataError, nearest
from fedpkg.files import natural_order

_OF_A_CLIENT = re.compile(r"(client|site|node)[-_ ]?[0-9]+", re.IGNORECASE)
_LONGEST_ID_BYTES = 200  # ids become parts of file names


def prepare_clients(
    clients: ClientsConfig,
    *,
    cache: Path,
    seed: int,
    check: Callable[[], None] = lambda: None,
    isolated: bool = False,
    shares: Sequence[DataShare] = (),
    facts: Sequence[str] = (),
) -> list[ClientData]:
    """All clients, in the order of their partition ids; data that fedpkg splits is on disk afterwards.

    - ``folders``: every match of the pattern (for a plain folder: each folder in it) is a client, in natural order
      (client2 before client10), named after the match; with ``count``, only the first ``count`` matches.
    - ``entities``: every entity that is no parent is a client, in the order of the file, with its own data; with
      ``count``, only the first ones.
    - ``count``: client-0 … client-9, numbers padded to equal width.
    - ``data``: each client has a file with its part of the dataset, or a reference to it.

    Args:
        check: Called before each file that is written. If it raises, the split is undone.
        isolated: Whether the clients' tasks see only their own files.
        shares: Datasets that each are divided among some of the clients, instead of ``data`` among all.
        facts: See `fedpkg.data.split.split_dataset`.

    Raises:
        DataError: If nothing matches, a name cannot be an id, or the dataset cannot be read or split.
    """
    named = _named(clients)
    if clients.folders is not None or (clients.data is None and not shares):
        named = named or []
        return [ClientData(name, k, len(named), path, None) for k, (name, path) in enumerate(named)]
    if shares:
        names = [name for name, _ in named or ()]
        files = _of_shares(shares, names, cache=cache, seed=seed, check=check, isolated=isolated)
    else:
        assert clients.data is not None
        count = None if named is None else len(named)
        files = split_dataset(clients.data, count, cache=cache, seed=seed, check=check, isolated=isolated, facts=facts)
        names = numbered_ids(len(files)) if named is None else [name for name, _ in named]
    return [
        ClientData(name, k, len(files), file.path, file.num_examples)
        for k, (name, file) in enumerate(zip(names, files, strict=True))
    ]


@dataclass(frozen=True)
class DataShare:
    """Clients that divide one dataset among themselves. ``where``: what sets it, for messages."""

    data: DataConfig
    clients: tuple[str, ...]
    where: str


def _of_shares(shares: Sequence[DataShare], names: Sequence[str], **options: Any) -> list[PartitionFile]:
    files: dict[str, PartitionFile] = {}
    for share in shares:
        try:
            found = split_dataset(share.data, len(share.clients), **options)
        except DataError as error:
            raise DataError(f"{share.where}: {error.message}", hint=error.hint, **error.fields) from error
        files.update(zip(share.clients, found, strict=True))
    return [files[name] for name in names]


def client_names(clients: ClientsConfig) -> list[str]:
    """The ids of all clients, in the order of their partition ids, without splitting a dataset.

    Raises:
        DataError: Nothing matches, a name cannot be an id, or only the split of the data would tell the number.
    """
    if (named := _named(clients)) is None:
        raise DataError("the number of clients is known only when the data is split", hint="set clients.count")
    return [name for name, _ in named]


def _named(clients: ClientsConfig) -> Sequence[tuple[str, Path | None]] | None:
    """The ids of all clients, with the paths of their own data; None: the split of a dataset tells the number."""
    entities = entities_of(clients)
    if clients.folders is not None:
        return _of_folders(clients, clients.folders, entities)
    if entities is not None:
        return [(one.entity_id, one.data) for one in _first(clients, entities)]
    return None if clients.count is None else [(name, None) for name in numbered_ids(clients.count)]


def _of_folders(clients: ClientsConfig, pattern: str, entities: Entities | None) -> list[tuple[str, Path]]:
    found = _find(pattern)
    if len(found) < (clients.count or 0):
        raise DataError(
            f"clients.folders: {pattern} matches {len(found)}, but clients.count is {clients.count}",
            hint="lower clients.count, or use a pattern that matches more",
            pattern=pattern,
        )
    found = found[: clients.count]
    if entities is not None:
        ids = [entity.entity_id for entity in entities.clients]
        if strange := next((name for name, _ in found if name not in ids), None):
            raise DataError(
                f"clients.folders: {clients.entities} has no client {strange!r}{nearest(strange, ids)}",
                hint="list it there, or use a pattern that does not match it",
            )
    return found


def _first(clients: ClientsConfig, entities: Entities) -> list[Entity]:
    """The entities that are clients, checked: as many as ``clients.count`` wants."""
    found = entities.clients
    if len(found) < (clients.count or 0):
        raise DataError(
            f"clients.entities: {clients.entities} has {len(found)} clients, but clients.count is {clients.count}",
            hint="lower clients.count, or list more",
        )
    found = found[: clients.count]
    for entity in found:
        _check_id(entity.entity_id, entity.place)
        if entity.data is not None and clients.data is not None:
            problem = f"{entity.place}: {entity.entity_id!r} has data, and clients.data splits a dataset"
            raise DataError(problem, hint="remove one of them")
        if entity.data is not None and not entity.data.exists():
            raise DataError(f"{entity.place}: the data of {entity.entity_id!r} does not exist: {entity.data}")
    if clients.data is None and len({entity.data is None for entity in found}) == 2:
        without = next(entity for entity in found if entity.data is None)
        raise DataError(f"{without.place}: {without.entity_id!r} has no data, and other clients have", hint="add it")
    return found


def numbered_ids(count: int) -> list[str]:
    """The ids of clients that have no others: client-0, client-1 …"""
    width = len(str(count - 1))
    return [f"client-{k:0{width}d}" for k in range(count)]


def client_groups(clients: ClientsConfig, client_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The clients of each group in ``clients.groups``, in the order of all clients.

    A pattern ``name=value`` matches the values of an attribute of `clients.entities`, or of the parents (``parent``).

    Raises:
        DataError: If a pattern matches no client.
    """
    entities = entities_of(clients) if any("=" in one for each in clients.groups.values() for one in each) else None
    groups = {}
    for group, patterns in clients.groups.items():
        members: set[str] = set()
        for pattern in patterns:
            members |= matching(pattern, client_ids, entities, where=f"clients.groups.{group}")
        groups[group] = tuple(name for name in client_ids if name in members)
    return groups


def matching(pattern: str, client_ids: Sequence[str], entities: Entities | None, *, where: str) -> set[str]:
    """The clients that a pattern of an id, or of an attribute of entities, means; ``where`` it stands.

    Raises:
        DataError: It matches no client.
    """
    name, equals, value = pattern.partition("=")
    if entities is not None and equals and entities.has_attribute(name):
        known = [one for one in client_ids if one in entities]
        found = {one for one in known if any(fnmatch.fnmatchcase(v, value) for v in entities.values(one, name))}
        if not found:
            there = dict.fromkeys(each for one in known for each in entities.values(one, name))
            raise DataError(
                f"{where}: no client has {name!r} like {value!r}{nearest(value, there)}",
                hint=f"its values: {', '.join(list(there)[:10])}",
                pattern=pattern,
            )
        return found
    found = {one for one in client_ids if fnmatch.fnmatchcase(one, pattern)}
    if not found and equals and entities is not None:
        raise DataError(
            f"{where}: no entity has an attribute {name!r}{nearest(name, entities.attributes)}",
            hint=f"attributes: {', '.join(entities.attributes) or 'none'}",
            pattern=pattern,
        )
    if not found:
        raise DataError(
            f"{where}: no client id matches {pattern!r}{nearest(pattern, client_ids)}",
            hint=f"the {len(client_ids)} ids: {', '.join(client_ids[:5])}{' …' * (len(client_ids) > 5)}",
            pattern=pattern,
        )
    return found


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
        nothing = f"clients.folders (--data, --database): nothing matches {pattern}"
    if not paths:
        hint = "use a pattern that matches one folder (or file) per client, for example data/clients/* or data/*.csv"
        raise DataError(nothing, hint=hint, pattern=pattern)
    paths = sorted((Path(os.path.abspath(path)) for path in paths), key=natural_order)
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
        _check_id(name, repr(str(path)))
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


def _check_id(name: str, place: str) -> None:
    # isprintable() is False for control characters, line ends, and bytes of a file name that are not UTF-8.
    if name and name.isprintable() and name[0] != "." and "/" not in name and len(name.encode()) <= _LONGEST_ID_BYTES:
        return
    raise DataError(
        f"{place}: {name!r} cannot be a client's id",
        hint=f"rename it: use at most {_LONGEST_ID_BYTES} bytes of printable characters, and no '/' and no dot at "
        "the beginning",
        path=place,
    )
