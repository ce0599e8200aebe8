"""Strategies by composition: ask everyone sampled to train, aggregate the updates, step the global model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

from fedpkg.registry import Part
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.mean import WeightedMean
from fedpkg.strategies.registry import register_strategy

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.types import Json
    from fedpkg.weights.weights import Weights


class Aggregator(Protocol):
    """Makes one model out of the clients' updates."""

    def aggregate(self, replies: Iterator[Reply], model: Weights) -> Weights:
        """Fold replies to the global model ``model``; they come in cohort order.

        Raises:
            AggregationError: no replies, too few of them, or no finite result.
        """
        ...


@runtime_checkable
class RememberingAggregator(Protocol):
    """An aggregator that keeps something from round to round, or draws."""

    def aggregate_next(
        self, replies: Iterator[Reply], model: Weights, memory: State, rng: np.random.Generator
    ) -> tuple[Weights, State]:
        """Like `Aggregator.aggregate`; ``memory`` is what the last round returned, at first empty."""
        ...


class ServerOptimiser(Protocol):
    """Takes the step from the global model that the aggregate of a round points to."""

    def step(self, model: Weights, aggregate: Weights, memory: State) -> tuple[Weights, State]:
        """The next global model. ``memory`` (moments, as `Weights`) is what the last step returned, at first empty.

        The gradient is ``model - aggregate``, of parameters; all other tensors of the next model are the aggregate's.
        """
        ...


@dataclass(frozen=True)
class Pipeline:
    """A round: the sampled clients train the global model, their updates are aggregated, the model takes a step."""

    aggregator: Aggregator | RememberingAggregator = field(default_factory=WeightedMean)
    server_optimiser: ServerOptimiser | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)  # for the clients

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "step": 0}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        step = state["step"] + 1
        state = {**state, "step": step}
        if isinstance(self.aggregator, RememberingAggregator):
            state["draw"] = int(rng.integers(1 << 62))
        return state, [Request(request_id=f"train-{step}", payload=state["model"], parameters=self.parameters)]

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        model, state = state["model"], dict(state)
        if isinstance(self.aggregator, RememberingAggregator):
            import numpy as np

            rng = np.random.default_rng(state.pop("draw"))
            aggregate, state["aggregator"] = self.aggregator.aggregate_next(
                replies, model, state.get("aggregator", {}), rng
            )
        else:
            aggregate = self.aggregator.aggregate(replies, model)
        if self.server_optimiser is None:
            return {**state, "model": aggregate}
        stepped, state["server_optimiser"] = self.server_optimiser.step(
            model, aggregate, state.get("server_optimiser", {})
        )
        return {**state, "model": stepped}


@register_strategy(
    "pipeline", equation="a = aggregator(w_1 … w_n);  w <- server_optimiser(w, w - a), without one w <- a"
)
def pipeline(
    aggregator: Annotated[Any, Part("aggregator")] = "weighted_mean",
    server_optimiser: Annotated[Any, Part("server_optimiser")] = None,
    parameters: dict[str, Any] | None = None,
) -> Pipeline:
    """An aggregator, and a server optimiser if wanted: what a `strategy` without a name means.

    ``parameters`` are for the clients: their task.json has them.
    """
    return Pipeline(aggregator, server_optimiser, parameters or {})
