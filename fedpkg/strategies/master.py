"""Server steps in float32 for models in half precision, so that small steps are not rounded away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from fedpkg.errors import SessionFailed
from fedpkg.strategies.base import (
    Payload,
    Replies,
    Reply,
    Request,
    State,
    Step,
    StepContext,
    SteppingStrategy,
    StepResult,
    Strategy,
    changed,
    sets_of,
    take_step,
)
from fedpkg.strategies.traits import Traits, traits_of

if TYPE_CHECKING:
    import torch

    from fedpkg.waist.answer import Failure
    from fedpkg.weights.weights import Weights

    Dtypes: TypeAlias = Mapping[str, torch.dtype]

_KEY = "master"


def with_master(strategy: Strategy | SteppingStrategy) -> Strategy | SteppingStrategy:
    """The strategy, in float32 if the server takes steps and the model has parameters in half precision."""
    return WithMaster(strategy) if traits_of(strategy).treatment in ("step", "parameters") else strategy


@dataclass(frozen=True)
class WithMaster:
    """A strategy whose model has parameters in float32, while clients and the stored models have them rounded.

    ``state["master"]`` is the float32 model, ``state["model"]`` the same in the dtypes of the seed model. A client
    trains from the rounded model, so the rounding error is added to the weights that it sends back: its change is then
    applied to the float32 model. Without parameters in half precision it has no effect.

    Its traits are those of the strategy.
    """

    strategy: Strategy | SteppingStrategy

    @property
    def traits(self) -> Traits:
        return traits_of(self.strategy)

    def init(self, seed_model: Weights) -> State:
        dtypes = _half_dtypes(seed_model)
        if not dtypes:
            return self.strategy.init(seed_model)
        return _with_master(self.strategy.init(_widened(seed_model)), dtypes)

    def step(self, state: State, ctx: StepContext) -> Step:
        if _KEY not in state:
            return (yield from take_step(self.strategy, state, ctx))
        dtypes = _half_dtypes(state["model"])
        own: State = {name: value for name, value in state.items() if name != _KEY} | {"model": state[_KEY]}
        rounded = {id(own["model"]): state["model"]}
        step = changed(take_step(self.strategy, own, ctx), lambda request: _sent(request, dtypes, rounded), _Wide)
        result = StepResult.of((yield from step))
        clusters = {path: replace(one, model=_rounded(one.model, dtypes)) for path, one in result.clusters.items()}
        return replace(result, state=_with_master(result.state, dtypes), clusters=clusters)


def given_model(state: State, model: Weights, strategy: Strategy | SteppingStrategy) -> State:
    """The state of a strategy without a model (`without_model`), with this model."""
    dtypes = _half_dtypes(model) if isinstance(strategy, WithMaster) else {}
    if not dtypes:
        return {**state, "model": model}
    return _with_master({**state, "model": _widened(model)}, dtypes)


def without_model(state: State) -> State:
    return {name: value for name, value in state.items() if name not in ("model", _KEY)}


def wide_model(state: State) -> Weights:
    """The float32 model of a state, if it has one; else its model."""
    model: Weights = state[_KEY] if _KEY in state else state["model"]
    return model


def with_wide_model(state: State, model: Weights) -> State:
    """The state with another `wide_model`."""
    if _KEY not in state:
        return {**state, "model": model}
    return _with_master({**state, "model": model}, _half_dtypes(state["model"]))


def _with_master(state: State, dtypes: Dtypes) -> State:
    return {**state, "model": _rounded(state["model"], dtypes), _KEY: state["model"]}


class _Wide:
    """Replies in float32, corrected by the rounding error of the payload of their request."""

    def __init__(self, replies: Replies, asked: Request, sent: Request) -> None:
        self._replies = replies
        self._lost: dict[str, Weights] = {}
        if asked.reply == "weights":
            rounded = sets_of(sent.payload)
            self._lost = {name: _lost(exact, rounded[name]) for name, exact in sets_of(asked.payload).items()}

    @property
    def request_id(self) -> str:
        return self._replies.request_id

    @property
    def round_number(self) -> int:
        return self._replies.round_number

    @property
    def is_outstanding(self) -> bool:
        return self._replies.is_outstanding

    @property
    def asked(self) -> tuple[str, ...]:
        return self._replies.asked

    @property
    def virtual_s(self) -> float:
        return self._replies.virtual_s

    @property
    def missing(self) -> tuple[str, ...]:
        return self._replies.missing

    @property
    def failures(self) -> Mapping[str, Failure]:
        return self._replies.failures

    def __iter__(self) -> Iterator[Reply]:
        return self

    def __next__(self) -> Reply:
        reply = next(self._replies)
        return replace(reply, sets={name: self._moved(name, weights) for name, weights in reply.sets.items()})

    def _moved(self, name: str, weights: Weights) -> Weights:
        from fedpkg.weights.weights import Weights

        wide, lost = _widened(weights), self._lost.get(name)
        moved = {key: wide[key] + tensor for key, tensor in (lost or {}).items() if key in wide}
        return Weights({**wide, **moved}, buffers=wide.buffers)


def _sent(request: Request, dtypes: Dtypes, rounded: Mapping[int, Weights]) -> Request:
    """A request as the clients get it. ``rounded``: payloads that are rounded already, by id."""
    from fedpkg.weights.records import Records

    if request.wait == "nothing":
        raise SessionFailed(
            "requests that send a model in half precision cannot stay outstanding: the rounding error is not kept",
            hint="use a seed model in float32",
        )
    payload: Payload
    if isinstance(request.payload, Records):  # not a model: it is sent unchanged
        payload = request.payload
    elif id(request.payload) in rounded:
        payload = rounded[id(request.payload)]
    else:
        sets = {name: _rounded(weights, dtypes) for name, weights in sets_of(request.payload).items()}
        payload = sets[""] if set(sets) == {""} else sets
    fits = {name: None if like is None else _rounded(like, dtypes) for name, like in request.sets.items()}
    return replace(request, payload=payload, sets=fits)


def _half_dtypes(model: Weights) -> Dtypes:
    """The dtypes of the parameters in half precision or less."""
    found = {name: model[name].dtype for name in model.parameters}
    return {name: dtype for name, dtype in found.items() if dtype.is_floating_point and dtype.itemsize < 4}


def _widened(weights: Weights) -> Weights:
    from fedpkg.weights.weights import Weights

    wide = {name: weights[name].float() for name in _half_dtypes(weights)}
    return Weights({**weights, **wide}, buffers=weights.buffers) if wide else weights


def _rounded(weights: Weights, dtypes: Dtypes) -> Weights:
    from fedpkg.weights.weights import Weights

    narrow = {name: weights[name].to(dtype) for name, dtype in dtypes.items() if name in weights}
    return Weights({**weights, **narrow}, buffers=weights.buffers)


def _lost(exact: Weights, rounded: Weights) -> Weights:
    """The rounding error."""
    from fedpkg.weights.weights import Weights

    return Weights({name: exact[name].float() - rounded[name].float() for name in _half_dtypes(rounded)})
