"""The protocol of a strategy: one step over plain state, and what passes between it and the clients.

A strategy keeps nothing in itself. Its state is data (named `Weights`, numbers, text, lists and dicts of them) that the
controller saves after every step, so every method resumes. The state's ``"model"`` is the global model, unless the
strategy has none (`fedpkg.strategies.traits.Traits.has_model`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from fedpkg.errors import SessionFailed
from fedpkg.strategies.virtual_clock import VirtualClock
from fedpkg.types import Content, Json, ReplyKind, Sampling, Use

if TYPE_CHECKING:  # to list strategies must not cost PyTorch
    import numpy as np

    from fedpkg.transforms.chain import Chain
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights

State: TypeAlias = dict[str, Any]
Payload: TypeAlias = "Weights | Mapping[str, Weights] | Records"


@dataclass(frozen=True)
class Request:
    """A question to clients: run this entry point on this payload, and send that kind of reply.

    Args:
        request_id: unique within the round; without one, requests are numbered from 1.
        payload: the weights that are staged as the input model; or several named sets of them, or records, in one file.
        clients: who is asked, in cohort order; None: the ``group``, else whom the session's sampler chooses.
        transforms: of an update on its way from the client; None: it comes as it is.
        download: transforms of the payload on its way to the clients, who get what it is decoded to.
        group: who is asked goes by this name (`clients.groups` of the run.yaml); calls and bytes are counted by it.
        entry_point: of the compute package.
        reply_kind: what is expected back: ``update`` (it fits the payload, or the global model if that is several
            sets or records), ``sets``, ``metrics``, or ``records``.
        reply: what the tensors of an update are: ``weights`` of a model; or a ``delta`` or ``gradient``, which have the
            parameters alone. The entry point finds it in task.json.
        rest: a ``delta`` has the other tensors as well, as they are (where a client sends none, the payload's).
        sets: that a reply of kind ``sets`` holds, and what each must fit; None: the payload's parameters (of several
            sets: the global model's).
        parameters: travel in task.json and in the input's metadata (e.g. ``proximal_mu``).
        use: ``averaged``, if nothing is made of the replies' numbers but means, medians and the like, which lie between
            them; otherwise they must not be so large that a square or a step of them is not finite.
        wait: for the replies of ``all`` who are asked; or for so many usable ones: the first count, and the tasks of
            the others are ended. Which were the first is on record, and replayed when the round is resumed. Or for
            ``nothing``: the request stays outstanding while the step goes on, also over rounds, until `Arrived` has
            it. A client may have several such requests, which it answers one after the other; it cannot be asked
            anything else meanwhile.
        required: usable replies without which the round fails; None: as many as ``round.required`` says, if so many
            are asked; 0 of an outstanding request.
    """

    request_id: str = ""
    payload: Payload = field(kw_only=True)
    clients: tuple[str, ...] | None = None
    entry_point: str = "train"
    reply_kind: ReplyKind = ReplyKind.UPDATE
    sets: Mapping[str, Weights | None] = field(default_factory=dict)
    parameters: Mapping[str, Json] = field(default_factory=dict)
    reply: Content = "weights"
    rest: bool = False
    transforms: Chain | None = None
    download: Chain | None = None
    group: str | None = None
    required: int | None = None
    wait: Literal["all", "nothing"] | int = "all"
    use: Use = "stepped"


@dataclass(frozen=True)
class Arrived:
    """What a step yields to get outstanding requests that have been answered, or have failed: a tuple of `Replies`.

    They come in the order in which they arrived, which is on record and replayed when the round is resumed. From then
    on they count in this round.

    Args:
        number: the step waits for so many; it gets fewer if no more are outstanding, or within ``round.timeout_s`` no
            more arrive. 0: those that have arrived by now, without waiting.
    """

    number: int = 1


@dataclass(frozen=True)
class Reply:
    """One client's checked answer: it is as asked, and finite. Its weights are mapped: copy what outlives the round.

    ``sets`` are those that were asked for, in that order; an update is one set without a name, ``weights``. The
    ``num_examples`` of metrics are what they weigh in an average: of one source for all replies to a request, and 0
    for a client that measured on nothing. Those of records are what they say, else 1; their tensors may hold anything,
    also NaN.
    """

    request_id: str
    position: int  # in the cohort; replies come in this order, with gaps where clients failed
    client_id: str
    sets: Mapping[str, Weights]
    num_examples: float
    metadata: Mapping[str, Json] = field(default_factory=dict)
    metrics: Json = None
    records: Records | None = None

    @property
    def weights(self) -> Weights:
        return self.sets[""]

    def with_weights(self, weights: Weights) -> Reply:
        """The same answer with another update."""
        return replace(self, sets={"": weights})


def sets_of(payload: Payload) -> Mapping[str, Weights]:
    """The sets of a payload; plain weights are one without a name."""
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights

    if isinstance(payload, Records):
        return payload.sets
    return {"": payload} if isinstance(payload, Weights) else payload


class Replies(Protocol):
    """The replies to one request, in cohort order: an iterator that blocks until the next client has answered."""

    @property
    def request_id(self) -> str: ...

    @property
    def round_number(self) -> int:
        """The round that asked."""
        ...

    @property
    def is_outstanding(self) -> bool:
        """Whether they cannot be had yet: see `Arrived`."""
        ...

    @property
    def asked(self) -> tuple[str, ...]:
        """The cohort."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """Of the cohort, those whose replies do not count. Blocks until that is known."""
        ...

    def __iter__(self) -> Iterator[Reply]: ...

    def __next__(self) -> Reply: ...


@dataclass(frozen=True)
class Client:
    """What a strategy may know of a client before it asks."""

    client_id: str
    groups: tuple[str, ...] = ()
    num_examples: float | None = None  # as its last reply said, else as its data was split


@dataclass(frozen=True)
class StepContext:
    """What a step is taken with. ``rng`` is keyed by (session seed, round), so a repeated step asks the same.

    ``clients`` are those that may train: not those held out. ``required`` is what ``round.required`` says: a request
    goes by it, if it does not say otherwise; of several for one cohort, `fedpkg.strategies.requests.enough`.
    """

    round_number: int
    rng: np.random.Generator
    clients: tuple[Client, ...]
    sample: Callable[[], tuple[str, ...]]  # the session's sampler; each call draws anew
    sampling: Sampling = field(default_factory=Sampling)
    clock: VirtualClock = field(default_factory=VirtualClock)
    required: int = 1

    def group(self, name: str) -> tuple[str, ...]:
        return tuple(client.client_id for client in self.clients if name in client.groups)


@dataclass(frozen=True)
class StepResult:
    """What a step comes to. A step with nothing else to tell may return the state alone (`StepResult.of`).

    Args:
        state: the state after the step.
        metrics: numbers that are shown with the round, and any other JSON, which is kept with it.
        finished: why the session ends after this round; None: it goes on.
        time_s: the session's virtual seconds after the step, from a strategy that counts them itself; None: the
            controller counts them. Without a virtual clock it is not looked at.
    """

    state: State
    metrics: Mapping[str, Json] = field(default_factory=dict)
    finished: str | None = None
    time_s: float | None = None

    @classmethod
    def of(cls, found: State | StepResult) -> StepResult:
        """What a step returned, or what was kept of one. Beside a plain state, its keys ``metrics``, ``finished`` and
        ``time`` say the rest.
        """
        if isinstance(found, StepResult):
            return found
        said = found if isinstance(found, Mapping) else {}
        return cls(found, said.get("metrics", {}), said.get("finished"), said.get("time"))

    @property
    def model(self) -> Weights:
        """The global model, of a strategy that has one."""
        model: Weights = self.state["model"]
        return model

    @property
    def kept(self) -> State:
        """What is saved: the state, and why the session ends, which whoever resumes it must know (see `of`)."""
        return self.state if self.finished is None else {**self.state, "finished": self.finished}


_Found = TypeVar("_Found")
# Yields a request and receives its `Replies`, or yields several, to be asked at once, and receives a tuple of those; or
# yields `Arrived`, and receives a tuple.
Asks: TypeAlias = Generator[Request | Sequence[Request] | Arrived, Any, _Found]
Step: TypeAlias = Asks["State | StepResult"]


@runtime_checkable
class ParticularStrategy(Protocol):
    """A strategy that cannot run with every sampler or number of clients, and says so before the session starts."""

    def check(self, sampling: Sampling, num_clients: int) -> None:
        """Raises ConfigError: it cannot be run so."""
        ...


class SteppingStrategy(Protocol):
    """A method as it is written on paper: a step that asks as often as it likes, and returns the state after it.

    What it is besides, it says in its ``traits`` (`fedpkg.strategies.traits.Traits`).
    """

    def init(self, seed_model: Weights) -> State:
        """The state before the first step."""
        ...

    def step(self, state: State, ctx: StepContext) -> Step:
        """Take one outer step, a round: from the state after the last one to the state after this one (`StepResult`).

        A round that was killed takes the step again, from the same state and with the same draws, and its requests
        find their results on record: the step must depend on nothing else.

        Raises:
            AggregationError: nothing sensible can be made of the replies.
        """
        ...


class Strategy(Protocol):
    """A step that asks once, said in two halves: what is asked of the clients, and what is made of their replies."""

    def init(self, seed_model: Weights) -> State:
        """The state before the first step."""
        ...

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        """The next requests. ``rng`` is keyed by (session seed, step), so a repeated step asks the same."""
        ...

    def tell(self, state: State, replies: Iterator[Reply]) -> State | StepResult:
        """The state after the step. ``replies`` may block until the next client has answered.

        Raises:
            AggregationError: nothing sensible can be made of the replies.
        """
        ...


def take_step(strategy: Strategy | SteppingStrategy, state: State, ctx: StepContext) -> Asks[StepResult]:
    """The step of any strategy: its own, or one that asks and tells.

    Raises:
        SessionFailed: its step is no generator.
    """
    step = strategy.step(state, ctx) if hasattr(strategy, "step") else _ask_and_tell(strategy, state, ctx)
    if not isinstance(step, Generator):
        raise SessionFailed(f"round {ctx.round_number}: a step is a generator: it yields requests, and this does not")
    return StepResult.of((yield from step))


def _ask_and_tell(strategy: Strategy, state: State, ctx: StepContext) -> Step:
    state, requests = strategy.ask(state, ctx.rng)
    replies: tuple[Replies, ...] = yield requests
    return strategy.tell(state, itertools.chain.from_iterable(replies))


def changed(
    step: Asks[_Found],
    change: Callable[[Request], Request],
    read: Callable[[Replies, Request, Request], Replies] | None = None,
) -> Asks[_Found]:
    """The step, with its requests changed on their way out.

    Args:
        read: makes the replies that the step gets from those that came, its own request, and the changed one.
    """
    answers: Any = None
    try:
        while True:
            asks = step.send(answers)
            if isinstance(asks, Arrived):
                answers = yield asks
                continue
            own = [asks] if isinstance(asks, Request) else list(asks)
            sent = [change(request) for request in own]
            came = yield sent[0] if isinstance(asks, Request) else sent
            found: tuple[Replies, ...] = (came,) if isinstance(asks, Request) else came
            if read is not None:
                found = tuple(read(*one) for one in zip(found, own, sent, strict=True))
            answers = found[0] if isinstance(asks, Request) else found
    except StopIteration as end:
        result: _Found = end.value
        return result
    finally:
        step.close()
