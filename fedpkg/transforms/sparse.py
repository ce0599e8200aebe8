"""Some of the numbers alone: the largest ones, or some drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedpkg.registry import Share
from fedpkg.shares import share_of
from fedpkg.transforms.registry import register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fedpkg.transforms.message import Message, Way


@dataclass(frozen=True)
class _Chosen:
    share: Share

    stage: ClassVar[Stage] = Stage.CHOOSE
    of_update: ClassVar[bool] = True

    def count(self, size: int) -> int:
        """How many of so many numbers travel: at least one, if there are any."""
        return min(size, max(1, share_of(self.share, size)))


@register_transform(
    "top_k",
    equation="the k numbers of d_k + e_k with the largest |.|, others 0;  e_k <- what is lost",
    paper="Stich et al. 2018, Sparsified SGD with Memory, arXiv:1809.07599",
)
@dataclass(frozen=True)
class TopK(_Chosen):
    """The ``share`` of an update's numbers that are largest travel, with their places (4 bytes each; 8 from 2^31 on).

    With ``error_feedback`` a client keeps what was lost, and adds it next time it is asked; it is part of its state.
    """

    error_feedback: bool = True

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
    equation="k of the n numbers of d_k at random, times n / k (not so with error feedback), others 0",
    paper="Konecny et al. 2016, Federated Learning: Strategies for Improving Communication Efficiency, "
    "arXiv:1610.05492",
)
@dataclass(frozen=True)
class RandomK(_Chosen):
    """A ``share`` of an update's numbers travels, drawn anew each time. Of their places only the draw's seed is sent.

    The numbers are scaled so that the mean over draws is the update itself; or, with ``error_feedback``, sent as they
    are, and what was lost is added next time.
    """

    error_feedback: bool = False

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
    """So many places at random, in order: those of the smallest of n random numbers.

    The numbers are a bit generator's own: NumPy promises to keep these from version to version, and both ends draw.
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
