"""Replies for aggregators, made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fedpkg.registry import Spec
from fedpkg.strategies.base import Client, Reply, Request, State, StepContext, SteppingStrategy, StepResult
from fedpkg.strategies.registry import STRATEGIES, make_strategy
from fedpkg.strategies.traits import traits_of
from fedpkg.types import Sampling, Scheme
from fedpkg.weights.weights import Weights

# What those strategies need that have no default for it, or read what clients of these tests say.
PARAMETERS: Mapping[str, dict[str, Any]] = {
    "fedopt": {"optimiser": "RMSprop"},
    "fednova": {"steps_key": "calls"},
    "fedper": {"local": ["w"]},
    "qfedavg": {"loss_key": "calls"},
}
# Strategies whose steps ask for more than to train: clients of tests/packages/quadratic can answer them.
STEPPING: Mapping[str, dict[str, Any]] = {
    "dp_fedavg": {"noise_multiplier": 0.5, "target_quantile": 0.5, "at": "client", "server_optimiser": "adam"},
    "fltrust": {},
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
# A coordinator is a process, and split learning needs a file of labels: they have tests of their own.
_APART = ("algorithm", "coordinator", "server_app", "server_functions", "split")
STRATEGY_SPECS: Sequence[Spec] = [spec for spec in STRATEGIES.specs("strategy") if spec.name not in _APART]
STRATEGY_NAMES = [spec.name for spec in STRATEGY_SPECS if spec.source == "fedpkg" and spec.name not in STEPPING]


# Aggregators that are no strategies of the same name, or with other parameters than by default.
COMPOSED: Mapping[str, dict[str, Any]] = {
    "fltrust of a client": {"aggregator": {"name": "fltrust", "trusted": "client-0"}},
    "bucketing of krum": {"name": "bucketing", "inner": {"name": "krum", "attackers": 0}},
    "bucketing of centred clipping": {"name": "bucketing", "inner": "centered_clipping", "size": 3},
    "norm bounding by examples": {"name": "norm_bounding", "by_examples": True, "max_norm": 3.0},
    "median, then Adam by a cosine": {
        "aggregator": "median",
        "server_optimiser": {"name": "adam", "schedule": {"name": "cosine", "rounds": 3}},
    },
}


def section_of(name: str) -> dict[str, Any]:
    """What a run.yaml's ``strategy`` says."""
    if name in COMPOSED:
        return COMPOSED[name]
    return {"name": name, **PARAMETERS.get(name, {}), **STEPPING.get(name, {})}


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


class Answers(list[Reply]):
    """What a step receives of clients that all answer: `fedpkg.strategies.base.Replies`."""

    def __init__(self, request: Request, replies: Sequence[Reply]) -> None:
        super().__init__(replies)
        self.request_id = request.request_id
        self.asked = tuple(reply.client_id for reply in replies)
        self.missing: tuple[str, ...] = ()
        self.virtual_s = 0.0
        self._left: Iterator[Reply] = iter(replies)

    def __next__(self) -> Reply:
        return next(self._left)


def stepped(strategy: SteppingStrategy, state: State, updates: Sequence[Weights], number: int = 1) -> State:
    """A strategy's state after a step in which client k sends what is asked for out of ``updates[k]``, again and again.

    The first client is the server, the next are of the group f, the others of g. All say 60,000 examples.
    """
    names = [f"client-{k}" for k in range(len(updates))]
    groups = {"server": names[:1], "f": names[1:3], "g": names[3:]}
    sampled = tuple(traits_of(strategy).sampled(names, groups))

    def answers(request: Request) -> Answers:
        cohort = request.clients or groups.get(request.group or "") or sampled
        given = request.payload if not isinstance(request.payload, Weights) else {"": request.payload}
        found = []
        for position, name in enumerate(cohort):
            whole = updates[names.index(name)]
            alone = whole.filter(frozenset(whole.parameters).__contains__)
            update = whole if request.reply == "weights" else alone
            sets = {key: alone if like is None else whole for key, like in request.sets.items()} or {"": update}
            assert all(weights.first_non_finite() is None for weights in given.values()), "what clients get is finite"
            metrics = {"loss": float(position)}
            found.append(Reply(request.request_id, position, name, sets, 60_000.0, {}, metrics))
        return Answers(request, found)

    clients = tuple(Client(name, tuple(group for group in groups if name in groups[group])) for name in names)
    everyone, rng = Sampling(Scheme.DATA_FREE), np.random.default_rng(number)
    step = strategy.step(state, StepContext(number, rng, clients, lambda: sampled, everyone))
    try:
        asks = next(step)
        while True:
            asks = step.send(answers(asks) if isinstance(asks, Request) else tuple(map(answers, asks)))
    except StopIteration as stop:
        return dict(StepResult.of(stop.value).state)
