"""Means of models and of their gradients, in place: like `all_reduce`, but among models of one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from fedpkg.client.wrapped import bare
from fedpkg.errors import AggregationError, ModelMismatch
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights, dtype_name


@torch.no_grad()
def average_gradients(models: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
    """Give every model the mean of all gradients: g <- sum_k (a_k / a) g_k, a = sum_k a_k; by default a_k = 1.

    A gradient that is None counts as zeros, as in DistributedDataParallel, and becomes a tensor; if it is None in all
    models, it remains None. Sparse ones become dense. Parameters and buffers are not changed.

    For everything else see `average_parameters_weighted`.
    """
    present = {
        name for model in models for name, parameter in bare(model).named_parameters() if parameter.grad is not None
    }
    mean = _mean(models, lambda model: Weights.from_grads(model).filter(present.__contains__), weights)
    for model in models:
        for name, parameter in bare(model).named_parameters():
            if name not in present:
                continue
            if parameter.grad is None or parameter.grad.layout != torch.strided:
                parameter.grad = mean[name].to(parameter.device, copy=True)
            else:
                parameter.grad.copy_(mean[name])


def average_parameters(models: Sequence[nn.Module]) -> None:
    """Give every model the mean of all: w <- (1/n) sum_k w_k; see `average_parameters_weighted`."""
    average_parameters_weighted(models, [1.0] * len(models))


@torch.no_grad()
def average_parameters_weighted(models: Sequence[nn.Module], weights: Sequence[float]) -> None:
    """Give every model the weighted mean of all: w <- sum_k (a_k / a) w_k, a = sum_k a_k.

    It is the mean of a round, `fedpkg.weights.fold.MeanFold`, in the order of the models. Parameters (frozen ones too)
    and floating-point buffers (running means and variances) are averaged; integers and booleans are those of the first
    model with the largest weight. Sums are in at least float32, results in the models' own dtypes.

    Models can be on several devices: the mean is computed on the first one's devices, and copied to each.
    All tensors are changed in place, without a graph: optimisers and tied parameters remain valid.

    Memory: one mean, and a copy of a model that is on another device.

    Raises:
        AggregationError: If there are no models, not one weight for each, or a weight that is not finite and above
            zero; or if the mean is not finite.
        ModelMismatch: If names, shapes (which never broadcast), dtypes or buffers differ; the message has the models'
            numbers. All models are then unchanged.
    """
    mean = _mean(models, Weights.from_model, weights)
    for model in models:
        mean.to_model(model)


def _mean(
    models: Sequence[nn.Module], part: Callable[[nn.Module], Weights], weights: Sequence[float] | None
) -> Weights:
    """The mean of a part of each model, after checking that they fit."""
    weights = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    if not models or len(models) != len(weights):
        raise AggregationError(f"a mean of {len(models)} models with {len(weights)} weights")
    for number, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight > 0):
            raise AggregationError(f"model {number}: its weight {weight} is not a finite number above zero")
    whole = Weights.from_model(models[0])
    for number, model in enumerate(models):
        _check_fits(whole, Weights.from_model(model), number)
    template = part(models[0])
    fold = MeanFold(template)
    for number, (model, weight) in enumerate(zip(models, weights, strict=True)):
        given = part(model)
        there = {name: tensor.to(template[name].device) for name, tensor in given.items()}
        fold.add(number, Weights(there, buffers=given.buffers), weight)
    return fold.result()


def _check_fits(first: Weights, other: Weights, number: int) -> None:
    if alone := sorted(set(first) ^ set(other)):
        raise ModelMismatch(f"models do not fit: only one of models 0 and {number} has {alone[0]!r}", tensor=alone[0])
    for name, tensor in first.items():
        for what, of_first, of_other in (
            ("shapes", tuple(tensor.shape), tuple(other[name].shape)),
            ("dtypes", dtype_name(tensor), dtype_name(other[name])),
            ("kinds", *("buffer" if name in each.buffers else "parameter" for each in (first, other))),
        ):
            if of_first != of_other:
                raise ModelMismatch(
                    f"models do not fit: in models 0 and {number}, {name!r} has the {what} {of_first} and {of_other}",
                    tensor=name,
                )
