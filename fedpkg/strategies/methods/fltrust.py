"""FLTrust: updates are weighted by how well their direction agrees with that of a trusted client."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.errors import AggregationError, nearest
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.base import Reply, Request, State, Step, StepContext
from fedpkg.strategies.registry import STRATEGIES, ServerOptimiserName, register_asking_strategy
from fedpkg.strategies.requests import mean_of
from fedpkg.strategies.traits import Traits

if TYPE_CHECKING:
    from torch import Tensor

    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


_EQUATION = "t_k = max(0, cos(d_k, d_0));  w <- w + sum_k t_k (|d_0| / |d_k|) d_k / sum_k t_k"
_PAPER = "Cao et al. 2021, FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, arXiv:2012.13995"


@STRATEGIES.register(
    "aggregator",
    "fltrust",
    equation="d_k = w_k - w, d_0 that of the trusted client;  " + _EQUATION,
    paper=_PAPER,
    attackers="all clients but the trusted one and one other",
)
@dataclass(frozen=True)
class FLTrust(RobustAggregator):
    """Steps are scaled to the norm of the trusted client's step, and weighted by the cosine between the two.

    The trusted client's step is the reference and takes no part in the mean. Buffers and integers are those of the
    trusted client, as most of the others may be attackers. If no other client's step has a positive cosine, the
    parameters stay.

    Args:
        trusted: Id of the client that holds the server's own, clean data. It must answer in every round.
    """

    trusted: str

    @property
    def needs(self) -> int:
        return 2

    @property
    def takes_means(self) -> bool:
        return False

    def stands(self, count: int) -> int:
        return max(count - 2, 0)

    def combine(self, updates: Updates) -> Weights:
        if self.trusted not in updates.clients:
            raise AggregationError(
                f"the trusted client {self.trusted!r} did not answer{nearest(self.trusted, updates.clients)}",
                hint="it must be asked in every round (sampler.fraction_train=1) and send a usable update; with "
                "`strategy: {name: fltrust}`, the group 'server' is asked in addition to the sampled clients",
                client_id=self.trusted,
            )
        return _trusting(updates, updates.clients.index(self.trusted))


@register_asking_strategy(
    "fltrust",
    equation="d_k = w_k - w, d_0 that of the server's own data;  " + _EQUATION,
    paper=_PAPER,
    attackers="all sampled clients but one",
)
@dataclass(frozen=True)
class FLTrustOfServer:
    """Steps are scaled to the norm of the server's own step, and weighted by the cosine between the two.

    The clients of the group ``server`` hold the server's data. They are asked in every round in addition to the sampled
    clients, and never sampled. Their step (the weighted mean of several clients) is the reference and takes no part in
    the mean. Buffers and integers are theirs. If no other client's step has a positive cosine, the parameters stay.
    """

    server_optimiser: ServerOptimiserName = None

    @property
    def traits(self) -> Traits:
        server = ("server",)
        return Traits(groups=server, apart=server, treatment="step", server_optimiser=self.server_optimiser)

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "memory": {}}

    def step(self, state: State, ctx: StepContext) -> Step:
        from fedpkg.strategies.updates.held import Updates

        w = state["model"]
        own, others = yield [Request("server", payload=w, group="server"), Request("train", payload=w)]
        mean = mean_of(own, w, weight=lambda reply: reply.num_examples)
        reference = Reply("server", 0, "the server", {"": mean}, 1.0)
        trusted = _trusting(Updates(itertools.chain([reference], others), w), 0)
        if self.server_optimiser is None:
            return {**state, "model": trusted}
        model, memory = self.server_optimiser.step(w, trusted, state["memory"])
        return {"model": model, "memory": memory}


def _trusting(updates: Updates, first: int) -> Weights:
    """The global model after a step whose reference is the update at the index ``first``."""
    import torch

    from fedpkg.strategies.updates.held import weighted_sum

    names = updates.model.parameters
    products = torch.zeros(len(updates), dtype=torch.float64)
    squares = torch.zeros(len(updates), dtype=torch.float64)
    for rows, model in updates.pieces(names, wide=True):
        rows -= model
        products += (rows * rows[first]).sum(dim=1)
        squares += rows.square_().sum(dim=1)
    norms = squares.sqrt()
    trust = (products / (norms * norms[first])).nan_to_num(0.0).clamp_(min=0)  # no step, no direction
    trust[first] = 0
    total = float(trust.sum())
    scales = (trust * norms[first] / (norms * total)).nan_to_num(0.0) if total > 0 else torch.zeros_like(trust)

    def stepped(rows: Tensor, row: Tensor) -> Tensor:
        rows -= row
        return weighted_sum(rows, scales).add_(row)

    return updates.with_rest(updates.made(names, stepped, wide=True), trusted=first)
