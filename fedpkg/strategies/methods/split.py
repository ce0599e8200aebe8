"""Split learning: clients hold features of the same examples, the server the labels and the last layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.errors import AggregationError, ConfigError
from fedpkg.strategies.base import Asks, Replies, Request, State, Step, StepContext, StepResult
from fedpkg.strategies.traits import Traits
from fedpkg.types import ReplyKind

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.weights.weights import Weights

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
EMBEDDING, GRADIENT = "embedding", "gradient"  # sets of records, each with one tensor of the same name


@dataclass(frozen=True)
class SplitLearning:
    """The strategy ``split`` (`fedpkg.coordinators.named.split`) whose server has one linear layer."""

    labels: str
    learning_rate: float
    validate: bool

    @property
    def traits(self) -> Traits:
        return Traits(entry_points=("forward", "backward"), has_model=False, chooses_clients=True, heeds_required=False)

    def init(self, seed_model: Weights | None) -> State:
        return {"steps": 0}

    def step(self, state: State, ctx: StepContext) -> Step:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        from fedpkg.weights.records import Records
        from fedpkg.weights.weights import Weights

        clients = tuple(sorted(one.client_id for one in ctx.clients))
        h = yield from self._embeddings(clients, inference=False)
        y = self._labels("y_train", h)
        state = state if "server" in state else _begun(sum(one.shape[1] for one in h.values()), ctx)
        w = {name: tensor.clone().requires_grad_() for name, tensor in state["server"].items()}
        leaves = {client: tensor.clone().requires_grad_() for client, tensor in h.items()}
        logits = torch.cat(list(leaves.values()), dim=1) @ w["weight"].T + w["bias"]
        loss = binary_cross_entropy_with_logits(logits, y)
        torch.autograd.backward(loss)
        gradients = {client: Weights({GRADIENT: leaf.grad}) for client, leaf in leaves.items() if leaf.grad is not None}
        yield [
            _request(f"backward-{number}", (client,), Records({GRADIENT: gradients[client]}, {}))
            for number, client in enumerate(clients)
        ]
        state = _stepped(state, {name: tensor.grad for name, tensor in w.items()}, self.learning_rate)
        metrics = {"loss": loss.item(), "accuracy": _accuracy(logits, y)}
        if self.validate:
            h = yield from self._embeddings(clients, inference=True)
            y = self._labels("y_test", h)
            logits = torch.cat(list(h.values()), dim=1) @ state["server"]["weight"].T + state["server"]["bias"]
            metrics |= {
                "test_loss": binary_cross_entropy_with_logits(logits, y).item(),
                "test_accuracy": _accuracy(logits, y),
            }
        return StepResult(state, metrics=metrics)

    def _embeddings(self, clients: tuple[str, ...], *, inference: bool) -> Asks[Mapping[str, Tensor]]:
        from fedpkg.weights.records import Records

        name = "forward-test" if inference else "forward"
        replies: Replies = yield _request(name, clients, Records({}, {"inference": inference}))
        found = {}
        for reply in replies:
            assert reply.records is not None
            sets = reply.records.sets
            tensor = sets[EMBEDDING].get(EMBEDDING) if EMBEDDING in sets else None
            if tensor is None or tensor.dim() != 2:
                raise AggregationError(
                    f"client {reply.client_id!r} sent no embedding: records with the set '{EMBEDDING}', whose tensor "
                    f"'{EMBEDDING}' has a row for each example",
                    client_id=reply.client_id,
                )
            found[reply.client_id] = tensor.float().clone()
        if len({len(tensor) for tensor in found.values()}) > 1:
            counts = ", ".join(f"{client} {len(tensor)}" for client, tensor in found.items())
            raise AggregationError(f"the clients' embeddings have different numbers of examples: {counts}")
        return found

    def _labels(self, name: str, h: Mapping[str, Tensor]) -> Tensor:
        import torch

        count = len(next(iter(h.values())))
        found = _read(Path(self.labels))
        if name not in found:
            raise ConfigError(f"strategy.labels: {self.labels} has no '{name}'", key="strategy.labels")
        y = torch.as_tensor(found[name]).float().reshape(-1, 1)
        if len(y) != count:
            raise AggregationError(f"there are {len(y)} labels '{name}', but embeddings of {count} examples")
        return y


def _request(name: str, clients: tuple[str, ...], payload: object) -> Request:
    return Request(
        name,
        payload=payload,  # type: ignore[arg-type]
        clients=clients,
        entry_point=name.partition("-")[0],
        reply_kind=ReplyKind.RECORDS,
        required=len(clients),
    )


def _begun(features: int, ctx: StepContext) -> State:
    """The server's layer, initialised as torch.nn.Linear, and the state of Adam."""
    import torch

    from fedpkg.weights.weights import Weights

    bound = features**-0.5
    w = {"weight": ctx.rng.uniform(-bound, bound, (1, features)), "bias": ctx.rng.uniform(-bound, bound, 1)}
    server = Weights({name: torch.from_numpy(array).float() for name, array in w.items()})
    zeros = {name: torch.zeros_like(tensor) for name, tensor in server.items()}
    return {"steps": 0, "server": server, "m": Weights(zeros), "v": Weights(dict(zeros))}


def _stepped(state: State, gradient: Mapping[str, Tensor | None], learning_rate: float) -> State:
    """Adam [Kingma and Ba 2015, Alg. 1]."""
    from fedpkg.weights.weights import Weights

    t, (beta_1, beta_2) = state["steps"] + 1, _BETAS
    found: dict[str, dict[str, Tensor]] = {"server": {}, "m": {}, "v": {}}
    for name, g in gradient.items():
        assert g is not None
        m = found["m"][name] = beta_1 * state["m"][name] + (1 - beta_1) * g
        v = found["v"][name] = beta_2 * state["v"][name] + (1 - beta_2) * g.square()
        root = (v / (1 - beta_2**t)).sqrt() + _EPSILON
        found["server"][name] = state["server"][name] - learning_rate * (m / (1 - beta_1**t)) / root
    return {"steps": t, **{name: Weights(tensors) for name, tensors in found.items()}}


def _accuracy(logits: Tensor, y: Tensor) -> float:
    return ((logits > 0) == (y > 0.5)).float().mean().item()


def _read(path: Path) -> Mapping[str, object]:
    if path.suffix == ".pt":
        import torch

        found: Mapping[str, object] = torch.load(path, weights_only=True)
        return found
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
