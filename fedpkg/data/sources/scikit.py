"""The datasets that scikit-learn contains, which need no download."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from fedpkg.apps.scikit import arrays_of_scikit
from fedpkg.config import NAMED_DATASETS
from fedpkg.data.sources.base import Dataset
from fedpkg.errors import DataError


@dataclass(frozen=True)
class ScikitDataset:
    """A dataset of scikit-learn: raw features as float32 (digits: pixels 0 … 16), labels as int64, a fifth for tests.

    The examples are shuffled with a fixed seed, independent of the run's. It has no file and no name in the registry,
    because `dataset: sklearn/digits` says everything.
    """

    name: str

    def fingerprint(self) -> str:
        """The version, not the bytes: importing scikit-learn takes a second, and releases do not change datasets."""
        assert self.name in NAMED_DATASETS
        try:
            return f"{self.name} {importlib.metadata.version('scikit-learn')}"
        except importlib.metadata.PackageNotFoundError as error:
            raise _missing(self.name) from error

    def read(self) -> Dataset:
        try:
            return Dataset(arrays_of_scikit(self.name))
        except ImportError as error:
            raise _missing(self.name) from error


def _missing(name: str) -> DataError:
    return DataError(f"dataset {name}: scikit-learn is not installed", hint="pip install 'fedpkg[datasets]'")
