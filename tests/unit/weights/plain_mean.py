"""What `MeanFold` computes, said plainly: what folds of any parts, in any order, must agree with, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fedpkg.errors import AggregationError
from fedpkg.weights.fold import BLOCK, left_to_right
from fedpkg.weights.weighted_sum import is_averaged, sum_dtype
from fedpkg.weights.weights import Weights

_T = TypeVar("_T", float, Tensor)


def weighted_mean(updates: Sequence[tuple[int, Weights, float]], template: Weights) -> Weights:
    """The mean; ``updates`` are (position, update, weight) in order of positions."""
    if not updates:
        raise AggregationError("no updates to average")
    if len(updates) == 1:
        return updates[0][1].clone().reordered_like(template)

    blocks = [(number, [*block]) for number, block in itertools.groupby(updates, key=lambda entry: entry[0] // BLOCK)]
    total = _sum_in_tree([(number, left_to_right(weight for _, _, weight in block)) for number, block in blocks])
    largest = max(updates, key=lambda entry: entry[2])[1]  # the first of them
    constant = template.non_finite_buffers()

    def mean(name: str, expected: Tensor) -> Tensor:
        if not is_averaged(expected) or name in constant:
            return largest[name].clone()
        dtype = sum_dtype(expected)
        sums = []
        for number, ((_, first, weight), *others) in blocks:
            found = first[name].to(dtype) * weight
            for _, update, weight in others:
                found = torch.add(found, update[name].to(dtype), alpha=weight)
            sums.append((number, found))
        return (_sum_in_tree(sums) / total).to(expected.dtype)

    return Weights({name: mean(name, tensor) for name, tensor in template.items()}, buffers=template.buffers)


def _sum_in_tree(terms: list[tuple[int, _T]]) -> _T:
    """The sums of 16 neighbours, by their numbers, then the sums of 16 of those, until there is one."""
    while len(terms) > 1:
        neighbours = itertools.groupby(terms, key=lambda term: term[0] // BLOCK)
        terms = [(number, left_to_right(value for _, value in group)) for number, group in neighbours]
    return terms[0][1]
