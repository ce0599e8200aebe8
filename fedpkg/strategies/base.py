"""The protocol of a strategy: one step over plain state, and the requests and replies between it and the clients.

A strategy object keeps no state. Its state is data (named `Weights`, numbers, text, lists and dicts of them) that the
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

if TYPE_CHECKING:  # listing strategies must not import PyTorch
    from pathlib import Path

    import numpy as np

    from fedpkg.transforms.chain import Chain
    from fedpkg.waist.answer import Failure
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights

State: TypeAlias = dict[str, Any]
Payload: TypeAlias = "Weights | Mapping[str, Weights] | Records"


@dataclass(frozen=True)
class Request:
    """A request to clients: run an entry point on a payload, and send a kind of reply.

    Args:
        request_id: unique within the round. Without one, requests are numbered from 1.
        payload: the weights that are staged as the input model; or several named sets of weights, or records, in one
            file.
        clients: the clients to ask, in cohort order. None: those of ``group``, else those that the session's sampler
            chooses.
        transforms: transforms of the update on its way from the client. None: it is sent unchanged.
        download: transforms of the payload on its way to the clients, which get the decoded payload.
        group: the group of clients to ask (`clients.groups` of the run.yaml). Requests and bytes are counted under its
            name.
        entry_point: an entry point of the compute package.
        reply_kind: the expected reply: ``update`` (it fits the payload, or the global model if the payload has several
            sets or records), ``sets``, ``metrics``, or ``records``.
        reply: the content of an update: ``weights`` of a model; or a ``delta`` or ``gradient``, which have the
            parameters alone. The entry point finds it in task.json.
        rest: a ``delta`` also has the other tensors, unchanged (if a client sends none, those of the payload).
        sets: the sets of a reply of kind ``sets``, with a template for each. None: the payload's parameters (if it has
            several sets: the global model's).
        parameters: values in task.json and in the input's metadata (e.g. ``proximal_mu``).
        use: ``averaged`` if only means, medians and the like are made of the replies' numbers, which lie between them.
            Otherwise numbers are refused if their square or a step of them would not be finite.
        wait: ``all``: wait for the replies of all clients that were asked. A number: wait for that many usable replies;
            the first ones count, and the tasks of the other clients are ended. The record of the first ones is replayed
            when the round is resumed. ``nothing``: the request stays outstanding while the step continues, also over
            rounds, until `Arrived` returns its reply. A client may have several outstanding requests, which it answers
            one after another; meanwhile it cannot be asked anything else.
        required: the number of usable replies without which the round fails. None: ``round.required``, or the number of
            clients that are asked if that is smaller; 0 for an outstanding request.
        payloads: records for single clients, by their ids, in place of ``payload``.
        timeout_s: seconds after which the request is complete: clients that have not answered are recorded as failed.
            None: ``round.timeout_s`` alone. Not for outstanding requests.
        phase: for replies of records, what the numbers in their metadata are: metrics of the clients' training, or of
            the validation of this round's model. They are recorded, averaged and shown as such. None: neither.
        as_files: replies of records are not opened: they have a ``file`` instead of ``records``.
        seed_number: the seeds of the tasks derive from it. None: from the number of the request in its round.
        contributes: whether the clients that answer with weights count as contributors to the model.
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
    payloads: Mapping[str, Records] = field(default_factory=dict)
    timeout_s: float | None = None
    phase: Literal["train", "validate"] | None = None
    as_files: bool = False
    seed_number: int | None = None
    contributes: bool = True


@dataclass(frozen=True)
class Arrived:
    """A step yields this to get a tuple of `Replies` to outstanding requests that were answered or have failed.

    They are in the order of arrival, which is recorded and replayed when the round is resumed. They count in this
    round.

    Args:
        number: the number of replies to wait for. The step gets fewer if no more are outstanding, or no more arrive
            within ``round.timeout_s``. 0: those that have arrived, without waiting.
    """

    number: int = 1


@dataclass(frozen=True)
class Reply:
    """One client's answer, checked and finite. Its weights are mapped: copy those that you need after the round.

    ``sets`` are the requested ones, in that order; an update is one set without a name, ``weights``. The
    ``num_examples`` of metrics are their weight in an average, from the same source for all replies to a request, and 0
    for a client that measured on no examples. Those of records are what the records contain, else 1. Tensors of records
    may contain any value, also NaN.
    """

    request_id: str
    position: int  # in the cohort; replies come in this order, with gaps where clients failed
    client_id: str
    sets: Mapping[str, Weights]
    num_examples: float
    metadata: Mapping[str, Json] = field(default_factory=dict)
    metrics: Json = None
    records: Records | None = None
    file: Path | None = None  # of records that were requested as files

    @property
    def weights(self) -> Weights:
        return self.sets[""]

    def with_weights(self, weights: Weights) -> Reply:
        """The same answer with another update."""
        return replace(self, sets={"": weights})


def sets_of(payload: Payload) -> Mapping[str, Weights]:
    """The sets of a payload; plain weights are one set without a name."""
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
        """Whether the replies are outstanding: see `Arrived`."""
        ...

    @property
    def asked(self) -> tuple[str, ...]:
        """The cohort."""
        ...

    @property
    def virtual_s(self) -> float:
        """The seconds until the last reply that counts, by the virtual clock; 0 without one."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """The clients of the cohort without a usable reply. Blocks until all have answered or failed."""
        ...

    @property
    def failures(self) -> Mapping[str, Failure]:
        """Why clients are missing, by their ids, with the last line of their logs, as far as their tasks have failed.
        Blocks as ``missing`` does.
        """
        ...

    def __iter__(self) -> Iterator[Reply]: ...

    def __next__(self) -> Reply: ...


@dataclass(frozen=True)
class Client:
    """What a strategy knows about a client before it asks."""

    client_id: str
    groups: tuple[str, ...] = ()
    num_examples: float | None = None  # from its last reply, else from the split of the data
    position: int = 0  # among all clients of the session, from 0
    attributes: Mapping[str, Json] = field(default_factory=dict)  # of the entity that it stands for


@dataclass(frozen=True)
class StepContext:
    """The context of a step. ``rng`` is keyed by (session seed, round), so a repeated step asks the same.

    ``clients`` are those that may train, without those held out. ``required`` is ``round.required``, the default of
    each request; for several requests to one cohort see `fedpkg.strategies.requests.enough`. ``time_s``: the virtual
    time at the start of the round. ``choose(sampler, clients, purpose)``: those of the clients that a sampler chooses,
    by draws that the purpose keys; None: the session's sampler. ``report`` gets what a combiner of a tree did, each
    time that it has passed its model upward or has failed.
    """

    round_number: int
    rng: np.random.Generator
    clients: tuple[Client, ...]
    sample: Callable[[], tuple[str, ...]]  # the session's sampler; each call draws anew
    sampling: Sampling = field(default_factory=Sampling)
    clock: VirtualClock = field(default_factory=VirtualClock)
    required: int = 1
    time_s: float = 0.0
    choose: Callable[[Any, tuple[str, ...], str], Chosen] = lambda sampler, clients, purpose: Chosen(
        clients, len(clients)
    )
    report: Callable[[CombinerResult], None] = lambda result: None

    def group(self, name: str) -> tuple[str, ...]:
        return tuple(client.client_id for client in self.clients if name in client.groups)


class NobodyToAsk(Exception):
    """The sampler found too few clients for a round: no client is asked, and the model is unchanged."""


@dataclass(frozen=True)
class Chosen:
    """Clients that a sampler has chosen; ``target``: the number of answers to wait for."""

    clients: tuple[str, ...]
    target: int


@dataclass(frozen=True)
class CombinerResult:
    """What a combiner of a tree did in a round of the session.

    ``path`` of the root is empty. ``num_reports``: how often it was asked for a model, which is once for each round of
    the combiner above; ``num_failed``: how often it had none; ``reason``: why, the last time, or why it ended before
    its last round. ``rounds`` are those that it has begun and that found clients, and ``virtual_s`` is the time that
    they took by the virtual clock; ``num_asked`` and ``num_ok`` count its children in the last of them; ``num_bytes``
    is the size of the model. ``metrics`` are means of the numbers that clients send with their updates.
    """

    path: str
    reason: str = ""
    num_reports: int = 1
    num_failed: int = 0
    rounds: int = 1
    num_asked: int = 0
    num_ok: int = 0
    num_examples: float = 0.0
    num_bytes: int = 0
    virtual_s: float = 0.0
    metrics: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterModel:
    """The global model of a cluster of clients: of clients that were found alike, or of those below a combiner.

    Args:
        clients: the ids of the clients that belong to it now, also those that did not train in this round, and those
            that are held out.
        parents: the paths of those clusters of the round before from whose models it comes; an empty path is the
            session's global model. Without any: the one of the same path, or, if there was none, the session's.
        num_examples: of what contributed to it in this round.
    """

    model: Weights
    clients: tuple[str, ...]
    parents: tuple[str, ...] = ()
    num_examples: float = 0.0


LONGEST_NAME = 100  # characters
LONGEST_PATH = 2000  # bytes, of a cluster; PostgreSQL has no index of longer texts
ROOT = "(root)"  # shown in place of the empty path
_RESERVED = (ROOT, ".", "..")
ABOUT_NAMES = (
    f"a name has 1 to {LONGEST_NAME} printable characters, no '/', no space at its ends, and is none of "
    f"{', '.join(_RESERVED)}"
)


def is_name(name: str) -> bool:
    """Whether this can be a name in the path of a combiner or of a cluster (`ABOUT_NAMES`)."""
    is_plain = name.isprintable() and "/" not in name and name == name.strip()
    return is_plain and 0 < len(name) <= LONGEST_NAME and name not in _RESERVED


def upward(path: str) -> Iterator[str]:
    """The path of a combiner, and those of all above it, up to the root."""
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path


ENDED = "ended"  # `StepResult.finished` of a strategy that has done all that it was to do: there is no more to say


def not_data(state: object) -> str:
    """What a state contains that cannot be saved, as "a set"; empty: nothing. Weights, numbers, text, and lists and
    dicts of them can.
    """
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights

    plain = frozenset((str, int, float, bool, type(None)))  # looked up first: states have thousands of them
    data = (Weights, Records, str, int, float)

    def of(value: object) -> str:
        if type(value) in plain or isinstance(value, data):
            return ""
        if not isinstance(value, (Mapping, list, tuple)):
            return f"a {type(value).__name__}"
        return next(filter(None, map(of, value.values() if isinstance(value, Mapping) else value)), "")

    return of(state)


@dataclass(frozen=True)
class StepResult:
    """The result of a step. A step may also return the state alone (`StepResult.of`).

    Args:
        state: the state after the step.
        metrics: numbers to show with the round, and any other JSON to keep with it.
        finished: why the session ends after this round. None: it continues.
        time_s: the session's virtual seconds after the step, if the strategy counts them. None: the controller counts
            them. Without a virtual clock it has no effect.
        combiners: what each combiner of a tree did in the round.
        clusters: the models of all clusters after the step, also of those that did not change, by their paths: names
            with ``/`` between them (``a``, ``a/b``). A client may belong to ``a`` and ``a/b``, and has the model of the
            deepest one. The models are also to be in the state, if the strategy needs them again. Empty: the session
            has one global model.
    """

    state: State
    metrics: Mapping[str, Json] = field(default_factory=dict)
    finished: str | None = None
    time_s: float | None = None
    combiners: tuple[CombinerResult, ...] = ()
    clusters: Mapping[str, ClusterModel] = field(default_factory=dict)

    @classmethod
    def of(cls, found: State | StepResult) -> StepResult:
        """The result of what a step returned, or of a saved state. A plain state may have the keys ``metrics``,
        ``finished`` and ``time``.
        """
        if isinstance(found, StepResult):
            return found
        said = found if isinstance(found, Mapping) else {}
        return cls(found, said.get("metrics", {}), said.get("finished"), said.get("time"))

    @property
    def model(self) -> Weights:
        """The global model, if the strategy has one."""
        model: Weights = self.state["model"]
        return model

    @property
    def kept(self) -> State:
        """What is saved: the state, and why the session ends, which is needed to resume it (see `of`)."""
        return self.state if self.finished is None else {**self.state, "finished": self.finished}


_Found = TypeVar("_Found")
# Yields a request and receives its `Replies`, or yields several, to be asked at once, and receives a tuple of those; or
# yields `Arrived`, and receives a tuple.
Asks: TypeAlias = Generator[Request | Sequence[Request] | Arrived, Any, _Found]
Step: TypeAlias = Asks["State | StepResult"]


@runtime_checkable
class ParticularStrategy(Protocol):
    """A strategy that cannot run with every sampler or number of clients, and checks them before the session starts."""

    def check(self, sampling: Sampling, num_clients: int) -> None:
        """Raises ConfigError: it cannot run with these."""
        ...


class SteppingStrategy(Protocol):
    """A method as in its paper: a step that makes any number of requests, and returns the state after it.

    Its ``traits`` (`fedpkg.strategies.traits.Traits`) hold its other properties.
    """

    def init(self, seed_model: Weights) -> State:
        """The state before the first step."""
        ...

    def step(self, state: State, ctx: StepContext) -> Step:
        """Take one outer step, a round: from the state after the last round to the state after this one (`StepResult`).

        If a round is killed, the step is taken again, from the same state, with the same draws and with the recorded
        results of its requests. So the step must not depend on anything else.

        Raises:
            AggregationError: the replies cannot be aggregated.
        """
        ...


class Strategy(Protocol):
    """A method that makes all requests of a step at once, in two halves: the requests, and the state after them."""

    def init(self, seed_model: Weights) -> State:
        """The state before the first step."""
        ...

    def ask(self, state: State, rng: np.random.Generator) -> tuple[State, list[Request]]:
        """The next requests. ``rng`` is keyed by (session seed, step), so a repeated step asks the same."""
        ...

    def tell(self, state: State, replies: Iterator[Reply]) -> State | StepResult:
        """The state after the step. ``replies`` may block until the next client has answered.

        Raises:
            AggregationError: the replies cannot be aggregated.
        """
        ...


def take_step(strategy: Strategy | SteppingStrategy, state: State, ctx: StepContext) -> Asks[StepResult]:
    """The step of any strategy: its ``step``, or one made of its ``ask`` and ``tell``.

    Raises:
        SessionFailed: the step is not a generator.
    """
    step = strategy.step(state, ctx) if hasattr(strategy, "step") else _ask_and_tell(strategy, state, ctx)
    if not isinstance(step, Generator):
        raise SessionFailed(f"round {ctx.round_number}: the step is not a generator: it must yield its requests")
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
    """The step, with its requests changed before they are sent.

    Args:
        read: makes the replies that the step gets from the actual ones, the original request, and the changed one.
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
