"""Datasets to split: an .npz or .pt file with x_train, y_train, x_test, y_test, or one of scikit-learn's."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.config import NAMED_DATASETS
from fedpkg.errors import DataError, nearest
from fedpkg.files import open_regular

KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """Arrays by key, and the suffix of the file that they come from. The test keys may be absent.

    Arrays are NumPy's, also from a .pt file, because indexing a tensor starts torch's threads, which costs milliseconds
    per client on a busy machine. Dtypes that NumPy does not have (bfloat16) remain torch tensors.
    """

    arrays: dict[str, Any]
    suffix: str

    def labels(self, split: str) -> npt.NDArray[Any]:
        labels = self.arrays[f"y_{split}"]
        return labels if isinstance(labels, np.ndarray) else np.asarray(labels.float())

    @property
    def has_test(self) -> bool:
        return "x_test" in self.arrays


def read_dataset(dataset: str) -> Dataset:
    """Read a file, or load a named dataset.

    A test split without examples counts as absent.

    Raises:
        DataError: If the file does not exist or is damaged, contains pickled objects, lacks keys, or has different
            numbers of examples and labels.
    """
    if dataset in NAMED_DATASETS:
        return _load_named(dataset)
    path = Path(dataset)
    if not path.is_file():
        near = nearest(dataset, NAMED_DATASETS)
        raise DataError(f"dataset {dataset}: no such file{near}", hint="give an .npz or .pt file", path=dataset)
    if path.suffix not in (".npz", ".pt"):
        names = ", ".join(NAMED_DATASETS)
        raise DataError(f"dataset {dataset}: not an .npz or .pt file", hint=f"give such a file, or one of {names}")
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_pt(path)
    return Dataset(_checked(arrays, path), path.suffix)


def _checked(arrays: dict[str, Any], path: Path) -> dict[str, Any]:
    hint = f"the file needs the keys {', '.join(KEYS)} (both test keys may be absent)"
    if missing := [key for key in KEYS[:2] if key not in arrays]:
        raise DataError(f"dataset {path}: it has no {' and no '.join(missing)}", hint=hint, path=str(path))
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"dataset {path}: it has only one of x_test and y_test", hint=hint, path=str(path))
    for split in ("train", "test"):
        if f"x_{split}" not in arrays:
            continue
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise DataError(
                f"dataset {path}: x_{split} of shape {tuple(x.shape)} and y_{split} of shape {tuple(y.shape)} do not "
                "have the same number of examples",
                hint="the first axis of both must be the examples",
                path=str(path),
            )
    if len(arrays["x_train"]) == 0:
        raise DataError(f"dataset {path}: it has no training examples", path=str(path))
    if "x_test" in arrays and len(arrays["x_test"]) == 0:
        del arrays["x_test"], arrays["y_test"]
    return arrays


def _read_npz(path: Path) -> dict[str, Any]:
    hint = "write it with numpy.savez, from arrays of numbers"
    try:
        # Opened here, because np.load would leave a damaged file open.
        with open_regular(path) as raw:
            if not zipfile.is_zipfile(raw):  # otherwise np.load reads it as a pickle, and advises to allow that
                raise DataError(f"dataset {path}: cannot be read: it is not an npz file", hint=hint, path=str(path))
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                arrays = {key: file[key] for key in KEYS if key in file}
    except DataError:
        raise
    except Exception as error:  # NumPy can raise anything on a damaged file
        raise DataError(f"dataset {path}: cannot be read: {_reason(error)}", hint=hint, path=str(path)) from error
    for key, value in arrays.items():
        if not isinstance(value, np.ndarray):  # NumPy returns a member that is not a .npy file as bytes
            raise DataError(f"dataset {path}: cannot be read: {key} is not an array", hint=hint, path=str(path))
    return arrays


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "allow_pickle" in str(error):
        return "it contains pickled Python objects, which are never loaded"
    return (str(error) or type(error).__name__).splitlines()[0]


def _read_pt(path: Path) -> dict[str, Any]:
    import torch

    from fedpkg.formats.torch_file import load_torch

    hint = "write it with torch.save({'x_train': tensor, …}, path); only tensors are loaded, no other objects"
    try:
        content = load_torch(path)
    except (OSError, ValueError) as error:
        raise DataError(f"dataset {path}: cannot be read: {_reason(error)}", hint=hint, path=str(path)) from error
    if not isinstance(content, dict):
        raise DataError(f"dataset {path}: contains a {type(content).__name__}, not a dict", hint=hint, path=str(path))
    arrays = {key: content[key] for key in KEYS if key in content}
    for key, value in arrays.items():
        if not isinstance(value, torch.Tensor):
            raise DataError(
                f"dataset {path}: {key} is a {type(value).__name__}, not a tensor", hint=hint, path=str(path)
            )
    return {key: _as_numpy(value.detach()) for key, value in arrays.items()}


def _as_numpy(tensor: Any) -> Any:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor


def _load_named(name: str) -> Dataset:
    """A dataset of scikit-learn: raw features as float32 (digits: pixels 0 … 16), labels as int64, a fifth for tests.

    The examples are shuffled with a fixed seed, independent of the run's.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise missing_scikit_learn(name) from error
    bunch = getattr(datasets, f"load_{name.removeprefix('sklearn/')}")()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    x, y = bunch.data.astype(np.float32)[order], bunch.target.astype(np.int64)[order]
    train = len(y) - round(len(y) * 0.2)
    return Dataset({"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}, ".npz")


def missing_scikit_learn(name: str) -> DataError:
    return DataError(f"dataset {name}: scikit-learn is not installed", hint="pip install 'fedpkg[datasets]'")
