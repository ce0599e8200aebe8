"""Clipping, Gaussian noise, and local differential privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec

from fedpkg.registry import NotNegative, Positive
from fedpkg.transforms.registry import register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fedpkg.transforms.message import Message, Way

Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]
FailureProbability = Annotated[
    Probability,
    msgspec.Meta(
        description="Probability delta that the guarantee of epsilon does not hold. Keep it well below 1 / the number "
        "of clients."
    ),
]
ClippingNorm = Annotated[
    Positive,
    msgspec.Meta(
        description="Largest L2 norm C of an update, over all its parameters. A small value slows down learning; a "
        "value above the norms of all updates clips nothing."
    ),
]


@register_transform("clip", equation="d_k <- d_k min(1, C / |d_k|)")
@dataclass(frozen=True)
class Clip:
    """Scale an update down to a largest L2 norm.

    Buffers are not clipped. The metadata of the reply record whether the update was (``clipped``: 1 or 0).
    """

    norm: ClippingNorm

    stage: ClassVar[Stage] = Stage.BOUND
    of_update: ClassVar[bool] = True

    def apply(self, message: Message, way: Way) -> Message:
        values, clipped = clipped_to(message.values, self.norm)
        return message.replace(values).saying(clipped=int(clipped))

    def undo(self, message: Message, way: Way) -> Message:
        return message


@register_transform("gaussian_noise", equation="d_k <- d_k + N(0, sigma^2 I)")
@dataclass(frozen=True)
class GaussianNoise:
    """Add Gaussian noise, drawn from the session's seed, to each number.

    Args:
        std: Standard deviation sigma of the noise, in units of the weights. 0: no noise.
    """

    std: NotNegative

    stage: ClassVar[Stage] = Stage.NOISE
    of_update: ClassVar[bool] = True

    def apply(self, message: Message, way: Way) -> Message:
        return message.replace(with_noise(message.values, self.std, way.rng(self.stage)))

    def undo(self, message: Message, way: Way) -> Message:
        return message


@register_transform(
    "local_dp",
    equation="d_k <- d_k min(1, C / |d_k|) + N(0, sigma^2 I),  sigma the least for (epsilon, delta), sensitivity 2 C",
    paper="Balle, Wang 2018, Improving the Gaussian Mechanism for Differential Privacy, arXiv:1805.06530, Alg. 1",
)
@dataclass(frozen=True)
class LocalDp:
    """Make each update (epsilon, delta)-differentially private before it leaves its client.

    Two updates with a norm of at most C differ by at most 2 C. The guarantee is for one round and for the parameters:
    buffers, numbers of examples and metrics are not covered. The noise comes from the session's seed, so that a run can
    be repeated; anyone who knows the seed can subtract it.

    Args:
        epsilon: Privacy loss epsilon of each update, which every round adds again. From 1 to 10 is usual: a smaller
            value adds more noise.
    """

    norm: ClippingNorm
    epsilon: Positive
    delta: FailureProbability = 1e-5

    stage: ClassVar[Stage] = Stage.BOUND
    of_update: ClassVar[bool] = True

    def apply(self, message: Message, way: Way) -> Message:
        values, clipped = clipped_to(message.values, self.norm)
        std = gaussian_std(self.epsilon, self.delta, sensitivity=2 * self.norm)
        return message.replace(with_noise(values, std, way.rng(self.stage))).saying(clipped=int(clipped))

    def undo(self, message: Message, way: Way) -> Message:
        return message


def clipped_to(values: Tensor, norm: float) -> tuple[Tensor, bool]:
    """The vector, scaled down to ``norm`` if it is longer, and whether it was. A vector of zeros stays as it is."""
    import torch

    length = float(torch.linalg.vector_norm(values, dtype=torch.float64))
    return (values * (norm / length), True) if length > norm else (values, False)


def with_noise(tensor: Tensor, std: float, rng: np.random.Generator) -> Tensor:
    """A tensor in float32 or float64 plus Gaussian noise, drawn in its dtype."""
    import numpy as np
    import torch

    if std == 0:
        return tensor
    dtype: Any = np.float64 if tensor.dtype == torch.float64 else np.float32
    drawn = np.asarray(rng.standard_normal(tuple(tensor.shape), dtype=dtype))  # a plain number if it has no dimensions
    return tensor + std * torch.from_numpy(drawn)


def gaussian_std(epsilon: float, delta: float, *, sensitivity: float) -> float:
    """The least standard deviation with which Gaussian noise is (epsilon, delta)-differentially private.

    By bisection of the exact condition (Balle, Wang 2018, Theorem 8), which unlike sqrt(2 ln(1.25 / delta)) / epsilon
    holds for every epsilon.
    """

    def excess(std: float) -> float:
        """The delta of this noise at epsilon."""
        a, b = sensitivity / (2 * std), epsilon * std / sensitivity
        tail = _normal_cdf(-a - b)
        return _normal_cdf(a - b) - (math.exp(min(epsilon + math.log(tail), 700.0)) if tail > 0 else 0.0)

    low, high = 0.0, sensitivity
    while excess(high) > delta:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if excess(middle) > delta else (low, middle)
    return high


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
