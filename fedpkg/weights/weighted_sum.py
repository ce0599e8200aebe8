"""sum_k n_k w_k in memory: the dtypes of sums, the tensors that are averaged, and the additions themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedpkg.weights.weights import Weights

# Updates are added two at a time, piece by piece: the sum's piece (2 MiB of float32) then stays in a core's cache, as
# do values converted from a narrow dtype. The memory bandwidth is used for little more than reading the updates.
_TOGETHER = 2
_PIECE = 1 << 19
_WIDE = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class Layout:
    """The memory layout of one fold's sums; it keeps the memory of a sum that is no longer needed for the next one."""

    def __init__(self, template: Weights) -> None:
        self.template = template
        constant = template.non_finite_buffers()
        self.dtypes = {name: sum_dtype(t) for name, t in template.items() if is_averaged(t) and name not in constant}
        self.averaged = list(self.dtypes)
        self.small = [
            name for name in self.averaged if template[name].numel() <= _PIECE and template[name].dtype in _WIDE
        ]
        self.large = [name for name in self.averaged if name not in self.small]
        self.chosen = [name for name in template if name not in self.dtypes]
        self.spare: dict[str, Tensor] | None = None

    def memory(self) -> dict[str, Tensor]:
        memory, self.spare = self.spare, None
        return memory or {
            name: torch.empty(tensor.shape, dtype=self.dtypes.get(name, tensor.dtype), device=tensor.device)
            for name, tensor in self.template.items()
        }

    def misfit(self, sums: Weights) -> str | None:
        """The reason why the tensors of a sum do not have this layout, as text; None if they do."""
        expected = {
            name: torch.empty(tensor.shape, dtype=self.dtypes.get(name, tensor.dtype), device="meta")
            for name, tensor in self.template.items()
        }
        return sums.mismatch(Weights(expected))


@dataclass
class WeightedSum:
    """sum_k n_k w_k and sum_k n_k over some contributors.

    Attributes:
        count: The number of contributors.
        weight: sum_k n_k.
        numbers: Further numbers of each contributor, in their order.
        largest: The largest n_k of those in ``tensors``.
        tensors: The sums (for a single contributor: its tensors, unscaled), and the chosen tensors; initially empty.
        waiting: Up to two contributors, with their weights, that `add_waiting` adds to ``tensors``.
    """

    layout: Layout
    count: int
    weight: float
    numbers: dict[str, list[float]]
    largest: float = 0.0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    waiting: list[tuple[Mapping[str, Tensor], float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unscaled = self.weight if self.count == 1 else None

    def plus_one(self, other: WeightedSum) -> WeightedSum:
        """This sum of a block's contributors, and the next one of them."""
        self.waiting.append(other.waiting[0] if other.waiting else (other.tensors, other.weight))
        if len(self.waiting) == _TOGETHER:
            self.add_waiting()
        return self._counting(other)

    def plus(self, other: WeightedSum) -> WeightedSum:
        """This sum plus one over later contributors, whose memory can then be reused."""
        for each in (self, other):
            each.add_waiting()
            each._scale()
        if self.layout.averaged:
            torch._foreach_add_(self._averaged(), other._averaged())
        if other.largest > self.largest:
            for name in self.layout.chosen:
                self.tensors[name], other.tensors[name] = other.tensors[name], self.tensors[name]
            self.largest = other.largest
        self.layout.spare = other.tensors
        return self._counting(other)

    def add_waiting(self) -> None:
        """Add the waiting contributors."""
        terms, self.waiting = self.waiting, []
        if not terms:
            return
        is_first = not self.tensors
        if is_first:
            self.tensors = self.layout.memory()
            self._unscaled = terms[0][1] if len(terms) == 1 else None
        else:
            self._scale()
        self._add_small(terms, is_first)
        self._add_large(terms, is_first)
        for update, weight in terms:
            if weight > self.largest:
                for name in self.layout.chosen:
                    self.tensors[name].copy_(update[name])
                self.largest = weight

    def _add_small(self, terms: Sequence[tuple[Mapping[str, Tensor], float]], is_first: bool) -> None:
        names = self.layout.small
        if not names:
            return
        sums = [self.tensors[name] for name in names]
        for number, (update, weight) in enumerate(terms):
            if not (is_first and number == 0):
                torch._foreach_add_(sums, [update[name] for name in names], alpha=weight)
                continue
            torch._foreach_copy_(sums, [update[name] for name in names])
            if self._unscaled is None:
                torch._foreach_mul_(sums, weight)

    def _add_large(self, terms: Sequence[tuple[Mapping[str, Tensor], float]], is_first: bool) -> None:
        for name in self.layout.large:
            pieces = torch.split(self.tensors[name].view(-1), _PIECE)
            split = [(torch.split(update[name].reshape(-1), _PIECE), weight) for update, weight in terms]
            for place, piece in enumerate(pieces):
                for number, (its_pieces, weight) in enumerate(split):
                    if not (is_first and number == 0):
                        piece.add_(its_pieces[place].to(piece.dtype), alpha=weight)
                        continue
                    piece.copy_(its_pieces[place])
                    if self._unscaled is None:
                        piece.mul_(weight)

    def mean(self) -> dict[str, Tensor]:
        """The mean, computed in place and cast to the template's dtypes."""
        self.add_waiting()
        if self.layout.averaged and self.count > 1:
            torch._foreach_div_(self._averaged(), self.weight)
        return {name: self.tensors[name].to(tensor.dtype) for name, tensor in self.layout.template.items()}

    def _averaged(self) -> list[Tensor]:
        return [self.tensors[name] for name in self.layout.averaged]

    def _scale(self) -> None:
        if self._unscaled is not None and self.layout.averaged:
            torch._foreach_mul_(self._averaged(), self._unscaled)
        self._unscaled = None

    def _counting(self, other: WeightedSum) -> WeightedSum:
        """This sum, after ``other`` was added to it."""
        self.count += other.count
        self.weight += other.weight
        for name, values in other.numbers.items():
            self.numbers.setdefault(name, []).extend(values)
        return self


def is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of a tensor's weighted sum."""
    if tensor.dtype in _WIDE:
        return tensor.dtype
    return torch.complex64 if tensor.is_complex() else torch.float32
