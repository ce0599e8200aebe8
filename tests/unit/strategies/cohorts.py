"""Replies for aggregators, made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedpkg.registry import Spec
from fedpkg.strategies.base import Reply, State
from fedpkg.strategies.registry import STRATEGIES, make_strategy
from fedpkg.weights.weights import Weights

# What those strategies need that have no default for it, or read what clients of these tests say.
PARAMETERS: Mapping[str, dict[str, Any]] = {
    "fltrust": {"trusted": "client-0"},
    "fedopt": {"optimiser": "RMSprop"},
    "fednova": {"steps_key": "calls"},
    "fedper": {"local": ["w"]},
    "qfedavg": {"loss_key": "calls"},
}
# Strategies whose steps ask for more than to train: clients of tests/packages/quadratic can answer them.
STEPPING: Mapping[str, dict[str, Any]] = {
    "dp_fedavg": {"noise_multiplier": 0.5, "target_quantile": 0.5, "at": "client", "server_optimiser": "adam"},
    "fedsgd": {},
    "scaffold": {},
    "feddyn": {"alpha": 0.5},
    "mime": {},
    "mimelite": {},
    "fedexp": {},
    "ifca": {},
    "fedamp": {},
    "fedbuff": {"buffer": 4, "concurrency": 3},
    "fedasync": {"mu": 0.1},
    "svrp": {"theta": 0.1, "p": 0.3},
    "svrs": {"theta": 0.1, "q": 0.3},
    "accsvrs": {"theta": 0.1, "q": 0.3, "mu": 0.5},
    "vrcs": {"theta": 0.1, "p": 0.4, "q": 0.3},
    "accvrcs": {"theta": 0.1, "p": 0.4, "q": 0.3, "mu": 0.5},
}
STRATEGY_SPECS: Sequence[Spec] = list(STRATEGIES.specs("strategy"))
STRATEGY_NAMES = [spec.name for spec in STRATEGY_SPECS if spec.source == "fedpkg" and spec.name not in STEPPING]


def section_of(name: str) -> dict[str, Any]:
    """What a run.yaml's ``strategy`` says."""
    return {"name": name, **PARAMETERS.get(name, {})}


def weights(seed: int, *, scale: float = 1.0) -> Weights:
    """Parameters of several dtypes and shapes, a running variance, a counter, a mask."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    return Weights(
        {
            "fc.weight": normal(3, 37),
            "scale": normal(1)[0],
            "half": normal(33).half(),
            "brain": normal(5, 2).bfloat16(),
            "double": normal(7).double(),
            "wave": torch.complex(normal(4), normal(4)),
            "none": normal(0, 3),
            "bn.running_var": normal(6).abs(),
            "bn.num_batches_tracked": torch.tensor(seed),
            "mask": torch.tensor([seed % 2 == 0, True]),
        },
        buffers=["bn.running_var", "bn.num_batches_tracked", "mask"],
    )


def replies(
    updates: Iterable[Weights], *, examples: Sequence[float] | None = None, metadata: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Reply]:
    """One reply for each update, from client-0 on."""
    for position, update in enumerate(updates):
        number = 10.0 + position if examples is None else examples[position]
        said = metadata[position] if metadata else {"calls": 1 + position % 3}
        yield Reply("train-1", position, f"client-{position}", {"": update}, number, said)


def told(section: Mapping[str, Any], model: Weights, updates: Iterable[Weights], **more: Any) -> Weights:
    """The global model after one round of a strategy."""
    return state_after(section, model, [updates], **more)["model"]


def state_after(section: Mapping[str, Any], model: Weights, rounds: Iterable[Iterable[Weights]], **more: Any) -> State:
    """A strategy's state after some rounds."""
    strategy = make_strategy(section)
    state = strategy.init(model)
    for number, updates in enumerate(rounds):
        state, _ = strategy.ask(state, np.random.default_rng(number))
        state = strategy.tell(state, replies(updates, **more))
    return state


def flat(model: Weights) -> torch.Tensor:
    """All parameters as one vector of float64; a complex one is two."""
    parts = [torch.view_as_real(model[name]) if model[name].is_complex() else model[name] for name in model.parameters]
    return torch.cat([part.reshape(-1).double() for part in parts])


def stacked(updates: Iterable[Weights]) -> torch.Tensor:
    return torch.stack([flat(update) for update in updates])


def close(
    model: Weights, expected: torch.Tensor, *, tolerance: float = 1e-6, skip: Callable[[str], bool] | None = None
) -> None:
    """The parameters of a model agree with a vector, each tensor to what its own dtype can hold."""
    at = 0
    for name in model.parameters:
        tensor = torch.view_as_real(model[name]) if model[name].is_complex() else model[name]
        part = expected[at : at + tensor.numel()].reshape(tensor.shape)
        at += tensor.numel()
        own = max(tolerance, 4 * float(torch.finfo(tensor.dtype).eps))
        assert torch.allclose(tensor.double(), part, rtol=own, atol=own), (name, tensor.double() - part)
    assert at == len(expected) and math.isfinite(float(expected.sum()))
