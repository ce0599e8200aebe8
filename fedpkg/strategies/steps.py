"""What every server optimiser does before and after its own equation: the pseudo-gradient, and the step along it."""

from __future__ import annotations

from typing import Any

import torch

from fedpkg.strategies.base import State
from fedpkg.strategies.held import finite
from fedpkg.weights.weights import Weights


def gradient_of(model: Weights, aggregate: Weights) -> Weights:
    """g = w - a of the parameters alone, in at least float32; there are no buffers in it."""
    return parameters_of(model) - parameters_of(aggregate)


def parameters_of(model: Weights) -> Weights:
    """The parameters alone, in at least float32."""
    return Weights(
        {
            name: model[name].float() if model[name].dtype.itemsize < 4 else model[name]
            for name in model.parameters
        }
    )


def learning_rate_of(optimiser: Any, memory: State) -> tuple[float, int]:
    """The rate of the next step, and its number (from 1)."""
    count = int(memory.get("step", 0)) + 1
    factor = 1.0 if optimiser.schedule is None else optimiser.schedule.factor(count)
    return optimiser.learning_rate * factor, count


def descended(model: Weights, aggregate: Weights, direction: Weights, rate: float) -> Weights:
    """w - eta d of the parameters, in the model's dtypes; all other tensors are the aggregate's.

    Raises:
        AggregationError: a parameter is not finite in its dtype.
    """
    return with_parameters(aggregate, Weights.axpby(1.0, parameters_of(model), -rate, direction))


def with_parameters(aggregate: Weights, parameters: Weights) -> Weights:
    """The aggregate with other parameters, in its dtypes.

    Raises:
        AggregationError: one is not finite in its dtype.
    """
    made = {
        name: parameters[name].to(tensor.dtype) if name in parameters else tensor
        for name, tensor in aggregate.items()
    }
    return finite(Weights({name: tensor.detach() for name, tensor in made.items()}, buffers=aggregate.buffers))


@torch.no_grad()
def elementwise(function: Any, *operands: Weights) -> Weights:
    """A function of tensors, tensor by tensor."""
    return Weights({name: function(*(operand[name] for operand in operands)) for name in operands[0]})
