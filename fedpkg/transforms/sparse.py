"""Sparse updates: only the largest numbers are sent, or a random choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from fedpkg.registry import Share
from fedpkg.shares import share_of
from fedpkg.transforms.registry import ErrorFeedback, register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fedpkg.transforms.message import Message, Way


ShareSent = Annotated[
    Share, Meta(description="Share of an update's numbers to send, at least one. 0.01 to 0.1 is usual; 1 sends all.")
]


@dataclass(frozen=True)
class _Chosen:
    share: ShareSent

    stage: ClassVar[Stage] = Stage.CHOOSE
    of_update: ClassVar[bool] = True

    def count(self, size: int) -> int:
        """How many of ``size`` numbers are sent: at least one, if there are any."""
        return min(size, max(1, share_of(self.share, size)))


@register_transform(
    "top_k",
    equation="u = d_k + e_k;  sent: the m largest |u[i]|, others 0;  e_k <- u - sent",
    paper="Stich et al. 2018, Sparsified SGD with Memory, arXiv:1809.07599",
)
@dataclass(frozen=True)
class TopK(_Chosen):
    """Send a share of an update's numbers, the largest ones.

    Their places are sent with them, in 4 bytes each (8 for updates of 2^31 numbers or more).
    """

    error_feedback: ErrorFeedback = True

    def apply(self, message: Message, way: Way) -> Message:
        import torch

        values = message.values
        chosen = torch.topk(values.abs(), way.count, sorted=False).indices.sort().values
        return message.replace(values[chosen], places=chosen.to(_place_dtype(way.size)))

    def undo(self, message: Message, way: Way) -> Message:
        from fedpkg.errors import ModelFileError

        count = way.count
        places = message.part("places", _place_dtype(way.size), (count,)).long()
        if count and not (int(places[0]) >= 0 and int(places[-1]) < way.size and bool((places.diff() > 0).all())):
            raise ModelFileError("what was sent does not fit the transforms: places of numbers are not in order")
        return message.replace(_spread(message.numbers(way.dtype, (count,)), places, way))


@register_transform(
    "random_k",
    equation="sent: m of the n numbers of d_k at random, times n / m (with error feedback times 1), others 0",
    paper="Konecny et al. 2016, Federated Learning: Strategies for Improving Communication Efficiency, "
    "arXiv:1610.05492",
)
@dataclass(frozen=True)
class RandomK(_Chosen):
    """Send a share of an update's numbers, drawn at random each time.

    Instead of their places, the seed of the draw is sent. The numbers are scaled so that their expectation is the
    update. With ``error_feedback`` they are not scaled, and what was lost is added to the next update.
    """

    error_feedback: ErrorFeedback = False

    def apply(self, message: Message, way: Way) -> Message:
        import torch

        seed = int(way.rng(Stage.CHOOSE).integers(1 << 62))
        values = message.values[_drawn(seed, way.count, way.size)]
        factor = 1.0 if self.error_feedback or not way.count else way.size / way.count
        return message.replace(values * factor, draw=torch.tensor([seed]))

    def undo(self, message: Message, way: Way) -> Message:
        import torch

        seed = int(message.part("draw", torch.int64, (1,)))
        places = _drawn(seed & ((1 << 62) - 1), way.count, way.size)
        return message.replace(_spread(message.numbers(way.dtype, (way.count,)), places, way))


def _drawn(seed: int, count: int, size: int) -> Tensor:
    """``count`` random places in order: those of the smallest of ``size`` random numbers.

    Both ends draw. They use the output of the bit generator itself, which NumPy keeps from version to version.
    """
    import numpy as np
    import torch

    if count == size:
        return torch.arange(size)
    keys = np.random.PCG64(seed).random_raw(size)
    bound = np.partition(keys, count - 1)[count - 1]
    return torch.from_numpy(np.flatnonzero(keys <= bound)[:count])


def _spread(values: Tensor, places: Tensor, way: Way) -> Tensor:
    import torch

    return torch.zeros(way.size, dtype=way.dtype).index_copy_(0, places, values)


def _place_dtype(size: int) -> torch.dtype:
    import torch

    return torch.int32 if size < 1 << 31 else torch.int64
