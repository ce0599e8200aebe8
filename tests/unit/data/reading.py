"""Reads a dataset as a split does."""

from __future__ import annotations

from typing import Any

from fedpkg.data.sources.base import Dataset
from fedpkg.data.sources.opening import OpenedSource


def read_dataset(dataset: Any, *, by: str | None = None) -> Dataset:
    return OpenedSource(dataset, by=by).read()
