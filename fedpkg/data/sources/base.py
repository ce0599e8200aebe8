"""A dataset in memory, the protocol of sources, and the checks that hold for every source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from fedpkg.errors import DataError, nearest
from fedpkg.files import sha256_file

KEYS = ("x_train", "y_train", "x_test", "y_test")
_SPLITS = ("train", "test")
_BLOCK_BYTES = 64 << 20
_Arrays = TypeVar("_Arrays", bound="ArraysFile")


@dataclass(frozen=True)
class Dataset:
    """Arrays by key; the first axis of each are the examples.

    Arrays are NumPy's, also from a .pt file, because indexing a tensor starts torch's threads, which costs milliseconds
    per client on a busy machine. Dtypes that NumPy does not have (bfloat16) remain torch tensors.

    Args:
        arrays: x_train, y_train and perhaps x_test, y_test: what clients get.
        suffix: Of the clients' files: .npz, .pt or .safetensors.
        columns: More values of the training examples by name (``writer``), and of the test examples
            (``writer_test``), by which examples can be divided. Clients do not get them.
        texts: The values of columns that are texts; the arrays have their positions.
        classes: The names of the labels 0, 1 …, if the source has text or folders as labels.
        features: The names of the columns of x, if it comes from a table.
    """

    arrays: dict[str, Any]
    suffix: str = ".npz"
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None

    def labels(self, split: str) -> npt.NDArray[Any]:
        return _as_numpy(self.arrays[f"y_{split}"])

    def column(self, name: str, split: str, source: str) -> npt.NDArray[Any]:
        """The values by which the examples of ``split`` are divided. Raises DataError: there are none of that name."""
        key = name if split == "train" else f"{name}_{split}"
        if key not in self.columns:
            raise no_column(key, self.columns, source)
        return self.columns[key]

    @property
    def has_test(self) -> bool:
        return "x_test" in self.arrays

    def digest(self) -> str:
        """``content:`` and the SHA-256 of all names, dtypes, shapes and values."""
        found = hashlib.sha256()
        columns = {f"column {name}": array for name, array in self.columns.items()}
        for name, value in sorted({**self.arrays, **columns}.items()):
            array = _as_numpy(value)
            found.update(f"{name} {getattr(value, 'dtype', '')} {array.shape}\n".encode())
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for start in range(0, flat.size, _BLOCK_BYTES):
                found.update(flat[start : start + _BLOCK_BYTES].data)
        found.update("\n".join(self.classes or ()).encode())
        return f"content:{found.hexdigest()}"


def no_column(name: str, names: Iterable[str], source: str) -> DataError:
    """The error for a column that is not among ``names``."""
    known = [one for one in names if one not in KEYS and not one.endswith("_test")]
    return DataError(
        f"{source}: it has no column '{name}'{nearest(name, known)}",
        hint=f"it has: {', '.join(known)}" if known else "it has only examples and labels",
    )


def _as_numpy(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else np.asarray(value.float())


@runtime_checkable
class Source(Protocol):
    """Reads one dataset.

    A source may have ``fingerprint() -> str``, which changes whenever the content changes, and ``files() -> list of
    paths``: both without reading the dataset. A source without a fingerprint is read, and its content digested.
    ``with_column(name) -> Source``, of a source that does not read all its columns, is the one that also reads this
    column: that of `partition.by`.
    """

    def read(self) -> Dataset | Mapping[str, Any]:
        """The dataset; a mapping of arrays is one, too: x_train, y_train, x_test, y_test, and columns by other names.

        Raises:
            DataError: It cannot be read.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """Base of sources that are one file. ``fingerprint`` is its digest.

    Args:
        path: Path of the file.
    """

    path: str

    @property
    def file(self) -> Path:
        return Path(self.path)

    def files(self) -> list[Path]:
        return [self.file]

    def fingerprint(self) -> str:
        self.check_file()
        return f"sha256:{sha256_file(self.file)}{self.file.suffix}"

    def check_file(self) -> None:
        if not self.file.is_file():
            raise DataError(f"dataset {self.path}: no such file", hint="give the path of a file", path=self.path)


@dataclass(frozen=True)
class ArraysFile(FileSource):
    """Base of sources that are one file of arrays by name. Clients get files of the same kind.

    Args:
        columns: More arrays of the file, with a value for each training example. An array `<name>_test` has the values
            of the test examples. The column of `partition.by` need not be listed.
    """

    columns: Sequence[str] = ()

    suffix: ClassVar[str]

    def arrays(self, wanted: Collection[str]) -> tuple[dict[str, Any], Collection[str]]:
        """Those of the wanted arrays that the file has, and the names of all its arrays.

        Raises:
            DataError: the file is damaged, or one of them is no array.
        """
        raise NotImplementedError

    def with_column(self: _Arrays, name: str) -> _Arrays:
        return self if name in self.columns else replace(self, columns=(*self.columns, name))

    def read(self) -> Dataset:
        self.check_file()
        source = f"dataset {self.path}"
        arrays, names = self.arrays((*KEYS, *self.columns, *(f"{name}_test" for name in self.columns)))
        if missing := [name for name in self.columns if name not in arrays]:
            raise no_column(missing[0], names, source)
        hint = f"the file needs the arrays {', '.join(KEYS)} (both test arrays may be absent)"
        return replace(named(arrays, source, hint), suffix=self.suffix)


def named(arrays: Mapping[str, Any], source: str, hint: str) -> Dataset:
    """A dataset of arrays by key; keys other than `KEYS` are columns. The values are NumPy arrays."""
    found = {key: arrays[key] for key in KEYS if key in arrays}
    columns = {key.removesuffix("_train"): value for key, value in arrays.items() if key not in KEYS}
    checked(found, source, hint)
    for name, value in columns.items():
        split = "test" if name.endswith("_test") else "train"
        y = found.get(f"y_{split}")
        if y is None or getattr(value, "ndim", 0) != 1 or len(value) != len(y):
            raise DataError(
                f"{source}: the column '{name}' does not have one value for each {split} example",
                hint="arrays other than x_… and y_… are columns for partition.by",
            )
    return Dataset(found, columns=columns)


def checked(arrays: dict[str, Any], source: str, hint: str) -> dict[str, Any]:
    """The arrays without a test split that has no examples.

    Raises:
        DataError: Arrays are missing, a split has more examples than labels or fewer, or a label is NaN.
    """
    fields = {"path": source.removeprefix("dataset ")}
    if missing := [key for key in KEYS[:2] if key not in arrays]:
        raise DataError(f"{source}: it has no {' and no '.join(missing)}", hint=hint, **fields)
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{source}: it has only one of x_test and y_test", hint=hint, **fields)
    for split in _SPLITS:
        if f"x_{split}" not in arrays:
            continue
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise DataError(
                f"{source}: x_{split} of shape {tuple(x.shape)} and y_{split} of shape {tuple(y.shape)} do not "
                "have the same number of examples",
                hint="the first axis of both must be the examples",
                **fields,
            )
        if y.ndim == 1 and (missing_labels := y != y).any():  # only NaN differs from itself
            raise DataError(
                f"{source}: {int(missing_labels.sum())} of {len(y)} labels in y_{split} are NaN, the first at index "
                f"{int(np.flatnonzero(_as_numpy(missing_labels))[0])}",
                hint="leave these examples out, or give them a label",
                **fields,
            )
    if len(arrays["x_train"]) == 0:
        raise DataError(f"{source}: it has no training examples", **fields)
    if "x_test" in arrays and len(arrays["x_test"]) == 0:
        del arrays["x_test"], arrays["y_test"]
    return arrays


def stamps(files: Iterable[Path]) -> list[tuple[str, int, int, int]]:
    """Inode, size and time of each file: equal stamps mean that nothing was written. Missing files have none."""
    found = []
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def reason(error: Exception) -> str:
    """One line about an error of a library that reads files."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "allow_pickle" in str(error):
        return "it contains pickled Python objects, which are never loaded"
    return (str(error) or type(error).__name__).splitlines()[0]
