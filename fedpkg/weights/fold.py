"""The weighted mean of model updates, as a fold whose partial sums can be made anywhere and still agree bit for bit."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.weights.weights import Weights, dtype_name

BLOCK = 16
"""Cohort positions 16b … 16b+15 form block b. It is part of the result's definition: never change it."""

MIN_WEIGHT, MAX_WEIGHT = 2.0**-64, 2.0**64
"""Beyond these, n_k w_k leaves the range of float32."""

# Updates are added two at a time, and of these a piece at a time: the sum's piece (2 MiB of float32) then stays in a
# core's cache, as does what is converted from a narrow dtype. Memory has to carry little more than the updates.
_TOGETHER = 2
_PIECE = 1 << 19
_T = TypeVar("_T", float, Tensor)
_WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class MeanFold:
    """FedAvg's average of client weights, folded one update at a time.

        w_{t+1} = sum_k (n_k / n) w_k,  n = sum_k n_k          [McMahan et al. 2017, arXiv:1602.05629, Alg. 1]

    The sum has a fixed shape: within a block of 16 cohort positions s = n_1 w_1, then s += n_k w_k (a fused
    multiply-add) in the order of positions; then the block partials are added in order. So a flat fold, a fold per node
    and a tree agree bit for bit, as long as partials are merged block by block.

    Floating tensors accumulate in float32 (float64 and complex stay) and return in their own dtype. Integer and boolean
    tensors, and the template's constant buffers (those that are not finite), come from the contributor with the largest
    weight, the first of them if several have it. A single contributor is returned as it is.

    Memory: one accumulator, and one block partial from the second block on. One update waits for another, to be added
    with it.
    """

    def __init__(self, template: Weights) -> None:
        self._template = template
        self._constant = template.non_finite_buffers()
        self._clear()

    def _clear(self) -> None:
        self._done: _Partial | None = None  # the closed blocks, added up
        self._open: _Partial | None = None  # the block that takes positions now
        self._spare: _Partial | None = None  # a closed block's memory, for the next one
        self._first_block = 0
        self._last_block = -1
        self._next_position = 0

    @property
    def num_contributors(self) -> int:
        return sum(partial.count for partial in (self._done, self._open) if partial)

    @property
    def weight(self) -> float:
        """n, the sum of the contributors' weights."""
        return sum(partial.weight for partial in (self._done, self._open) if partial)

    def add(self, position: int, update: Weights, weight: float) -> None:
        """Fold in one client's update; ``position`` is the client's place in the cohort.

        Raises:
            AggregationError: the weight is not a usable number, the update does not fit the template, or the position
                does not come after those already folded.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise AggregationError(
                f"cohort position {position}: weight {weight} is not a finite number above zero", position=position
            )
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise AggregationError(f"cohort position {position}: weight {weight} is out of range", position=position)
        if reason := update.mismatch(self._template):
            raise AggregationError(f"cohort position {position}: {reason}", position=position)
        if position < self._next_position:
            raise AggregationError(f"cohort position {position} comes after a later one was folded", position=position)

        block = position // BLOCK
        if self._last_block != block:
            self._close_block()
            if self._done is None:
                self._first_block = block
            self._last_block = block
        if self._open is None:
            self._open, self._spare = self._spare or _Partial(self._template, self._constant), None
        self._open.add(update, float(weight))
        self._next_position = position + 1

    def merge(self, other: MeanFold) -> None:
        """Fold in the partial sum of later blocks, and leave ``other`` empty: its memory is taken over.

        Raises:
            AggregationError: ``other`` does not start after this fold's last block, has another template, or holds
                several blocks while this fold is not empty (adding up sums of several blocks rounds differently).
        """
        if other.num_contributors == 0:
            return
        if reason := other._template.mismatch(self._template):
            raise AggregationError(f"a partial mean does not fit: {reason}")
        if self.num_contributors and other._first_block <= self._last_block:
            raise AggregationError(
                f"a partial mean starts at block {other._first_block}, but block {self._last_block} was already folded",
                hint="merge partial means in the order of their blocks, and split a cohort between blocks only",
            )
        if self.num_contributors and other._first_block != other._last_block:
            raise AggregationError(
                f"a partial mean covers blocks {other._first_block} to {other._last_block}; it must cover one",
                hint="merge one fold per block: the result is then the same bits as that of a flat fold",
            )
        other._close_block()
        self._close_block()
        if self._done is None:
            self._first_block = other._first_block
        self._open, other._done = other._done, None
        self._last_block = other._last_block
        self._close_block()
        self._next_position = (self._last_block + 1) * BLOCK
        other._clear()

    def result(self) -> Weights:
        """The mean. The fold is empty afterwards: the mean takes over its memory.

        Raises:
            AggregationError: no contributors, or the mean of a tensor is not finite in its dtype.
        """
        self._close_block()
        if self._done is None:
            raise AggregationError("no updates to average", hint="at least one client must answer with a usable update")
        mean = Weights(self._done.mean(), buffers=self._template.buffers)
        self._clear()
        if name := mean.first_non_finite(self._template):
            raise AggregationError(
                f"the mean of tensor {name!r} is not finite in {dtype_name(mean[name])}",
                hint="the clients' weights diverge: a smaller learning rate may help",
                tensor=name,
            )
        return mean

    def _close_block(self) -> None:
        """Add the open block's partial to the sum of those before it."""
        if self._open is None:
            return
        self._open.add_pending()
        if self._done is None:
            self._done = self._open  # 0 + s == s: no second buffer, no pass over memory
        else:
            self._done.merge(self._open)
            self._spare = self._open
            self._spare.clear()
        self._open = None


class _Partial:
    """sum_k n_k w_k and sum_k n_k over some contributors, in memory that can be used again.

    After the last `add`, and before `merge` or `mean`, `add_pending` adds what still waits.
    """

    def __init__(self, template: Weights, constant: Collection[str]) -> None:
        self._template = template
        self._sums = {
            name: torch.empty(t.shape, dtype=_sum_dtype(t), device=t.device)
            for name, t in template.items()
            if _is_averaged(t) and name not in constant
        }
        self._small = [name for name, t in self._sums.items() if t.numel() <= _PIECE and template[name].dtype in _WIDE]
        self._large = [name for name in self._sums if name not in self._small]
        self._chosen = {name: torch.empty_like(t) for name, t in template.items() if name not in self._sums}
        self.clear()

    def clear(self) -> None:
        """Forget all contributors, and keep the memory."""
        self._pending: list[tuple[Weights, float]] = []
        self._is_empty = True  # the sums hold nothing yet
        self._unscaled: float | None = None  # weight of the only contributor in the sums, who alone is the mean
        self._chosen_weight = 0.0
        self.count = 0
        self.weight = 0.0

    def add(self, update: Weights, weight: float) -> None:
        """Add a later contributor."""
        if weight > self._chosen_weight:
            for name, tensor in self._chosen.items():
                tensor.copy_(update[name])
            self._chosen_weight = weight
        self.count += 1
        self.weight += weight
        self._pending.append((update, weight))
        if len(self._pending) == _TOGETHER:
            self.add_pending()

    def add_pending(self) -> None:
        """Add those who wait for others."""
        terms, self._pending = self._pending, []
        if not (terms and self._sums):
            return
        self._scale()
        if self._is_empty and len(terms) == 1:
            self._unscaled = terms[0][1]
        small = [self._sums[name] for name in self._small]
        for number, (update, weight) in enumerate(terms):
            if not small:
                break
            if self._is_empty and number == 0:
                torch._foreach_copy_(small, [update[name] for name in self._small])
                if self._unscaled is None:
                    torch._foreach_mul_(small, weight)
            else:
                torch._foreach_add_(small, [update[name] for name in self._small], alpha=weight)
        for name in self._large:
            pieces = torch.split(self._sums[name].view(-1), _PIECE)
            split = [(torch.split(update[name].reshape(-1), _PIECE), weight) for update, weight in terms]
            for place, piece in enumerate(pieces):
                for number, (its_pieces, weight) in enumerate(split):
                    if self._is_empty and number == 0:
                        piece.copy_(its_pieces[place])
                        if self._unscaled is None:
                            piece.mul_(weight)
                    else:
                        piece.add_(its_pieces[place].to(piece.dtype), alpha=weight)
        self._is_empty = False

    def merge(self, other: _Partial) -> None:
        """Add a partial of later contributors, whose memory is then free to be used again."""
        self._scale()
        other._scale()
        if self._sums:
            torch._foreach_add_(list(self._sums.values()), list(other._sums.values()))
        if other._chosen_weight > self._chosen_weight:
            self._chosen, other._chosen = other._chosen, self._chosen
            self._chosen_weight = other._chosen_weight
        self.count += other.count
        self.weight += other.weight

    def mean(self) -> dict[str, Tensor]:
        """The mean, made in place and cast to the template's dtypes."""
        if self._sums and self.count > 1:
            torch._foreach_div_(list(self._sums.values()), self.weight)
        means = self._sums | self._chosen
        return {name: means[name].to(tensor.dtype) for name, tensor in self._template.items()}

    def _scale(self) -> None:
        if self._unscaled is not None:
            torch._foreach_mul_(list(self._sums.values()), self._unscaled)
            self._unscaled = None


def weighted_mean_reference(updates: Sequence[tuple[int, Weights, float]], template: Weights) -> Weights:
    """What ``MeanFold`` computes, said plainly: ``updates`` are (position, update, weight) in order of positions."""
    if not updates:
        raise AggregationError("no updates to average")
    if len(updates) == 1:
        return updates[0][1].clone().reordered_like(template)

    blocks = [list(block) for _, block in itertools.groupby(updates, key=lambda entry: entry[0] // BLOCK)]
    total = _sum(_sum(weight for _, _, weight in block) for block in blocks)
    largest = max(updates, key=lambda entry: entry[2])[1]  # the first of them
    constant = template.non_finite_buffers()

    def mean(name: str, expected: Tensor) -> Tensor:
        if not _is_averaged(expected) or name in constant:
            return largest[name].clone()
        dtype = _sum_dtype(expected)
        partials = []
        for (_, first, weight), *others in blocks:
            partial = first[name].to(dtype) * weight
            for _, update, weight in others:
                partial = torch.add(partial, update[name].to(dtype), alpha=weight)
            partials.append(partial)
        return (_sum(partials) / total).to(expected.dtype)

    return Weights({name: mean(name, tensor) for name, tensor in template.items()}, buffers=template.buffers)


def _sum(terms: Iterable[_T]) -> _T:
    """Left to right, from the first term on (the built-in sum() of floats compensates since Python 3.12)."""
    return functools.reduce(operator.add, terms)


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that a tensor's weighted sum is made in."""
    if tensor.dtype in _WIDE:
        return tensor.dtype
    return torch.complex64 if tensor.is_complex() else torch.float32
