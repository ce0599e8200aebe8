"""A tree of combiners: each runs rounds of its own strategy over its children, and passes one model upward."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fedpkg.errors import AggregationError, FedpkgError, SessionFailed
from fedpkg.log import event
from fedpkg.strategies.base import (
    Arrived,
    Asks,
    Client,
    ClusterModel,
    CombinerResult,
    NobodyToAsk,
    Replies,
    Reply,
    Request,
    State,
    Step,
    StepContext,
    SteppingStrategy,
    StepResult,
    Strategy,
    not_data,
    take_step,
    upward,
)
from fedpkg.strategies.master import given_model, with_master, without_model
from fedpkg.strategies.traits import Traits, traits_of
from fedpkg.types import Json, ReplyKind, leaves
from fedpkg.waist.answer import Failure

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.strategies")
_Found = TypeVar("_Found")
COMBINERS, CLUSTER_MODELS = "combiners", "cluster_models"  # keys of the state
_PULLED = 8  # combiners above each other whose last steps are taken one within the other; deeper ones need more stack


@dataclass(frozen=True)
class Combiner:
    """A node of a tree.

    Args:
        path: the names from the root's child to itself, with ``/`` between them; of the root: empty.
        strategy: combines what its children send.
        clients: the ids of the clients directly below it.
        children: the combiners directly below it.
        rounds: how many rounds it runs before it passes its model upward.
        required: the least number of usable replies of its children in a round. With fewer it has failed.
        timeout_s: seconds after which clients that have not answered its request count as failed. None: no limit of its
            own.
        parameters: values that its own clients find in task.json.
        arguments: by entry point (``all`` is for each of them), the arguments of its own clients.
        sampler: chooses clients of its whole subtree, anew in each of its rounds (a `CohortSampler`). None: those that
            the nearest combiner above has chosen; of the root, those of the session's sampler.
        said: the name of its strategy, for people.
        keeps_model: it goes on from its own model, and not from the one that it receives.
        own_model: whether its finished model is that of a cluster, of the clients below it that no nearer combiner with
            one has: see `StepResult.clusters`.
    """

    path: str
    strategy: Strategy | SteppingStrategy
    clients: tuple[str, ...] = ()
    children: tuple[Combiner, ...] = ()
    rounds: int = 1
    required: int = 1
    timeout_s: float | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    sampler: Any = None
    said: str = ""
    keeps_model: bool = False
    own_model: bool = False

    @property
    def shown(self) -> str:
        return self.path or "the root"

    def everyone(self) -> Iterator[Combiner]:
        """Itself and all combiners below it, each before those below it. Without recursion, as trees may be deep."""
        waiting = [self]
        while waiting:
            one = waiting.pop()
            yield one
            waiting.extend(reversed(one.children))

    @functools.cached_property
    def stepping(self) -> Strategy | SteppingStrategy:
        """Its strategy, with models in half precision kept in float32."""
        return with_master(self.strategy)

    @functools.cached_property
    def below(self) -> tuple[str, ...]:
        """The clients that its sampler may choose: all below it but those that a sampler further down chooses."""
        found, waiting = list[str](), [self]
        while waiting:
            one = waiting.pop()
            found += one.clients
            waiting.extend(child for child in reversed(one.children) if child.sampler is None)
        return tuple(found)


@dataclass(frozen=True)
class TreeStrategy:
    """The strategy of a tree's root, over children of which each may be a combiner with a strategy of its own.

    The requests of all combiners that are at work are asked at once; when they are answered, so are the next ones. The
    last step of a combiner whose strategy asks once is taken when the combiner above folds its reply, so that models of
    combiners are not kept. Half-precision models of each combiner are kept in float32 (`fedpkg.strategies.master`).

    The state is that of the root's strategy, with those of the other combiners, without their models, under
    ``combiners``. Under ``cluster_models`` are the last models of combiners with `Combiner.own_model`, and those of
    strategies that have several.
    """

    root: Combiner

    @property
    def traits(self) -> Traits:
        # The tree itself looks how many have answered.
        return replace(traits_of(self.root.strategy), needs=1, takes_no_replies=True)

    @functools.cached_property
    def heights(self) -> dict[str, int]:
        """The number of combiners on the longest way down from each one, itself included."""
        found: dict[str, int] = {}
        for one in reversed(list(self.root.everyone())):
            found[one.path] = 1 + max((found[child.path] for child in one.children), default=0)
        return found

    @functools.cached_property
    def places(self) -> dict[str, str]:
        """The path of the combiner above each client."""
        return {name: one.path for one in self.root.everyone() for name in one.clients}

    @functools.cached_property
    def own_clients(self) -> dict[str, tuple[str, ...]]:
        """By path of each combiner with a model of its own, the clients that have it."""
        found: dict[str, list[str]] = {}
        nearest: dict[str, str] = {"": ""}
        for one in self.root.everyone():
            nearest[one.path] = one.path if one.own_model else nearest[one.path.rpartition("/")[0]]
            if one.own_model:
                found[one.path] = []
            if nearest[one.path]:
                found[nearest[one.path]] += one.clients
        return {path: tuple(clients) for path, clients in found.items()}

    @functools.cached_property
    def starting_anew(self) -> frozenset[str]:
        """The paths of combiners whose own models come from those that they received, and so from the session's."""
        return frozenset(one.path for one in self.root.everyone() if one.own_model and not one.keeps_model)

    def samplers_below(self, combiner: Combiner) -> set[str]:
        """The paths of combiners below that choose their clients themselves."""
        return {one.path for one in combiner.everyone() if one.sampler is not None and one is not combiner}

    def init(self, seed_model: Weights) -> State:
        return {**self.root.stepping.init(seed_model), COMBINERS: {}}

    def step(self, state: State, ctx: StepContext) -> Step:
        states = dict(state[COMBINERS])
        own = {name: value for name, value in state.items() if name not in (COMBINERS, CLUSTER_MODELS)}
        work = _Work(self, ctx, states)
        outcome = yield from work.run(own)
        result = outcome.result or StepResult(own)
        kept: dict[str, State] = {
            path: one
            for path, one in {**state.get(CLUSTER_MODELS, {}), **work.clusters}.items()
            if path in self.own_clients or ("clients" in one and path.rpartition("/")[0] in self.heights)
        }
        return replace(
            result,
            state={**result.state, COMBINERS: states, **({CLUSTER_MODELS: kept} if kept else {})},
            clusters={
                path: ClusterModel(
                    one["model"],
                    self.own_clients[path] if path in self.own_clients else tuple(one["clients"]),
                    parents=("",) if path in work.clusters and path in self.starting_anew else (),
                    num_examples=work.examples.get(path, 0.0),
                )
                for path, one in kept.items()
            },
            time_s=ctx.time_s + outcome.virtual_s,
            combiners=tuple(work.results.values()),
        )


@dataclass(frozen=True)
class _Outcome:
    """What a combiner passes upward; without a model: nothing. If there is no failure either, it has asked nobody.

    ``examples``: of each distinct client that has contributed. ``numbers``: means of what clients say of their updates.
    """

    model: Weights | None = None
    examples: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    virtual_s: float = 0.0
    result: StepResult | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class _Cohort:
    """The clients that take part in a combiner's round, and the combiners above them.

    ``share``: of the clients, for whose answers to wait; less than 1 with over-selection.
    """

    clients: frozenset[str]
    combiners: frozenset[str]
    share: float


class _Work:
    """All combiners at work in one step of the session."""

    def __init__(self, tree: TreeStrategy, ctx: StepContext, states: dict[str, State]) -> None:
        self.tree = tree
        self.ctx = ctx
        self.states = states
        self.results: dict[str, CombinerResult] = {}
        self.clusters: dict[str, State] = {}  # models of clusters that were finished, as they are saved
        self.examples: dict[str, float] = {}  # … and what contributed to them
        self.wave: list[tuple[_Open, _Merged, Request]] = []
        self.starting: list[_Open] = []
        self.has_asked = False
        self.may_train = {client.client_id: client for client in ctx.clients}
        self.broken: Exception | None = None  # an error of the controller, which is no combiner's
        self._draw = int(ctx.rng.integers(1 << 62))
        self._numbers: dict[str, int] = {}

    def run(self, state: State) -> Asks[_Outcome]:
        """The root's report."""
        root = _Open(self, self.tree.root, state["model"], state=state)
        self.starting.append(root)
        while root.outcome is None:
            due = [open_ for open_, _, _ in self.wave]
            if self.wave:
                wave, self.wave, self.has_asked = self.wave, [], True
                answers = yield [request for _, _, request in wave]
                for (_, merged, _), replies in zip(wave, answers, strict=True):
                    merged.own = replies
            self._advance(due)
        return root.outcome

    def _advance(self, due: list[_Open]) -> None:
        """Take all steps that can be taken without further replies."""
        due = list(reversed(due))
        while due or self.starting:
            while self.starting:
                one = self.starting.pop()
                one.begin()
                due.append(one)
            one = due.pop()
            if not one.is_done and not one.is_waiting:
                one.advance()
            if not one.is_done:
                due += [] if one.is_waiting or self.starting else [one]
            elif one.above is not None:
                due.append(one.above)

    def number(self, path: str) -> int:
        """The next number of a request of this combiner in the step, from 1."""
        self._numbers[path] = self._numbers.get(path, 0) + 1
        return self._numbers[path]

    def rng(self, *words: object) -> Any:
        import numpy as np

        text = "\x1f".join(map(str, (self._draw, *words)))
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8)
        return np.random.default_rng(digest.astype(np.uint32))  # a list of the same numbers takes ten times as long

    def drawn(self, combiner: Combiner, number: int) -> _Cohort:
        """The cohort of a combiner's round that its sampler, or the session's, chooses."""
        purpose = "" if not combiner.path and number == 1 else f"-{combiner.path}-{number}"
        candidates = tuple(name for name in combiner.below if name in self.may_train)
        sample = self.ctx.choose(combiner.sampler, candidates, purpose)
        active: set[str] = set()
        paths = {self.tree.places[name] for name in sample.clients} | self.tree.samplers_below(combiner)
        for path in paths:
            for one in upward(path):
                if one in active or one == combiner.path:
                    break
                active.add(one)
        share = sample.target / len(sample.clients) if sample.clients else 1.0
        return _Cohort(frozenset(sample.clients), frozenset(active), share)


class _Open:
    """A combiner at work on one report."""

    def __init__(
        self,
        work: _Work,
        combiner: Combiner,
        model: Weights,
        *,
        above: _Open | None = None,
        state: State | None = None,
    ) -> None:
        self.work = work
        self.combiner = combiner
        self.above = above
        self.outcome: _Outcome | None = None
        self.is_last = False  # its last step can be taken whenever its reply is wanted
        self.examples: dict[str, float] = {}
        self.cohort: _Cohort
        self._model = model
        self._strategy = combiner.stepping
        self._state = state or {}
        self._round = 0
        self._virtual_s = 0.0
        self._result: StepResult | None = None  # of its last round
        self._numbers: Mapping[str, float] = {}
        self._step: Asks[StepResult] | None = None
        self._asked: list[_Merged] = []
        self._is_one = False
        self._before: list[_Merged] = []  # what it asked in the round before
        self._ended = ""  # why it has ended before its last round

    @property
    def is_waiting(self) -> bool:
        return any(merged.is_waiting for merged in self._asked)

    @property
    def is_done(self) -> bool:
        """Whether the combiner above can have its reply."""
        return self.outcome is not None or self.is_last

    def begin(self) -> None:
        path = self.combiner.path
        try:
            if not self._state:
                kept = self.work.states.get(path)
                if kept is None:
                    self._state = self._strategy.init(self._model)
                elif self.combiner.keeps_model:
                    self._state, self._model = kept, kept["model"]
                else:
                    self._state = given_model(kept, self._model, self._strategy)
            self._next_round()
        except (Exception, SystemExit) as error:
            self._fail(error)

    def advance(self) -> None:
        """Take the next step with the replies that have come; the last one only when it is wanted."""
        tree, combiner = self.work.tree, self.combiner
        asks_once = not hasattr(combiner.strategy, "step")
        is_near = tree.heights[combiner.path] % _PULLED != 0
        if self.above is not None and self._round == combiner.rounds and asks_once and is_near:
            self.is_last = True
            return
        self._take_step()

    def wanted(self) -> _Outcome:
        """Its outcome, now."""
        if self.outcome is None:
            self._take_step()
        assert self.outcome is not None
        return self.outcome

    def _next_round(self) -> None:
        self._round += 1
        work, combiner = self.work, self.combiner
        if self.above is None or combiner.sampler is not None:
            self.cohort = work.drawn(combiner, work.number(f"{combiner.path} draws"))
        else:
            self.cohort = self.above.cohort
        self._clients = tuple(name for name in combiner.clients if name in self.cohort.clients)
        self._children = tuple(one for one in combiner.children if one.path in self.cohort.combiners)
        if not self._clients and not self._children:  # none of its clients takes part
            self._end_without_clients()
            return
        self._step = take_step(self._strategy, self._state, self._context())
        self._ask(next(self._step))

    def _context(self) -> StepContext:
        work, combiner = self.work, self.combiner
        clients = [work.may_train[name] for name in combiner.clients if name in work.may_train]
        clients += [Client(one.path, position=len(clients) + i) for i, one in enumerate(combiner.children)]
        names = (*self._clients, *(one.path for one in self._children))
        return replace(
            work.ctx,
            rng=work.rng(combiner.path, self._round, work.number(f"{combiner.path} steps")),
            clients=tuple(clients),
            sample=lambda: names,
            required=combiner.required,
        )

    def _ask(self, asks: Request | Sequence[Request] | Arrived) -> None:
        if isinstance(asks, Arrived):
            raise SessionFailed(f"{self.combiner.shown}: a combiner cannot wait for outstanding requests")
        self._is_one = isinstance(asks, Request)
        self._asked = [self._sent(request) for request in ([asks] if isinstance(asks, Request) else asks)]

    def _sent(self, request: Request) -> _Merged:
        combiner, work = self.combiner, self.work
        names = (*self._clients, *(one.path for one in self._children)) if request.clients is None else request.clients
        of = {one.path: one for one in combiner.children}
        own = tuple(name for name in names if name not in of)
        merged = _Merged(self, request, own)
        if request.wait == "nothing" or (request.group is not None and request.clients is None):
            what = "leaves requests outstanding" if request.wait == "nothing" else f"asks the group {request.group}"
            raise SessionFailed(f"{combiner.shown}: its strategy {what}, which a combiner cannot do")
        if own:
            wait = request.wait
            if wait == "all" and self.cohort.share < 1 and request.clients is None:
                wait = max(1, math.ceil(len(own) * self.cohort.share))
            number = work.number(combiner.path)
            sent = replace(
                request,
                request_id=f"{combiner.path}:{number}",
                clients=own,
                group=combiner.path or None,
                parameters={**request.parameters, **combiner.parameters},
                required=0,
                wait=wait,
                timeout_s=combiner.timeout_s,
                seed_number=number,
            )
            work.wave.append((self, merged, sent))
        if len(own) < len(names):
            merged.children = [
                _Open(work, of[name], _model_of(request, combiner), above=self) for name in names if name in of
            ]
            work.starting.extend(reversed(merged.children))
        return merged

    def _take_step(self) -> None:
        assert self._step is not None
        replies: Any = self._asked[0] if self._is_one else tuple(self._asked)
        try:
            try:
                self._ask(self._step.send(replies))
            except StopIteration as end:
                self._end_round(end.value)
        except (Exception, SystemExit) as error:
            if self._found_nobody():
                self._end_without_clients()
            else:
                self._fail(error)

    def _found_nobody(self) -> bool:
        """Whether its round asks no client, since samplers choose the clients of all combiners that it has asked."""
        if self.work.broken is not None or not (self.combiner.path or self._result):
            return False
        return bool(self._asked) and all(merged.has_asked_nobody for merged in self._asked)

    def _end_without_clients(self) -> None:
        """A round that asks nobody is its last one: it passes the model of the round before upward."""
        if self._result is not None:
            self._ended = f"its round {self._round} found no clients, and it passed on the model of the one before"
        self._round, self._asked = self._round - 1, self._before
        self._finish()

    def _end_round(self, result: StepResult) -> None:
        from fedpkg.strategies.updates.held import finite  # imports PyTorch, which showing a tree does not need

        combiner, asked = self.combiner, self._asked
        self._check_required()
        if misfit := result.model.mismatch(self._model):
            raise AggregationError(f"its model does not fit the one that it received: {misfit}")
        finite(result.model, like=self._model)
        if other := not_data(result.state):
            raise AggregationError(f"its state cannot be saved: {other}")
        for merged in asked:
            self.examples.update(merged.examples)
        self._virtual_s += max((merged.virtual_s for merged in asked), default=0.0)
        self._state, self._result, self._numbers, self._before = result.state, result, asked[-1].numbers, asked
        if self._round < combiner.rounds:
            self._next_round()
        else:
            self._finish()

    def _finish(self) -> None:
        """Pass the model of its last round upward, or nothing if it had none."""
        combiner, result = self.combiner, self._result
        if result is None:
            self.outcome = _Outcome()
            return
        link_s = self.work.ctx.clock.link(combiner.path, self._model.num_bytes) if combiner.path else 0.0
        self.outcome = _Outcome(result.model, self.examples, self._numbers, self._virtual_s + link_s, result)
        if combiner.path:
            self.work.states[combiner.path] = self._state if combiner.keeps_model else without_model(self._state)
        self._note_clusters(result)
        self._record()
        self._let_go()

    def _note_clusters(self, result: StepResult) -> None:
        """Keep its model, if it is that of a cluster, and those of its strategy's clusters, by their paths."""
        path, work = self.combiner.path, self.work
        if self.combiner.own_model:
            work.clusters[path] = {"model": result.model}
            work.examples[path] = sum(self.examples.values())
        for name, one in result.clusters.items():
            whole = f"{path}/{name}" if path else name
            work.clusters[whole] = {"model": one.model, "clients": list(one.clients)}
            work.examples[whole] = one.num_examples

    def _let_go(self) -> None:
        """Keep nothing but the outcome: thousands of combiners may have ended before the round does."""
        self._step, self._state, self._asked, self._before, self._result = None, {}, [], [], None

    def _check_required(self) -> None:
        """Raises AggregationError: too few have answered."""
        usable, number = sum(one.count for one in self._asked), sum(len(one.asked) for one in self._asked)
        if usable < self.combiner.required:
            if not self.combiner.path and not self.work.has_asked:
                raise NobodyToAsk("the samplers of the tree found no clients")
            below = [one for merged in self._asked for one in merged.children if one.outcome and one.outcome.failure]
            named = ", ".join(one.combiner.path for one in below[:3]) + ", …" * (len(below) > 3)
            raise AggregationError(
                f"{usable} usable updates of {number}, {self.combiner.required} are required",
                hint=f"{named} failed: fedpkg session show --tree says why" if below else None,
            )

    def _fail(self, error: Exception | SystemExit) -> None:
        """The combiner passes nothing upward. Errors of the controller, and of the root, end the round."""
        if error is self.work.broken or (isinstance(error, FedpkgError) and not isinstance(error, AggregationError)):
            raise error
        if isinstance(error, AggregationError):
            try:
                self._check_required()
            except AggregationError as fewer:
                error = fewer
        if not self.combiner.path:
            raise error
        message = error.message if isinstance(error, FedpkgError) else f"{type(error).__name__}: {error}"
        self.outcome = _Outcome(failure=Failure("combiner", message))
        event(logger, logging.WARNING, "combiner.failed", combiner=self.combiner.path, about=message)
        self._record(reason=message)
        self._let_go()

    def _record(self, *, reason: str = "") -> None:
        path, results = self.combiner.path, self.work.results
        before = results.get(path, CombinerResult(path, num_reports=0, rounds=0))
        results[path] = CombinerResult(
            path=path,
            reason=reason or before.reason or self._ended,
            num_reports=before.num_reports + 1,
            num_failed=before.num_failed + bool(reason),
            rounds=before.rounds + self._round,
            num_asked=sum(len(one.asked) for one in self._asked),
            num_ok=sum(one.count for one in self._asked),
            num_examples=sum(self.examples.values()),
            num_bytes=self._model.num_bytes,
            virtual_s=before.virtual_s + self._virtual_s,
            metrics=dict(self._numbers),
        )
        self.work.ctx.report(results[path])


class _Merged:
    """The replies to a combiner's request: those of its clients, then those of the combiners below it."""

    is_outstanding = False

    def __init__(self, open_: _Open, request: Request, own: tuple[str, ...]) -> None:
        self.children: list[_Open] = []
        self.own: Replies | None = None
        self.examples: dict[str, float] = {}
        self.count = 0
        self.request_id = request.request_id
        self.round_number = open_.work.ctx.round_number
        self._open = open_
        self._request = request
        self._clients = own
        self._folded: set[str] = set()
        self._seconds: list[float] = []
        self._sums: dict[str, tuple[float, float]] = {}
        self._replies = self._in_order()

    @property
    def is_waiting(self) -> bool:
        return (self.own is None and bool(self._clients)) or not all(one.is_done for one in self.children)

    @property
    def asked(self) -> tuple[str, ...]:
        return (*self._clients, *(one.combiner.path for one in self.children))

    @property
    def has_asked_nobody(self) -> bool:
        outcomes = [one.wanted() for one in self.children if one.combiner.path not in self._folded]
        folded = self._clients or self._folded
        return not folded and all(one.model is None and one.failure is None for one in outcomes)

    @property
    def virtual_s(self) -> float:
        """The time of the last of those that count."""
        own = 0.0 if self.own is None else self.own.virtual_s
        return max([own, *self._seconds], default=0.0)

    @property
    def missing(self) -> tuple[str, ...]:
        own = () if self.own is None else self._guarded(lambda replies: replies.missing, self.own)
        children = (one.combiner.path for one in self.children if one.wanted().model is None)
        return (*own, *(path for path in children if path not in self._folded))

    @property
    def failures(self) -> Mapping[str, Failure]:
        found = {} if self.own is None else dict(self._guarded(lambda replies: replies.failures, self.own))
        failed = ((one.combiner.path, one.wanted().failure) for one in self.children)
        return {**found, **{path: failure for path, failure in failed if failure is not None}}

    @property
    def numbers(self) -> dict[str, float]:
        """The means of the numbers in the replies' metadata, weighted by examples."""
        return {name: total / weight for name, (total, weight) in self._sums.items() if weight > 0}

    def __iter__(self) -> Iterator[Reply]:
        return self

    def __next__(self) -> Reply:
        return next(self._replies)

    def _in_order(self) -> Iterator[Reply]:
        if self.own is not None:
            while (reply := self._guarded(lambda replies: next(replies, None), self.own)) is not None:
                self.examples[reply.client_id] = reply.num_examples
                self._note(reply)
                yield replace(reply, request_id=self.request_id)
        for position, one in enumerate(self.children, len(self._clients)):
            outcome = one.wanted()
            if outcome.model is None:
                continue
            self.examples.update(outcome.examples)
            self._seconds.append(outcome.virtual_s)
            weights = self._travelled(outcome.model, position)
            examples = sum(outcome.examples.values())
            reply = Reply(self.request_id, position, one.combiner.path, {"": weights}, examples, outcome.numbers)
            self._note(reply)
            self._folded.add(one.combiner.path)
            one.outcome = replace(outcome, model=None, result=None)  # what has been folded is not kept
            yield reply

    def _guarded(self, ask: Callable[[Replies], _Found], replies: Replies) -> _Found:
        """What the controller says; its errors are no combiner's."""
        try:
            return ask(replies)
        except Exception as error:
            self._open.work.broken = error
            raise

    def _note(self, reply: Reply) -> None:
        self.count += 1
        for path, value in leaves(dict(reply.metadata)):
            if (
                path != ("num_examples",)
                and isinstance(value, (int, float))
                and not isinstance(value, bool)
                and math.isfinite(value)
            ):
                total, weight = self._sums.get(".".join(path), (0.0, 0.0))
                self._sums[".".join(path)] = total + reply.num_examples * value, weight + reply.num_examples

    def _travelled(self, model: Weights, position: int) -> Weights:
        """A combiner's model as its strategy expects it: after the transforms, as a difference if it is to be one."""
        from fedpkg.weights.weights import Weights

        request, sent = self._request, self._request.payload
        assert isinstance(sent, Weights)
        if request.transforms is not None:
            draw = self._open.work.rng(self._open.combiner.path, "transforms", position).integers(1 << 62)
            model = request.transforms.there_and_back(model, sent, seed=int(draw))
        if request.reply == "weights":
            return model
        moved = {name: model[name] - sent[name] for name in model.parameters}
        return Weights({**model, **moved} if request.rest else moved, buffers=model.buffers if request.rest else ())


def _model_of(request: Request, combiner: Combiner) -> Weights:
    """The model that combiners below get. Raises SessionFailed: they cannot answer such a request."""
    from fedpkg.weights.weights import Weights

    what = ""
    if request.reply_kind is not ReplyKind.UPDATE or request.entry_point != "train" or request.reply == "gradient":
        what = f"asks for {request.reply_kind.value} of the entry point {request.entry_point}"
    elif not isinstance(request.payload, Weights):
        what = "sends more than a model"
    elif request.wait != "all":
        what = "does not wait for all replies"
    if what or not isinstance(request.payload, Weights):
        raise SessionFailed(
            f"{combiner.shown}: its strategy {what}, and combiners below it pass on models alone",
            hint="give this strategy to combiners that have clients alone",
        )
    return request.payload
