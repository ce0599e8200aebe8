"""Strategies by composition: sampled clients train, an aggregator combines their updates, the model takes a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from fedpkg.strategies.aggregators.base import RememberingAggregator
from fedpkg.strategies.aggregators.mean import WeightedMean
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.folds import Changed, Fold, fold_of, folded
from fedpkg.strategies.registry import (
    AggregatorName,
    ClientParameters,
    DownloadTransforms,
    ReplyContent,
    ServerOptimiserName,
    ServerTransforms,
    Transforms,
    register_strategy,
)
from fedpkg.strategies.traits import Traits, change_numbers, traits_of
from fedpkg.transforms.chain import chain_of, check_way

if TYPE_CHECKING:
    import numpy as np

    from fedpkg.types import Json
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Pipeline:
    """A round: the sampled clients train the global model, their updates are aggregated, the model takes a step.

    Args:
        aggregator: a `FoldingAggregator`, `Aggregator` or `RememberingAggregator`.
        server_optimiser: a `ServerOptimiser`. None: the aggregate is the next model.
        transforms: applied to the updates by their clients.
        server_transforms: applied to the updates on arrival.
        download_transforms: applied to the global model on its way to the clients.
        reply: what clients send: the weights of their model, or the delta of its parameters to those that they got
            (buffers and integers are sent unchanged with it).
        parameters: values that clients find in task.json.
        method: the parameters of a method that the clients implement, which need to be read for it to have an effect.
        client_lines: the functions of `fedpkg.client` that implement it. Empty: loading and saving with it is enough.
    """

    aggregator: Any = field(default_factory=WeightedMean)
    server_optimiser: Any = None
    transforms: tuple[Any, ...] = ()
    server_transforms: tuple[Any, ...] = ()
    download_transforms: tuple[Any, ...] = ()
    reply: Literal["weights", "delta"] = "weights"
    parameters: Mapping[str, Json] | None = None
    method: Mapping[str, Json] = field(default_factory=dict)
    client_lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError: transforms do not fit together, or to their place; a parameter is given twice."""
        for name in self.method.keys() & (self.parameters or {}):
            raise ValueError(f"parameters: {name} is set by the strategy's own keys")
        check_way("transforms", self.transforms)
        check_way("server_transforms", self.server_transforms)
        check_way("download_transforms", self.download_transforms, of_models=True)
        for step in self.server_transforms:
            if getattr(step, "error_feedback", False):
                raise ValueError(f"server_transforms: {type(step).__name__} has error_feedback, which is for clients")

    @functools.cached_property
    def traits(self) -> Traits:
        """Those of its aggregator, and what the other parts make of them."""
        of = traits_of(self.aggregator)
        goes_on = self.server_optimiser is not None or self.server_transforms or self.reply == "delta"
        return replace(
            of,
            treatment=of.treatment if self.server_optimiser is None else "step",
            only_averages=of.only_averages and not goes_on,
            reply=self.reply,
            in_trees=of.in_trees,
            why_not_in_trees=of.why_not_in_trees,
            changes_numbers=change_numbers(self.transforms, self.server_transforms, self.download_transforms),
            server_optimiser=self.server_optimiser,
            clients_read=tuple(self.method),
            client_lines=self.client_lines,
        )

    def init(self, seed_model: Weights) -> State:
        return {"model": seed_model, "step": 0}

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        step = state["step"] + 1
        state = {**state, "step": step}
        if self._remembers or self.server_transforms:
            state["draw"] = int(rng.integers(1 << 62))
        request = Request(
            request_id=f"train-{step}",
            payload=state["model"],
            parameters={**self.method, **(self.parameters or {})},
            reply=self.reply,
            rest=self.reply == "delta",
            transforms=chain_of(self.transforms),
            download=chain_of(self.download_transforms),
            use="averaged" if self.traits.only_averages else "stepped",
        )
        return state, [request]

    @property
    def fold(self) -> Callable[..., Fold[Weights]] | None:
        """How a round's replies are folded, given the state after `ask`. None: the aggregator needs all at once."""
        if (of_aggregator := fold_of(self.aggregator)) is None:
            return None

        def fold(state: State, start: int = 0) -> Fold[Weights]:
            return Changed(of_aggregator(state["model"], start), self._arriving(state))

        return fold

    def tell(self, state: State, replies: Iterator[Reply]) -> State:
        model = state["model"]
        kept = {name: value for name, value in state.items() if name != "draw"}
        if (fold := self.fold) is not None:
            aggregate = folded(fold(state), replies)
        elif self._remembers:
            import numpy as np

            rng, memory = np.random.default_rng(state.get("draw", 0)), state.get("aggregator", {})
            aggregate, kept["aggregator"] = self.aggregator.aggregate_next(
                map(self._arriving(state), replies), model, memory, rng
            )
        else:
            aggregate = self.aggregator.aggregate(map(self._arriving(state), replies), model)
        if self.server_optimiser is None:
            return {**kept, "model": aggregate}
        memory = state.get("server_optimiser", {})
        stepped, kept["server_optimiser"] = self.server_optimiser.step(model, aggregate, memory)
        return {**kept, "model": stepped}

    @functools.cached_property
    def _remembers(self) -> bool:
        return isinstance(self.aggregator, RememberingAggregator)

    def _arriving(self, state: State) -> Callable[[Reply], Reply]:
        """The function that is applied to each reply before it is aggregated."""
        model, draw, chain = state["model"], state.get("draw", 0), chain_of(self.server_transforms)

        def arrived(reply: Reply) -> Reply:
            if self.reply == "delta":
                reply = reply.with_weights(_moved_by(model, reply.weights))
            if chain is not None:
                reply = reply.with_weights(chain.there_and_back(reply.weights, model, seed=draw + reply.position))
            return reply

        return arrived


def _moved_by(model: Weights, delta: Weights) -> Weights:
    """The model plus a difference of its parameters; other tensors are those sent with the delta, else the model's."""
    from fedpkg.weights.weights import Weights

    moved = {name: model[name] + delta[name] for name in model.parameters}
    return Weights({**model, **delta, **moved}, buffers=model.buffers)


@register_strategy(
    "pipeline", equation="a = aggregator(w_1, ..., w_n);  w <- server_optimiser(w, w - a), without one w <- a"
)
def pipeline(
    aggregator: AggregatorName = "weighted_mean",
    server_optimiser: ServerOptimiserName = None,
    transforms: Transforms = (),
    server_transforms: ServerTransforms = (),
    download_transforms: DownloadTransforms = (),
    reply: ReplyContent = "weights",
    parameters: ClientParameters = None,
) -> Pipeline:
    """An aggregator and an optional server optimiser, for a `strategy` without a name."""
    return Pipeline(aggregator, server_optimiser, transforms, server_transforms, download_transforms, reply, parameters)
