"""The parts that server optimisers share: the pseudo-gradient, and the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedpkg.strategies.base import State
from fedpkg.strategies.updates.held import at_least_float32, finite
from fedpkg.weights.weights import Weights

if TYPE_CHECKING:
    from fedpkg.strategies.server_optimisers.base import Schedule


def parameters_of(model: Weights) -> Weights:
    """The parameters alone, in at least float32."""
    return Weights({name: model[name].to(at_least_float32(model[name])) for name in model.parameters})


def real_parameters_of(model: Weights) -> Weights:
    """The parameters alone, in at least float32; complex elements as pairs of real ones."""
    wide = parameters_of(model)
    return Weights({name: torch.view_as_real(t) if t.is_complex() else t for name, t in wide.items()})


def gradient_of(model: Weights, aggregate: Weights) -> Weights:
    """g = w - a of the parameters as real numbers."""
    return real_parameters_of(model) - real_parameters_of(aggregate)


def next_rate(learning_rate: float, schedule: Schedule | None, memory: State) -> tuple[float, int]:
    """The learning rate of the next step, and its number (from 1)."""
    count = int(memory.get("step", 0)) + 1
    return learning_rate * (1.0 if schedule is None else schedule.factor(count)), count


def descended(model: Weights, aggregate: Weights, direction: Weights, rate: float) -> Weights:
    """w - eta d of the parameters, in the model's dtypes; all other tensors are the aggregate's.

    Raises:
        AggregationError: a parameter is not finite in its dtype.
    """
    return with_parameters(aggregate, Weights.axpby(1.0, real_parameters_of(model), -rate, direction))


def moved(model: Weights, mean: Weights, factor: float) -> Weights:
    """w + factor (m - w) of the parameters; all other tensors are the mean's.

    A factor of 1, up to its own rounding, gives the mean itself.

    Raises:
        AggregationError: a parameter is not finite in its dtype.
    """
    if abs(factor - 1) < 1e-12:
        return mean
    return with_parameters(mean, Weights.axpby(factor, parameters_of(mean), 1 - factor, parameters_of(model)))


def with_parameters(aggregate: Weights, parameters: Mapping[str, Tensor]) -> Weights:
    """The aggregate with other parameters, complex or as pairs of real numbers, in its own dtypes.

    Raises:
        AggregationError: one is not finite in its dtype.
    """
    made = dict(aggregate)
    for name, tensor in parameters.items():
        like = aggregate[name]
        is_pairs = like.is_complex() and not tensor.is_complex()
        made[name] = (torch.view_as_complex(tensor.contiguous()) if is_pairs else tensor).to(like.dtype)
    return finite(Weights(made, buffers=aggregate.buffers), like=aggregate)


def squared_norm(vector: Mapping[str, Tensor]) -> float:
    """|x|^2 in float64."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in vector.values()]
    return sum(float(norm) ** 2 for norm in norms)
