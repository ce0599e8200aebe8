"""The algebra of `Weights` said plainly, on one flat vector of all parameters: what the fast form must agree with.

Each stands for the operation of `Weights` with its name, takes what that
takes, and is differentiable where that is; all tensors have one dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedpkg.weights.weights import Weights


def add(x: Weights, y: Weights) -> Weights:
    return _with_rest(x.from_flat(x.to_flat() + _flat(y, like=x)), [x, y], [1, 1])


def subtract(x: Weights, y: Weights) -> Weights:
    return _with_rest(x.from_flat(x.to_flat() - _flat(y, like=x)), [x, y], [1, 1])


def scale(x: Weights, a: float | Tensor) -> Weights:
    return x.from_flat(a * x.to_flat())


def divide(x: Weights, a: float | Tensor) -> Weights:
    return x.from_flat(x.to_flat() / a)


def negate(x: Weights) -> Weights:
    return x.from_flat(-x.to_flat())


def dot(x: Weights, y: Weights) -> Tensor:
    return torch.dot(x.to_flat(), _flat(y, like=x))


def norm(x: Weights, p: float = 2) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x.to_flat(), p)
    return length


def mean(updates: Sequence[Weights], weights: Sequence[float]) -> Weights:
    terms = [a * _flat(x, like=updates[0]) for a, x in zip(weights, updates, strict=True)]
    return _with_rest(updates[0].from_flat(torch.stack(terms).sum(0) / sum(weights)), updates, weights)


def axpby(alpha: float, x: Weights, beta: float, y: Weights) -> Weights:
    return _with_rest(x.from_flat(alpha * x.to_flat() + beta * _flat(y, like=x)), [x, y], [alpha, beta])


def add_(x: Weights, y: Weights, alpha: float = 1.0) -> Weights:
    return _put(x, x.to_flat() + alpha * _flat(y, like=x))


def lerp_(x: Weights, y: Weights, weight: float) -> Weights:
    return _put(x, x.to_flat() + weight * (_flat(y, like=x) - x.to_flat()))


def axpby_(x: Weights, alpha: float, y: Weights, beta: float) -> Weights:
    return _put(x, alpha * _flat(y, like=x) + beta * x.to_flat())


def _flat(y: Weights, *, like: Weights) -> Tensor:
    """The parameters of ``y``, one after the other in the order of ``like``."""
    return Weights({name: y[name] for name in like.parameters}).to_flat()


def _with_rest(made: Weights, operands: Sequence[Weights], coefficients: Sequence[float]) -> Weights:
    """What is no parameter, of those operands that have it: averaged by |coefficient|, or, not floating, the larger."""
    rest: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for x in operands for name in x if name not in x.parameters):
        found = [(x[name], abs(a)) for x, a in zip(operands, coefficients, strict=True) if name in x]
        total = sum(a for _, a in found)
        tensors = torch.stack([tensor for tensor, _ in found])
        if tensors.is_floating_point():
            rest[name] = sum((tensor * (a / total) for tensor, a in found), torch.zeros_like(tensors[0]))
        else:
            rest[name] = tensors.amax(0)
    return Weights({**made, **rest}, buffers=made.buffers.union(*(x.buffers for x in operands)))


@torch.no_grad()
def _put(x: Weights, vector: Tensor) -> Weights:
    """Write a flat vector into the memory of ``x``."""
    for name, tensor in x.from_flat(vector).items():
        if name in x.parameters:
            x[name].copy_(tensor)
    return x
