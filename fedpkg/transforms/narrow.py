"""Fewer bits for each number: stochastic quantisation, signs, bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from fedpkg.registry import Count
from fedpkg.transforms.registry import ErrorFeedback, register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.transforms.message import Message, Way


Bucket = Annotated[
    Count,
    Meta(
        description="Number of consecutive numbers that share a scale. Smaller buckets are more accurate, but each "
        "sends 4 bytes more."
    ),
]


@register_transform(
    "quantise",
    equation="q = floor(L v / s + u), u ~ U[0, 1), s = max |v| of its bucket, L = 2^(bits - 1) - 1;  undone by q s / L",
    paper="Alistarh et al. 2017, QSGD: Communication-Efficient SGD via Gradient Quantization, arXiv:1610.02132",
)
@dataclass(frozen=True)
class Quantise:
    """Round each number to one of a few levels, up or down at random so that its expectation stays.

    The error is less than a level: s / 127 with 8 bits or s / 7 with 4 bits, where s is the largest magnitude in the
    bucket of the number.

    Args:
        bits: Bits of each number: 8 (255 levels) or 4 (15 levels).
    """

    bits: Literal[8, 4] = 8
    bucket: Bucket = 512
    error_feedback: ErrorFeedback = False

    stage: ClassVar[Stage] = Stage.NARROW
    of_update: ClassVar[bool] = False

    def apply(self, message: Message, way: Way) -> Message:
        import torch

        rows, levels = _rows(message.values, self.bucket), self._levels
        scales = rows.abs().amax(dim=1, keepdim=True).to(torch.float32)
        drawn = torch.from_numpy(way.rng(Stage.NARROW).random(rows.shape, dtype="float32")).to(rows.dtype)
        # A scale of 0 gives 0 / 0, and the sum of t < L and u < 1 may be rounded up to L + 1.
        steps = (
            (rows / scales.to(rows.dtype)).nan_to_num_(0.0).mul_(levels).add_(drawn).floor_().clamp_(-levels, levels)
        )
        codes = steps.to(torch.int8).reshape(-1)[: message.values.numel()]
        if self.bits == 4:
            codes = _pairs((codes + 8).to(torch.uint8))
        return message.replace(codes, scales=scales.reshape(-1))

    def undo(self, message: Message, way: Way) -> Message:
        import torch

        size = way.count
        scales = _scales(message, -(-size // self.bucket))
        if self.bits == 4:
            packed = message.numbers(torch.uint8, (-(-size // 2),))
            codes = torch.stack((packed >> 4, packed & 15), dim=1).reshape(-1)[:size].to(torch.int8) - 8
        else:
            codes = message.numbers(torch.int8, (size,))
        rows = _rows(codes.to(way.dtype), self.bucket)
        return message.replace((rows * (scales.to(way.dtype) / self._levels)).reshape(-1)[:size])

    @property
    def _levels(self) -> int:
        return int(2 ** (self.bits - 1)) - 1


@register_transform(
    "sign",
    equation="v <- s sign(v), s = mean |v| of its bucket",
    paper="Karimireddy et al. 2019, Error Feedback Fixes SignSGD, arXiv:1901.09847",
)
@dataclass(frozen=True)
class Sign:
    """Send the sign of each number, in one bit, and the mean of the magnitudes in each bucket.

    The result is biased, and numbers that did not change move as well. Error feedback corrects for both.
    """

    bucket: Bucket = 512
    error_feedback: ErrorFeedback = True

    stage: ClassVar[Stage] = Stage.NARROW
    of_update: ClassVar[bool] = True

    def apply(self, message: Message, way: Way) -> Message:
        import numpy as np
        import torch

        rows, size = _rows(message.values, self.bucket), message.values.numel()
        sums = rows.abs().sum(dim=1)
        counts = torch.full_like(sums, self.bucket)
        if size % self.bucket:
            counts[-1] = size % self.bucket
        bits = np.packbits((message.values >= 0).numpy())
        return message.replace(torch.from_numpy(bits), scales=(sums / counts).to(torch.float32))

    def undo(self, message: Message, way: Way) -> Message:
        import numpy as np
        import torch

        size = way.count
        scales = _scales(message, -(-size // self.bucket))
        bits = message.numbers(torch.uint8, (-(-size // 8),)).contiguous().numpy()
        signs = torch.from_numpy(np.unpackbits(bits, count=size)).to(way.dtype).mul_(2).sub_(1)
        return message.replace((_rows(signs, self.bucket) * scales.to(way.dtype)).reshape(-1)[:size])


@register_transform("bfloat16", equation="v <- v rounded to 8 significant bits")
@dataclass(frozen=True)
class BFloat16:
    """Send numbers in half the bytes of float32, with its range and a relative error of at most 2^-8."""

    stage: ClassVar[Stage] = Stage.NARROW
    of_update: ClassVar[bool] = False

    def apply(self, message: Message, way: Way) -> Message:
        import torch

        return message.replace(message.values.to(torch.bfloat16))

    def undo(self, message: Message, way: Way) -> Message:
        import torch

        return message.replace(message.numbers(torch.bfloat16, (way.count,)).to(way.dtype))


def _rows(values: Tensor, bucket: int) -> Tensor:
    """(buckets, bucket): the numbers, padded with zeros."""
    import torch

    return torch.nn.functional.pad(values, (0, -len(values) % bucket)).reshape(-1, bucket)


def _pairs(codes: Tensor) -> Tensor:
    """Two codes of four bits in each byte."""
    import torch

    codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    return (codes[0::2] << 4) | codes[1::2]


def _scales(message: Message, count: int) -> Tensor:
    import torch

    from fedpkg.errors import ModelFileError

    scales = message.part("scales", torch.float32, (count,))
    if not bool(torch.isfinite(scales).all()):
        raise ModelFileError("what was sent does not fit the transforms: a scale is not finite")
    return scales[:, None]
