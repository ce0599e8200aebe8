"""The datasets that a message app names in its code (`data.sources`): checked, and put where tasks can map them.

Tasks read the list that is written here: see `fedpkg.apps.federated_data.sources`. Each dataset is one .npz for all
tasks: the source's own file if its arrays can be mapped, or else a copy in the home.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from fedpkg.apps.federated_data.columns import is_picture
from fedpkg.client.data import open_data
from fedpkg.client.errors import ClientError
from fedpkg.config import DATASET_SUFFIXES, NAMED_DATASETS
from fedpkg.config_reading import is_section_of_source
from fedpkg.config_sections import AppDataConfig
from fedpkg.config_shape import Places
from fedpkg.data.client_files import can_be_mapped, write_copy
from fedpkg.data.sources.base import KEYS, Dataset, named
from fedpkg.data.sources.opening import OpenedSource
from fedpkg.data.sources.registry import BY_SUFFIX, WHERE_IT_IS, resolve_dataset
from fedpkg.errors import ConfigError, DataError, nearest
from fedpkg.files import atomic_write

if TYPE_CHECKING:
    from fedpkg.types import Json

FOLDER = "apps"  # in the home's folder of data
_RENAME = "rename"
_WHOLE = ""  # stands for all splits of a source
# How the public datasets of these names call their columns.
_IMAGES = {"cifar10": "img", "cifar100": "img"}
_LABELS = {"cifar100": "fine_label"}


@dataclass(frozen=True)
class Prepared:
    """The list of an app's datasets, the files that it names, and a digest of each dataset."""

    listing: Path
    files: tuple[Path, ...]
    digests: Mapping[str, str]


def resolve_sources(sources: Mapping[str, Json], places: Places) -> dict[str, Any]:
    """``data.sources``, checked, with the defaults of each source.

    Raises:
        ConfigError: A source does not exist, or has a parameter that is not allowed.
    """
    resolved: dict[str, Any] = {}
    for name, given in sources.items():
        path = ("data", "sources", name)
        parts = {split: _resolved(part, places, (*path, *filter(None, [split]))) for split, part in _splits(given)}
        if not parts:
            raise ConfigError(f"{places.where(path)}: 'data.sources.{name}' names no data", hint="give it a path")
        resolved[name] = parts.get(_WHOLE, parts)
    return resolved


def prepare_sources(data: AppDataConfig, cache: Path) -> Prepared:
    """Write the list of an app's datasets, and copies of those that cannot be mapped, into ``cache``.

    Raises:
        DataError: One cannot be read, or does not have its digest in `data.digests`; with both digests.
    """
    folder = cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    datasets: dict[str, Any] = {}
    files: dict[str, Any] = {}  # with their facts; None: copies
    digests: dict[str, str] = {}
    with FileLock(cache / ".lock"):
        for name, given in data.sources.items():
            parts = {split: (OpenedSource(_without_rename(section)), section) for split, section in _splits(given)}
            digests[name] = _digest(name, [opened for opened, _ in parts.values()], data.digests.get(name))
            splits: dict[str, Any] = {}
            for split, (opened, section) in parts.items():
                file, dataset = _mapped(opened, section, folder)
                columns = _columns(dataset, file, section, name)
                splits |= columns if split == _WHOLE else {split: columns["train"]}
                files[str(file)] = None if file.parent == folder.absolute() else _facts(file, opened.fingerprint())
            datasets[name] = splits
        facts = {file: told for file, told in files.items() if told is not None}
        whole = {"fedpkg_datasets": 1, "datasets": datasets, "files": facts}
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        listing = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        if not listing.exists():
            with atomic_write(listing) as out:
                out.write(text.encode())
    return Prepared(listing.absolute(), tuple(map(Path, files)), digests)


def copies_for_apps(cache: Path) -> list[Path]:
    """The lists and copies of datasets for apps: a session makes those that it needs when it begins or is resumed."""
    folder = cache / FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def files_in(listing: str) -> list[str]:
    """A list of an app's datasets, and the files that it names; nothing, if it is gone."""
    try:
        found = json.loads(Path(listing).read_text(encoding="utf-8"))["datasets"]
    except OSError:
        return []
    columns = (column for dataset in found.values() for split in dataset.values() for column in split.values())
    return [listing, *dict.fromkeys(column["file"] for column in columns)]


def _splits(given: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a source: one of all splits, or one for each split."""
    if isinstance(given, Mapping) and not is_section_of_source(given):
        yield from given.items()
    else:
        yield _WHOLE, given


def _resolved(given: Any, places: Places, path: tuple[str, ...]) -> Any:
    rename = given.get(_RENAME) if isinstance(given, Mapping) else None
    section = _without_rename(given)
    if isinstance(section, str) and section not in NAMED_DATASETS and _is_folder(section):
        section = {"name": "images", "path": section}
    if isinstance(section, Mapping) and "name" not in section and str(section.get("path")).endswith(DATASET_SUFFIXES):
        section = {"name": BY_SUFFIX[Path(str(section["path"])).suffix], **section}
    if not isinstance(section, (str, Mapping)):
        raise ConfigError(
            f"{places.where(path)}: '{'.'.join(path)}' must be a path, a name or a section, found {section!r:.100}",
            key=".".join(path),
        )
    if rename is not None and not all(isinstance(word, str) for pair in rename.items() for word in pair):
        raise ConfigError(f"{places.where(path)}: 'rename' must have names of columns, found {rename!r:.100}")
    resolved = resolve_dataset(section, places, path)
    if rename is None:
        return resolved
    whole = resolved if isinstance(resolved, dict) else _as_section(resolved)
    return {**whole, _RENAME: rename}


def _as_section(text: str) -> dict[str, Any]:
    suffix = Path(text).suffix
    return {"name": BY_SUFFIX[suffix], "path": text} if suffix in BY_SUFFIX else {"name": text}


def _is_folder(path: str) -> bool:
    return Path(path).is_dir() or (path.startswith("/") and not path.endswith(DATASET_SUFFIXES))


def _without_rename(section: Any) -> Any:
    if not isinstance(section, Mapping):
        return section
    plain = {key: value for key, value in section.items() if key != _RENAME}
    return plain["name"] if plain.get("name") in NAMED_DATASETS and len(plain) == 1 else plain


def _digest(name: str, sources: Sequence[OpenedSource], before: str | None) -> str:
    """The digest of a source. Raises DataError: it should have another one."""
    now = " ".join(opened.fingerprint() for opened in sources)
    # The digests of scikit-learn's have its version, and releases do not change datasets.
    if before not in (None, now) and not all(opened.about in NAMED_DATASETS for opened in sources):
        raise DataError(
            f"data.sources.{name} has changed since the session began: its digest was {before} and is now {now}",
            hint=f"restore it, or start a new run without data.digests.{name}",
        )
    return now


def _facts(file: Path, digest: str) -> dict[str, Any]:
    status = file.stat()
    sha256 = digest.removeprefix("sha256:").partition(".")[0]
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256}


def _columns(dataset: Dataset, file: Path, section: Any, name: str) -> dict[str, dict[str, Any]]:
    """For each split, where in the file its columns are."""
    last = name.rpartition("/")[2]
    label = section.get("label") if isinstance(section, Mapping) else None
    label = label or _LABELS.get(last, "label")
    rename = section.get(_RENAME, {}) if isinstance(section, Mapping) else {}
    found: dict[str, dict[str, Any]] = {}
    for split in ("train", "test")[: 1 + dataset.has_test]:
        columns = _features(dataset, split, _IMAGES.get(last, "image"))
        columns[label] = {"array": f"y_{split}"}
        if dataset.classes is not None:
            columns[label]["classes"] = list(dataset.classes)
        for column in dataset.columns:
            if column.endswith("_test") == (split == "test"):
                columns[column.removesuffix("_test")] = {"array": column}
        if strange := [column for column in rename if column not in columns]:
            near = nearest(strange[0], columns)
            raise DataError(
                f"data.sources.{name}: 'rename' names the column '{strange[0]}', which does not exist{near}",
                hint=f"its columns: {', '.join(columns)}",
            )
        found[split] = {rename.get(one, one): {"file": str(file), **told} for one, told in columns.items()}
    return found


def _features(dataset: Dataset, split: str, image: str) -> dict[str, dict[str, Any]]:
    x = dataset.arrays[f"x_{split}"]
    if dataset.features is not None and x.ndim == 2:
        return {name: {"array": f"x_{split}", "column": number} for number, name in enumerate(dataset.features)}
    is_image = isinstance(x, np.ndarray) and is_picture(x.shape, x.dtype)
    return {image if is_image else "x": {"array": f"x_{split}"}}


def _mapped(opened: OpenedSource, section: Any, folder: Path) -> tuple[Path, Dataset]:
    """A file whose arrays can be mapped, and what it contains: the source's own, which is not read, or else a copy."""
    files = opened.files()
    settings = {
        key: value
        for key, value in (section.items() if isinstance(section, Mapping) else ())
        if key not in (*WHERE_IT_IS, _RENAME)
    }
    is_npz = len(files) == 1 and files[0].suffix == ".npz" and zipfile.is_zipfile(files[0])
    if is_npz and not settings.get("columns") and can_be_mapped(files[0]):
        try:
            arrays = open_data(files[0])
        except ClientError as error:
            raise DataError(error.message, hint=error.hint) from error
        hint = f"the file needs the arrays {', '.join(KEYS)} (both test arrays may be absent)"
        whole = named({key: arrays[key] for key in KEYS if key in arrays}, f"dataset {opened.about}", hint)
        return files[0].absolute(), whole
    dataset = opened.read()
    key = json.dumps([opened.fingerprint(), settings], sort_keys=True)
    copy = (folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz").absolute()
    if not copy.exists():
        whole = replace(dataset, arrays={**dataset.arrays, **dataset.columns})
        what, hint = f"dataset {opened.about}: arrays that tasks map", "save it with dtypes of NumPy, such as float32"
        write_copy(copy, whole, what=what, hint=hint)
    return copy, dataset
