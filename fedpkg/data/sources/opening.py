"""Finds the source that a configuration describes, and reads its dataset together with a digest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpkg.config import NAMED_DATASETS
from fedpkg.config_shape import Places
from fedpkg.data.sources.base import Dataset, Source, named, stamps
from fedpkg.data.sources.indexed import IndexedSource
from fedpkg.data.sources.registry import BY_SUFFIX, DATASETS, PATH, resolve_dataset
from fedpkg.data.sources.scikit import ScikitDataset
from fedpkg.errors import ConfigError, DataError, FedpkgError

if TYPE_CHECKING:
    from fedpkg.types import Json

_PLACES = Places("run configuration")
_HINT = "it needs x_train and y_train; x_test and y_test may be absent; other names are columns for partition.by"


def make_source(dataset: str | Mapping[str, Json]) -> Source:
    """The source that ``clients.data.dataset`` describes.

    Raises:
        ConfigError: it is not in the registry, or its parameters are wrong.
        DataError: its class raises an error.
    """
    resolved = resolve_dataset(dataset, _PLACES)
    if isinstance(resolved, str):
        if resolved in NAMED_DATASETS:
            return ScikitDataset(resolved)
        suffix = "." + resolved.rpartition(".")[2]
        resolved = {"name": BY_SUFFIX[suffix], "path": resolved}
    try:
        made = DATASETS.make("dataset", DATASETS.without_options(resolved), _PLACES, PATH)
    except ConfigError as error:
        raise DataError(error.message, hint=error.hint, **error.fields) from error
    return made if hasattr(made, "read") else IndexedSource(str(resolved["name"]), made)


def describe_dataset(dataset: str | Mapping[str, Json]) -> str:
    """A dataset in a few words, for messages: its path, or its name."""
    if isinstance(dataset, str):
        return dataset
    return str(dataset.get("path") or dataset.get("name"))


class OpenedSource:
    """A source, its fingerprint and its dataset, each found once.

    Args:
        by: The column by which the examples are divided; a source that reads only some columns reads it, too.
        columns: More columns to read.
    """

    def __init__(self, dataset: str | Mapping[str, Json], *, by: Json = None, columns: Sequence[str] = ()) -> None:
        self.about = describe_dataset(dataset)  # the dataset in a few words, for messages
        self._source: Any = make_source(dataset)
        for name in (by, *columns):
            if name is not None and hasattr(self._source, "with_column"):
                self._source = self._source.with_column(name)
        self._fingerprint: str | None = None
        self._dataset: Dataset | None = None

    def files(self) -> list[Path]:
        """The files that the dataset consists of, as far as the source tells them."""
        find: Any = getattr(self._source, "files", list)
        return [Path(path) for path in find()]

    def fingerprint(self) -> str:
        """What changes whenever the content of the dataset does. A source without its own is read for it."""
        if self._fingerprint is None:
            find: Any = getattr(self._source, "fingerprint", None)
            self._fingerprint = str(find()) if find is not None else self._read().digest()
        return self._fingerprint

    def read(self) -> Dataset:
        """The dataset to which the fingerprint belongs. A test split without examples counts as absent.

        Raises:
            DataError: The source does not exist or is damaged, contains pickled objects, lacks keys, or has different
                numbers of examples and labels; or a file was written in the meantime, with both digests.
        """
        before, digest = stamps(self.files()), self.fingerprint()
        found = self._read()
        if stamps(self.files()) != before:
            self._fingerprint = None
            if (now := self.fingerprint()) != digest:
                raise DataError(
                    f"dataset {self.about} changed while it was read: its digest was {digest} and is now {now}",
                    hint="start again when nothing writes to it",
                    path=self.about,
                )
        return found

    def _read(self) -> Dataset:
        if self._dataset is None:
            self._dataset = _read(self._source, self.about)
        return self._dataset


def _read(source: Source, about: str) -> Dataset:
    try:
        found = source.read()
    except FedpkgError:
        raise
    except Exception as error:
        raise DataError(f"dataset {about}: its class raised {type(error).__name__}: {error}") from error
    if isinstance(found, Dataset):
        return found
    if not isinstance(found, Mapping):
        raise DataError(f"dataset {about}: read() returned a {type(found).__name__}, not arrays by name", hint=_HINT)
    return named({str(key): _array(value, str(key), about) for key, value in found.items()}, f"dataset {about}", _HINT)


def _array(value: Any, key: str, about: str) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        raise DataError(f"dataset {about}: {key} holds Python objects, not numbers or texts of one type", hint=_HINT)
    return array
