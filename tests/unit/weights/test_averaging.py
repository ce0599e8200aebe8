"""Means of torch modules and of their gradients: against float64, in place, and refused where models do not fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedpkg.errors import AggregationError, FedpkgError, ModelMismatch
from fedpkg.weights import average_gradients, average_parameters, average_parameters_weighted


class Net(nn.Module):
    """Layers of two dtypes, a frozen and a tied parameter, buffers of all kinds, an embedding with sparse gradients."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(5, 4)
        self.narrow = nn.Linear(3, 2).half()
        self.norm = nn.BatchNorm1d(4)
        self.words = nn.Embedding(6, 3, sparse=True)
        self.register_buffer("mask", torch.tensor([seed % 2 == 0, True]))
        self.tied = self.first.bias
        with torch.no_grad():
            for tensor in (*self.parameters(), self.norm.running_mean, self.norm.running_var):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        self.norm.num_batches_tracked.fill_(seed)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(x)).square().mean() + self.words(torch.tensor([1, 4])).square().sum()


def float64_mean(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    wide = torch.stack([tensor.detach().to_dense().double() for tensor in tensors])
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    return (shares.view(-1, *[1] * (wide.dim() - 1)) * wide).sum(dim=0)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    own = 32 * float(torch.finfo(found.dtype).eps)
    torch.testing.assert_close(found.double(), expected, rtol=own, atol=own)


WEIGHTS = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=18)


@settings(max_examples=10)
@given(WEIGHTS)
def test_every_model_gets_the_weighted_mean(weights: list[float]) -> None:
    models = [Net(seed) for seed in range(len(weights))]
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    owned = [dict(model.named_parameters()) for model in models]
    average_parameters_weighted(models, weights)
    largest = weights.index(max(weights))
    for model, parameters in zip(models, owned, strict=True):
        assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items()), "in place"
        assert model.tied is model.first.bias
        for name, tensor in model.state_dict().items():
            assert tensor.dtype == before[0][name].dtype
            if tensor.is_floating_point():
                close(tensor, float64_mean([state[name] for state in before], weights))
            else:
                assert torch.equal(tensor, before[largest][name])


def test_plain_mean_is_that_with_equal_weights_whatever_the_scale_of_it() -> None:
    one, other, huge = ([Net(seed) for seed in range(3)] for _ in range(3))
    average_parameters(one)
    average_parameters_weighted(other, [1, 1, 1])
    average_parameters_weighted(huge, [1e6] * 3)  # halves times these would not be finite
    for a, b, c in zip(one[2].parameters(), other[0].parameters(), huge[1].parameters(), strict=True):
        assert torch.equal(a, b)
        close(c, a.double())


@settings(max_examples=10)
@given(WEIGHTS)
def test_gradients_are_averaged_and_none_counts_as_zeros(weights: list[float]) -> None:
    models = [Net(seed) for seed in range(len(weights))]
    for number, model in enumerate(models):
        model(torch.randn(7, 5, generator=torch.Generator().manual_seed(number))).backward()
        if number % 3 == 2:
            model.first.weight.grad = None
    zeros = torch.zeros_like(models[0].first.weight)
    gradients = {
        name: [model.get_parameter(name).grad for model in models]
        for name in ("first.weight", "tied", "norm.bias", "words.weight")
    }
    states = [copy.deepcopy(model.state_dict()) for model in models]
    expected = {
        name: float64_mean([zeros if grad is None else grad for grad in given], weights)
        for name, given in gradients.items()
    }
    average_gradients(models, weights)
    for model, state in zip(models, states, strict=True):
        for name, value in expected.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None and gradient.layout == torch.strided
            close(gradient, value)
        assert model.narrow.weight.grad is None and model.norm.weight.grad is None, "nobody has one"
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert len({model.first.weight.grad.data_ptr() for model in models}) == len(models), "each its own"  # type: ignore[union-attr]


def test_it_replaces_the_all_reduce_of_a_training_loop() -> None:
    """Four workers with a part of a batch each take the steps that one takes with all of it."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    alone = nn.Linear(5, 1).double()
    workers = [copy.deepcopy(alone) for _ in range(4)]
    optimisers = [torch.optim.Adam(model.parameters(), lr=0.1) for model in (alone, *workers)]
    parts = [slice(0, 4), slice(4, 16), slice(16, 18), slice(18, 40)]
    for _ in range(5):
        for model, part in zip((alone, *workers), (slice(None), *parts), strict=True):
            model.zero_grad()
            (model(x[part]) - y[part]).square().mean().backward()
        average_gradients(workers, [part.stop - part.start for part in parts])
        for optimiser in optimisers:
            optimiser.step()
    for worker in workers:
        torch.testing.assert_close(worker.weight, alone.weight)


def with_shape(model: nn.Module) -> None:
    model.first.weight = nn.Parameter(torch.zeros(1, 5))


def with_dtype(model: nn.Module) -> None:
    model.narrow.float()


def with_extra(model: nn.Module) -> None:
    model.register_parameter("evil", nn.Parameter(torch.zeros(1)))


def with_kind(model: nn.Module) -> None:
    del model.norm.bias
    model.norm.register_buffer("bias", torch.zeros(4))


@pytest.mark.parametrize("average", [average_parameters, average_gradients])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (with_shape, r"in models 0 and 2, 'first.weight' has the shapes \(4, 5\) and \(1, 5\)"),
        (with_dtype, "in models 0 and 2, 'narrow.weight' has the dtypes float16 and float32"),
        (with_extra, "only one of models 0 and 2 has 'evil'"),
        (with_kind, "in models 0 and 2, 'norm.bias' has the kinds parameter and buffer"),
    ],
)
def test_models_that_do_not_fit_are_refused_and_left_as_they_were(
    average: Callable[[Sequence[nn.Module]], None], spoil: Callable[[nn.Module], None], words: str
) -> None:
    models = [Net(seed) for seed in range(3)]
    spoil(models[2])
    before = copy.deepcopy([model.state_dict() for model in models])
    with pytest.raises(ModelMismatch, match=words):
        average(models)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "2 models with 1 weights"),
        ([1.0, 0.0], "model 1: its weight 0.0 is not a finite number above zero"),
        ([-1.0, 2.0], "model 0: its weight -1.0"),
        ([1.0, float("nan")], "model 1: its weight nan"),
        ([float("inf"), 1.0], "model 0: its weight inf"),
    ],
)
def test_weights_that_are_none_are_refused(weights: list[float], words: str) -> None:
    with pytest.raises(AggregationError, match=words):
        average_parameters_weighted([Net(0), Net(1)], weights)
    with pytest.raises(AggregationError, match=words):
        average_gradients([Net(0), Net(1)], weights)


def test_a_mean_that_is_not_finite_is_refused_and_changes_nothing() -> None:
    models = [Net(0), Net(1)]
    models[1].first.weight.data[2, 3] = torch.nan
    before = copy.deepcopy(models[0].state_dict())
    with pytest.raises(AggregationError, match=r"'first.weight' is not finite"):
        average_parameters(models)
    assert all(torch.equal(tensor, before[name]) for name, tensor in models[0].state_dict().items())


def test_no_models_are_an_error() -> None:
    for average in (average_parameters, average_gradients):
        with pytest.raises(FedpkgError, match="a mean of 0 models"):
            average([])
