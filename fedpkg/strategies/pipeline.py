"""Strategies by composition: ask everyone sampled to train, aggregate the updates, step the global model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fedpkg.registry import Part
from fedpkg.strategies.aggregators.base import RememberingAggregator
from fedpkg.strategies.aggregators.mean import WeightedMean
from fedpkg.strategies.base import Reply, Request, State
from fedpkg.strategies.folds import Changed, Fold, fold_of, folded
from fedpkg.strategies.registry import Transforms, register_strategy
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
        server_optimiser: a `ServerOptimiser`; None: the aggregate is the next model.
        transforms: of the updates, by their clients.
        server_transforms: of the updates when they have arrived; nothing travels less for them.
        download_transforms: of the global model on its way to the clients.
        reply: what clients send: the weights of their model, or the delta of its parameters to those that they got
            (buffers and integers come with it as they are).
        parameters: for the clients, whose task.json has them.
        method: of a method that is the clients' own: parameters, too, which it does nothing without.
        client_lines: what of `fedpkg.client` does that; nothing, if it is enough to load and save by it.
    """

    aggregator: Annotated[Any, Part("aggregator")] = field(default_factory=WeightedMean)
    server_optimiser: Annotated[Any, Part("server_optimiser")] = None
    transforms: Transforms = ()
    server_transforms: Transforms = ()
    download_transforms: Transforms = ()
    reply: Literal["weights", "delta"] = "weights"
    parameters: Mapping[str, Json] | None = None
    method: Mapping[str, Json] = field(default_factory=dict)
    client_lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError: transforms do not go together, or not where they are; a parameter is said twice."""
        for name in self.method.keys() & (self.parameters or {}):
            raise ValueError(f"parameters: {name} is what the strategy's own keys say")
        check_way("transforms", self.transforms)
        check_way("server_transforms", self.server_transforms)
        check_way("download_transforms", self.download_transforms, of_models=True)
        for step in self.server_transforms:
            if getattr(step, "error_feedback", False):
                raise ValueError(f"server_transforms: {type(step).__name__} has error_feedback: only clients can")

    @property
    def traits(self) -> Traits:
        """Those of its aggregator, and what the other parts make of them."""
        of = traits_of(self.aggregator)
        goes_on = self.server_optimiser is not None or self.server_transforms or self.reply == "delta"
        return replace(
            of,
            treatment=of.treatment if self.server_optimiser is None else "step",
            only_averages=of.only_averages and not goes_on,
            reply=self.reply,
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
        if isinstance(self.aggregator, RememberingAggregator) or self.server_transforms:
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
        """How a round's replies are folded, given the state after `ask`; None: the aggregator needs all of them."""
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
        elif isinstance(self.aggregator, RememberingAggregator):
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

    def _arriving(self, state: State) -> Callable[[Reply], Reply]:
        """What is done to a reply before it is aggregated."""
        model, draw, chain = state["model"], state.get("draw", 0), chain_of(self.server_transforms)

        def arrived(reply: Reply) -> Reply:
            if self.reply == "delta":
                reply = reply.with_weights(_moved_by(model, reply.weights))
            if chain is not None:
                reply = reply.with_weights(chain.there_and_back(reply.weights, model, seed=draw + reply.position))
            return reply

        return arrived


def _moved_by(model: Weights, delta: Weights) -> Weights:
    """The model and a difference of its parameters; all else is the delta's, as it came with it, or stays."""
    from fedpkg.weights.weights import Weights

    moved = {name: model[name] + delta[name] for name in model.parameters}
    return Weights({**model, **delta, **moved}, buffers=model.buffers)


@register_strategy(
    "pipeline", equation="a = aggregator(w_1 … w_n);  w <- server_optimiser(w, w - a), without one w <- a"
)
def pipeline(
    aggregator: Annotated[Any, Part("aggregator")] = "weighted_mean",
    server_optimiser: Annotated[Any, Part("server_optimiser")] = None,
    transforms: Transforms = (),
    server_transforms: Transforms = (),
    download_transforms: Transforms = (),
    reply: Literal["weights", "delta"] = "weights",
    parameters: dict[str, Any] | None = None,
) -> Pipeline:
    """An aggregator, and a server optimiser if wanted: what a `strategy` without a name means."""
    return Pipeline(aggregator, server_optimiser, transforms, server_transforms, download_transforms, reply, parameters)
