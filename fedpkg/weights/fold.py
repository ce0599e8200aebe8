"""The weighted mean of model updates, as a 16-ary sum: computed in any parts, the mean has the same bits."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.weights.weighted_sum import Layout, WeightedSum
from fedpkg.weights.weights import Weights, dtype_name

BLOCK = 16
"""The number of terms of a sum: 16 cohort positions are a block. The result depends on it, so it must never change."""

MIN_WEIGHT, MAX_WEIGHT = 2.0**-64, 2.0**64
"""Outside these bounds, n_k w_k can leave the range of float32."""

_T = TypeVar("_T", float, Tensor)


@dataclass(frozen=True)
class Partial:
    """The contribution of a range of cohort positions to a mean: named tensors and numbers only.

    `fedpkg.formats.partial_file` writes and reads it.

    Attributes:
        start, stop: The positions are ``start`` … ``stop - 1``: 16^k positions starting at a multiple of 16^k, or some
            of the 16 parts of such a range, from its first on.
        count: The number of contributors.
        weight: sum_k n_k.
        largest: The largest n_k.
        sums: sum_k n_k w_k of the tensors that are averaged, in the dtypes of their sums (of a single contributor:
            w_k); the other tensors are those of the contributor with the largest weight.
        numbers: Further numbers of each contributor, in the order of positions.
    """

    start: int
    stop: int
    count: int = 0
    weight: float = 0.0
    largest: float = 0.0
    sums: Weights = field(default_factory=lambda: Weights({}))
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)


class MeanFold:
    """FedAvg's average of client weights, folded one update or one partial sum at a time.

        w_{t+1} = sum_k (n_k / n) w_k,  n = sum_k n_k          [McMahan et al. 2017, arXiv:1602.05629, Alg. 1]

    The sum has a fixed shape, a 16-ary tree over the cohort's positions. Within a block of 16 positions s = n_1 w_1,
    then s += n_k w_k (a fused multiply-add) in the order of positions. Then the sums of 16 blocks are added in order,
    then the sums of 16 of those, and so on. Positions without a contributor are skipped. So folds of any aligned ranges
    of positions, merged in any order, give the same bits as one fold of all updates.

    Floating-point tensors are summed in float32 (float64 and complex in their own dtype); the mean has their own dtype.
    Integer and boolean tensors, and the template's constant buffers (those that are not finite), are those of the
    contributor with the largest weight, or the first such contributor. A single contributor is returned unchanged.

    Memory: one sum for each level of the tree with more than one part: one up to 16 positions, two up to 256. One
    update waits for the next, to be added together. A fold that starts inside a block keeps one sum for each
    contributor up to the block's end, and likewise for each level above.

    Args:
        template: The model that every update must fit.
        start: The first cohort position of this fold.
    """

    def __init__(self, template: Weights, *, start: int = 0) -> None:
        self._layout = Layout(template)
        self._start = self._stop = start  # what is folded: positions start … stop-1
        self._pieces: list[_Piece] = []  # of these positions, in order: with start 0, one for each level
        self._waiting: dict[int, Partial] = {}  # by its start: comes after positions that are not yet there

    @property
    def num_contributors(self) -> int:
        return sum(piece.sum.count for piece in self._pieces if piece.sum)

    @property
    def numbers(self) -> dict[str, list[float]]:
        """The contributors' further numbers, in the order of positions."""
        found: dict[str, list[float]] = {}
        for piece in self._pieces:
            for name, values in piece.sum.numbers.items() if piece.sum else ():
                found.setdefault(name, []).extend(values)
        return found

    def add(self, position: int, update: Weights, weight: float, numbers: Mapping[str, float] | None = None) -> None:
        """Fold in one client's update; ``position`` is the client's place in the cohort.

        Positions between those already folded and this one count as clients that did not contribute.

        Args:
            numbers: Further numbers of this contributor; the names must be the same for each contributor.

        Raises:
            AggregationError: If the weight is not a usable number, the update does not fit the template, or the
                position is not after those already folded.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise AggregationError(
                f"cohort position {position}: weight {weight} is not a finite number above zero", position=position
            )
        if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise AggregationError(f"cohort position {position}: weight {weight} is out of range", position=position)
        check_fits(position, update, self._layout.template)
        if position < self._stop:
            raise AggregationError(f"cohort position {position} is not after those already folded", position=position)
        self._refuse_gaps()

        self._skip_to(position)
        own = {name: [number] for name, number in (numbers or {}).items()}
        one = WeightedSum(self._layout, 1, float(weight), own, waiting=[(update, float(weight))])
        self._push(_Piece(position, position + 1, one))

    def merge(self, partial: Partial) -> None:
        """Fold in the sum over a range of positions, and take over its memory: ``partial`` must not be used afterwards.

        Partial sums may come in any order: each waits for those of all positions before it.

        Raises:
            AggregationError: If it does not fit the template, its range is not part of the tree, or some of its
                positions are already folded.
        """
        if partial.count and (reason := self._layout.misfit(partial.sums)):
            raise AggregationError(f"a partial mean does not fit: {reason}")
        if not _is_in_tree(partial.start, partial.stop):
            raise AggregationError(
                f"a partial mean of {_positions(partial.start, partial.stop)} is not a part of a 16-ary sum",
                hint="`MeanFold.partials` splits any range of positions into parts that can be merged",
            )
        folded = [(self._start, self._stop), *((other.start, other.stop) for other in self._waiting.values())]
        if partial.start < self._start:
            raise AggregationError(
                f"a partial mean of {_positions(partial.start, partial.stop)} is not for this fold, which starts at "
                f"position {self._start}"
            )
        for start, stop in folded:
            if partial.start < stop and start < partial.stop:
                overlap = _positions(max(start, partial.start), min(stop, partial.stop))
                raise AggregationError(
                    f"a partial mean of {_positions(partial.start, partial.stop)} overlaps positions already folded: "
                    f"{overlap}",
                    hint="each position of a cohort can be folded only once",
                )
        self._waiting[partial.start] = partial
        while (following := self._waiting.pop(self._stop, None)) is not None:
            self._push(_Piece.of(following, self._layout))

    def partials(self, stop: int | None = None) -> list[Partial]:
        """The sums over all positions so far, which take over the memory; the fold then continues after them.

        For 16^k positions starting at a multiple of 16^k it is one sum; for other ranges, the smallest number of sums
        that can be merged.

        Args:
            stop: Positions before it that are not folded count as clients that did not contribute.

        Raises:
            AggregationError: If ``stop`` is before the last position, or positions are missing.
        """
        if stop is not None and stop < self._stop:
            raise AggregationError(
                f"a partial mean cannot end at position {stop - 1}: position {self._stop - 1} is already folded"
            )
        self._refuse_gaps()
        self._skip_to(self._stop if stop is None else stop)
        pieces, self._pieces, self._start = self._pieces, [], self._stop
        return [piece.partial() for piece in pieces]

    def result(self, stop: int | None = None) -> Weights:
        """The mean. The fold is empty afterwards: the mean takes over its memory.

        Args:
            stop: The number of positions, all of which must be covered; None: positions after the last one count as
                clients that did not contribute.

        Raises:
            AggregationError: If there are no contributors, positions are missing, or the mean of a tensor is not finite
                in its dtype.
        """
        self._refuse_gaps()
        if self._start:
            raise _missing(0, self._start)
        if stop is not None and stop > self._stop:
            raise _missing(self._stop, stop)
        pieces, self._pieces, self._start, self._stop = self._pieces, [], 0, 0
        sums = [piece.sum for piece in pieces if piece.sum]
        if not sums:
            raise AggregationError("no updates to average", hint="at least one client must answer with a usable update")
        template = self._layout.template
        total = functools.reduce(lambda later, before: before.plus(later), reversed(sums))
        mean = Weights(total.mean(), buffers=template.buffers)
        if name := mean.first_non_finite(template):
            raise AggregationError(
                f"the mean of tensor {name!r} is not finite in {dtype_name(mean[name])}",
                hint="the clients' weights diverge; a smaller learning rate may help",
                tensor=name,
            )
        return mean

    def _push(self, piece: _Piece) -> None:
        """Append the next piece, and add up completed sums."""
        self._stop = piece.stop
        while self._pieces and self._pieces[-1].takes(piece):
            piece = self._pieces.pop().plus(piece)
        if self._pieces and (before := self._pieces[-1].sum):
            before.add_waiting()
        self._pieces.append(piece)

    def _skip_to(self, position: int) -> None:
        """Skip the positions up to ``position - 1``: no client there contributes."""
        while self._stop < position:
            size = 1
            while self._stop % (size * BLOCK) == 0 and self._stop + size * BLOCK <= position:
                size *= BLOCK
            self._push(_Piece(self._stop, self._stop + size, None))

    def _refuse_gaps(self) -> None:
        if self._waiting:
            raise _missing(self._stop, min(self._waiting))


@dataclass
class _Piece:
    """The sum over a range of positions, if any client there contributed."""

    start: int
    stop: int
    sum: WeightedSum | None

    def takes(self, following: _Piece) -> bool:
        """Whether ``following`` is a term of the sum that this piece begins, the next one."""
        size = following.stop - following.start
        parent = size * BLOCK
        return _is_power(size) and self.stop == following.start and self.start == following.start // parent * parent

    def plus(self, following: _Piece) -> _Piece:
        if self.sum is None or following.sum is None:
            total = self.sum or following.sum
        elif following.stop - following.start == 1:
            total = self.sum.plus_one(following.sum)
        else:
            total = self.sum.plus(following.sum)
        return _Piece(self.start, following.stop, total)

    @classmethod
    def of(cls, partial: Partial, layout: Layout) -> _Piece:
        if not partial.count:
            return cls(partial.start, partial.stop, None)
        numbers = {name: [*values] for name, values in partial.numbers.items()}
        found = WeightedSum(layout, partial.count, partial.weight, numbers, partial.largest, dict(partial.sums))
        return cls(partial.start, partial.stop, found)

    def partial(self) -> Partial:
        if (found := self.sum) is None:
            return Partial(self.start, self.stop)
        found.add_waiting()
        sums = Weights(found.tensors)
        return Partial(self.start, self.stop, found.count, found.weight, found.largest, sums, found.numbers)


def check_fits(position: int, update: Weights, template: Weights) -> None:
    """Raise AggregationError if the update at this cohort position does not fit the template."""
    if reason := update.mismatch(template):
        raise AggregationError(f"cohort position {position}: {reason}", position=position)


def left_to_right(terms: Iterable[_T]) -> _T:
    """A sum in the order of its terms (the built-in sum() of floats compensates rounding since Python 3.12)."""
    return functools.reduce(operator.add, terms)


def _is_in_tree(start: int, stop: int) -> bool:
    """Whether positions are a node of the tree, 16^k starting at a multiple of 16^k, or the first of its parts."""
    size = part = stop - start
    if start < 0 or size < 1:
        return False
    while part % BLOCK == 0:
        part //= BLOCK
    return part < BLOCK and start % (size if part == 1 else size // part * BLOCK) == 0


def _is_power(size: int) -> bool:
    while size % BLOCK == 0:
        size //= BLOCK
    return size == 1


def _missing(start: int, stop: int) -> AggregationError:
    return AggregationError(
        f"the mean has a gap: {_positions(start, stop)}",
        hint="merge the partial means of all positions before it, also of those without an answer",
    )


def _positions(start: int, stop: int) -> str:
    return f"position {start}" if stop - start == 1 else f"positions {start} to {stop - 1}"
