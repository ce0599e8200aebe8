"""Clients differ in their features: images are turned by an angle of the client's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from fedpkg.data.partitioners.inner import WithInner
from fedpkg.data.partitioners.registry import register_partitioner
from fedpkg.errors import DataError
from fedpkg.partitions.base import Values
from fedpkg.registry import Count

_Angle = Annotated[float, Meta(ge=-360, le=360)]


@register_partitioner(
    "rotation",
    equation="x~ = R(a_k) x,  a_k = angle k mod m of m",
    paper="Ghosh et al. 2020, An Efficient Framework for Clustered Federated Learning, arXiv:2006.04088",
)
@dataclass(frozen=True)
class RotationPartitioner(WithInner):
    """Another scheme divides the examples; then each client turns its images by an angle, as in rotated MNIST.

    Angles are assigned in turn: with the default angles, clients 0, 4, 8 … keep their images as they are. Multiples of
    90° move pixels (90° needs square images); other angles interpolate linearly between the four nearest pixels, with
    zeros outside of the image. Training and test examples of a client have the same angle.

    Args:
        angles: Angles in degrees, counterclockwise. null: [0, 90, 180, 270].
        shape: Height and width of an image whose pixels are stored as one row. null: such images are square.
        channels: Whether the channels of images with three axes come `first` or `last`.
    """

    angles: Annotated[list[_Angle], Meta(min_length=1)] | None = None
    shape: Annotated[list[Count], Meta(min_length=2, max_length=2)] | None = None
    channels: Literal["first", "last"] = "first"

    def transform(self, features: Values, client: int, num_partitions: int, rng: np.random.Generator) -> Values:
        angles = self.angles or (0.0, 90.0, 180.0, 270.0)
        angle = angles[client % len(angles)] % 360
        if angle == 0:
            return features
        images = self._as_images(features)
        height, width = images.shape[-2:]
        if angle % 180 == 90 and height != width:
            raise DataError(
                f"images of {height} x {width} pixels cannot be turned by {angle:g}°: they would get another shape",
                hint="use square images, or angles of 0 and 180",
            )
        turned = np.rot90(images, int(angle // 90), (-2, -1)) if angle % 90 == 0 else _turned(images, angle)
        if features.ndim == 4 and self.channels == "last":
            turned = np.moveaxis(turned, 1, -1)
        return np.ascontiguousarray(turned.reshape(features.shape), features.dtype)

    def _as_images(self, features: Values) -> Values:
        """The features as examples x height x width, or examples x channels x height x width."""
        if features.ndim == 4:
            return np.moveaxis(features, -1, 1) if self.channels == "last" else features
        if features.ndim == 3:
            return features
        height, width = self.shape or (math.isqrt(features.shape[-1]),) * 2
        if features.ndim != 2 or height * width != features.shape[1]:
            raise DataError(
                f"features of shape {tuple(features.shape[1:])} are no images that can be rotated",
                hint="give arrays of examples x height x width, or set partition.shape to [height, width]",
            )
        return features.reshape(len(features), height, width)


def _turned(images: Values, angle: float) -> Values:
    """Images turned counterclockwise around their middle, by linear interpolation."""
    height, width = images.shape[-2:]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    from_y, from_x = cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2
    top, left = np.floor(from_y).astype(int), np.floor(from_x).astype(int)
    turned = np.zeros(images.shape)
    for down in (0, 1):
        for right in (0, 1):
            rows, columns = top + down, left + right
            share = (1 - np.abs(from_y - rows)) * (1 - np.abs(from_x - columns))
            share *= (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            turned += share * images[..., rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.rint(turned) if images.dtype.kind in "iu" else turned
