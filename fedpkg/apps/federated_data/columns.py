"""A column of a table: its values, what they are, and how an app sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Value:
    """A feature of one number or text per row."""

    dtype: str


@dataclass(frozen=True)
class Array:
    """A feature of one array per row."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Image:
    """A feature of one image per row."""


@dataclass(frozen=True)
class ClassLabel:
    """A feature of one class per row; its values are the positions of the classes' names."""

    names: list[str]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def int2str(self, number: int) -> str:
        return self.names[number]

    def str2int(self, name: str) -> int:
        return self.names.index(name)


Feature: TypeAlias = "Value | Array | Image | ClassLabel"


@dataclass(frozen=True)
class Column:
    """Some rows of an array that is perhaps mapped from a file, or of a list of other objects.

    Args:
        rows: The rows of ``values`` that the column has; None: all.
        names: The names of the classes that its values are positions of.
        is_image: Whether each value is an image: bytes of height x width, with channels first or last.
    """

    values: npt.NDArray[Any] | list[Any]
    rows: Rows | None = None
    names: tuple[str, ...] | None = None
    is_image: bool = False

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    def select(self, rows: Rows) -> Column:
        return Column(self.values, rows if self.rows is None else self.rows[rows], self.names, self.is_image)

    def one(self, row: int) -> Any:
        """The value of a row: a Python object, an array that can be written to, or an image."""
        value = self.values[row if self.rows is None else int(self.rows[row])]
        if isinstance(self.values, list):
            return value
        if self.is_image:
            return pictured(value)
        return value.item() if self.values.ndim == 1 else np.array(value)

    def many(self) -> list[Any]:
        if isinstance(self.values, np.ndarray) and self.values.ndim == 1:
            return list(self._chosen().tolist())
        return [self.one(row) for row in range(len(self))]

    def array(self) -> npt.NDArray[Any]:
        """All values as one new array, of dtype object if they differ in shape; images have channels last."""
        found = self._chosen()
        if isinstance(found, list):
            return stacked(found)
        return channels_last(found) if self.is_image else np.array(found)

    @property
    def feature(self) -> Feature:
        if self.names is not None:
            return ClassLabel(list(self.names))
        if self.is_image:
            return Image()
        if isinstance(self.values, list):
            return Value("object")
        dtype = "string" if self.values.dtype.kind in "US" else str(self.values.dtype)
        return Value(dtype) if self.values.ndim == 1 else Array(self.values.shape[1:], dtype)

    def _chosen(self) -> Any:
        if self.rows is None:
            return self.values
        if isinstance(self.values, list):
            return [self.values[row] for row in self.rows]
        return self.values[self.rows]


def column_of(values: Sequence[Any]) -> Column:
    """A column of the values that a function of an app has returned, one per row."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return Column(values)
    if hasattr(values, "detach"):
        return Column(values.detach().cpu().numpy())
    values = list(values)
    is_plain = all(isinstance(value, (bool, int, float, str, np.generic, np.ndarray)) for value in values)
    array = stacked(values) if is_plain else None
    return Column(values if array is None or array.dtype == object else array)


def stacked(values: Sequence[Any]) -> npt.NDArray[Any]:
    """An array with a row for each value; of dtype object if they have no common shape, or are no numbers or texts."""
    try:
        array = np.array([np.asarray(value) for value in values])
    except ValueError:
        array = np.empty(0, object)
    if array.dtype != object:
        return array
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def is_picture(shape: Sequence[int], dtype: Any) -> bool:
    """Whether an array of examples can be images: bytes of height x width, or with 1, 3 or 4 channels."""
    channels = {1, 3, 4}
    return dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and bool({shape[1], shape[3]} & channels)))


def channels_last(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images of (…, channels, height, width) as (…, height, width, channels); those without channels as they are."""
    if pixels.ndim < 3 or pixels.shape[-1] in (1, 3, 4) or pixels.shape[-3] not in (1, 3, 4):
        return np.array(pixels)
    return np.ascontiguousarray(np.moveaxis(pixels, -3, -1))


def pictured(pixels: npt.NDArray[Any]) -> Any:
    """An image of Pillow or, where it is not installed, its bytes as height x width (x channels)."""
    pixels = channels_last(pixels) if pixels.ndim == 3 else np.array(pixels)
    try:
        from PIL import Image as pillow
    except ImportError:
        return pixels
    return pillow.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
