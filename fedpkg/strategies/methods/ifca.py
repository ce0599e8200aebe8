"""IFCA: several global models, of which each client trains the one that fits its data best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.errors import NotSaid
from fedpkg.registry import NotNegative, Repeats
from fedpkg.strategies.base import ClusterModel, Replies, Reply, Request, State, Step, StepContext, StepResult
from fedpkg.strategies.registry import register_asking_strategy
from fedpkg.strategies.requests import enough, mean_of
from fedpkg.strategies.traits import Traits
from fedpkg.strategies.weighing import with_numbers
from fedpkg.types import ReplyKind

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.weights.weights import Weights


@register_asking_strategy(
    "ifca",
    equation="j_i = argmin_j F_i(theta_j);  client i trains w_i from theta_(j_i);  "
    "theta_j <- sum_i n_i w_i / sum_i n_i over the i with j_i = j",
    paper="Ghosh et al. 2020, An Efficient Framework for Clustered Federated Learning, arXiv:2006.04088, Alg. 1",
)
@dataclass(frozen=True)
class Ifca:
    """Iterative federated clustering: one model for each cluster, and clients choose their cluster by their loss.

    The cohort is asked to ``validate`` the model of each cluster, then the clients of each cluster to ``train`` it. The
    session's global model is that of the largest cluster. A client that does not report its loss is left out, with a
    warning in the log. A cluster without a usable answer keeps its model.

    Args:
        clusters: Number of clusters. Each adds one validation of each client to a round; 1 is FedAvg.
        loss: Name of the loss among the metrics that clients report.
        spread: Noise that tells the models of the clusters apart at the start, as a multiple of each tensor's root mean
            square. 0: all are the seed model, and all clients choose the first.
    """

    clusters: Repeats = 2
    loss: str = "loss"
    spread: NotNegative = 0.1

    traits = Traits(
        entry_points=("validate", "train"),
        treatment="aggregate",
        in_trees="above_clients",
        why_not_in_trees="each client chooses one of several models",
    )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "clusters": [], "cluster_of": {}}

    def step(self, state: State, ctx: StepContext) -> Step:
        theta: list[Weights] = list(state["clusters"]) or self._apart(state["model"], ctx.rng)
        cohort = ctx.sample()
        answers: tuple[Replies, ...] = yield [
            Request(payload=model, clients=cohort, entry_point="validate", reply_kind=ReplyKind.METRICS)
            for model in theta
        ]
        losses: dict[str, list[float]] = {client_id: [math.inf] * len(theta) for client_id in cohort}
        for j, replies in enumerate(answers):
            for reply, loss in with_numbers(replies, self._loss):
                losses[reply.client_id][j] = loss
        chosen = {client_id: row.index(min(row)) for client_id, row in losses.items() if min(row) < math.inf}
        members = {j: tuple(name for name, its in chosen.items() if its == j) for j in sorted(set(chosen.values()))}
        trained: tuple[Replies, ...] = yield [
            Request(payload=theta[j], clients=members[j], required=0) for j in members
        ]
        enough(trained, ctx.required)
        examples: dict[str, float] = {}

        def weight(reply: Reply) -> float:
            return examples.setdefault(reply.client_id, reply.num_examples)

        for j, replies in zip(members, trained, strict=True):
            if len(replies.missing) < len(replies.asked):
                theta[j] = mean_of(replies, theta[j], weight=weight)
        cluster_of: dict[str, int] = {**state["cluster_of"], **chosen}
        clients = [tuple(name for name, its in cluster_of.items() if its == j) for j in range(len(theta))]
        biggest = max(range(len(theta)), key=lambda j: (len(clients[j]), -j))
        contributed = [math.fsum(examples.get(name, 0.0) for name in members.get(j, ())) for j in range(len(theta))]
        return StepResult(
            {"model": theta[biggest], "clusters": theta, "cluster_of": cluster_of},
            clusters={
                str(j): ClusterModel(theta[j], clients[j], num_examples=contributed[j]) for j in range(len(theta))
            },
        )

    def _loss(self, reply: Reply) -> float:
        metrics = reply.metrics if isinstance(reply.metrics, Mapping) else {}
        value = metrics.get(self.loss)
        if not isinstance(value, (int, float)):
            raise NotSaid(
                f"{reply.client_id}: its metrics have no number '{self.loss}', which strategy ifca needs",
                hint=f"set strategy.loss to one of: {', '.join(metrics) or 'none were reported'}",
                client_id=reply.client_id,
            )
        return math.inf if math.isnan(value) else float(value)

    def _apart(self, seed: Weights, rng: np.random.Generator) -> list[Weights]:
        import torch

        from fedpkg.strategies.steps import parameters_of, with_parameters

        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        found = []
        for _ in range(self.clusters):
            moved = {}
            for name, tensor in parameters_of(seed).items():
                size = torch.linalg.vector_norm(tensor) / math.sqrt(max(1, tensor.numel()))
                moved[name] = tensor + self.spread * size * torch.randn(
                    tensor.shape, generator=generator, dtype=tensor.dtype
                )
            found.append(with_parameters(seed, moved))
        return found
