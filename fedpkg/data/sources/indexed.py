"""A ``torch.utils.data.Dataset``, or any object with ``len(d)`` and items ``d[i] = (x, y)``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpkg.data.sources.base import Dataset
from fedpkg.errors import DataError


@dataclass(frozen=True)
class IndexedSource:
    """Reads every item once, in order, into arrays. Its digest is that of the arrays.

    The global generators of ``random``, NumPy and torch are seeded meanwhile, so that a random transform gives the same
    arrays in every run; they are restored afterwards.

    Args:
        name: For messages.
        items: The Dataset. Items are pairs (x, y), or mappings with the keys x and y, of arrays, tensors or numbers.
            Mappings of whole arrays (x_train, y_train …) are datasets, too.
    """

    name: str
    items: Any

    def read(self) -> Dataset | Mapping[str, Any]:
        with _seeded():
            if type(self.items).__module__.partition(".")[0] == "datasets":
                from fedpkg.data.sources.saved_dataset import arrays_of

                return arrays_of(self.items, f"dataset {self.name}", "label", None)
            if isinstance(self.items, Mapping):
                return self.items
            count = self._length()
            xs, ys = _first(self._item(0), count, self.name)
            for index in range(1, count):
                self._put(index, xs, ys)
        return Dataset({"x_train": xs, "y_train": ys})

    def _length(self) -> int:
        try:
            count = len(self.items)
        except Exception as error:
            raise DataError(f"dataset {self.name}: its length raised {type(error).__name__}: {error}") from error
        if count == 0:
            raise DataError(f"dataset {self.name}: it has no examples")
        return count

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            item = self.items[index]
        except IndexError as error:
            raise DataError(
                f"dataset {self.name}: its length is {len(self.items)}, but it has no item {index}: {error}",
                hint="__len__ must return the number of items",
            ) from error
        except Exception as error:
            raise DataError(f"dataset {self.name}: item {index} raised {type(error).__name__}: {error}") from error
        pair = (item["x"], item["y"]) if isinstance(item, Mapping) and {"x", "y"} <= item.keys() else item
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(
                f"dataset {self.name}: item {index} is a {type(item).__name__}, not a pair of features and label",
                hint="let __getitem__ return (x, y)",
            )
        return _array(pair[0], self.name, index), _array(pair[1], self.name, index)

    def _put(self, index: int, xs: npt.NDArray[Any], ys: npt.NDArray[Any]) -> None:
        for array, value, what in zip((xs, ys), self._item(index), ("features", "label"), strict=True):
            if value.shape != array.shape[1:] or not np.can_cast(value.dtype, array.dtype):
                raise DataError(
                    f"dataset {self.name}: item {index} has {what} of shape {value.shape} and dtype {value.dtype}, "
                    f"item 0 of shape {array.shape[1:]} and dtype {array.dtype}",
                    hint="all items must have one shape and dtype: add a transform",
                )
            array[index] = value


def _first(item: tuple[Any, Any], count: int, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Arrays for all items, with the first one in place."""
    arrays = []
    for value in item:
        array = np.empty((count, *value.shape), value.dtype)
        array[0] = value
        arrays.append(array)
    return arrays[0], arrays[1]


def _array(value: Any, name: str, index: int) -> npt.NDArray[Any]:
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"dataset {name}: item {index} holds a {type(value).__name__}, not numbers", hint="add a transform"
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(f"dataset {name}: item {index} has NaN", hint="fill the gap, or leave the item out")
    return array


@contextmanager
def _seeded() -> Iterator[None]:
    import torch

    plain, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(numpy)
