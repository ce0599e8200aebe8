"""A strategy whose clusters of clients are found during the run; each of them combines the updates of its clients."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from fedpkg.clusters.finding import find_clusters
from fedpkg.clusters.held import Answered, Held, compared_with
from fedpkg.clusters.joining import centres_of, nearest
from fedpkg.clusters.labels import counts_in, request_for, vectors_of
from fedpkg.clusters.section import INFER, finding_of
from fedpkg.clusters.tree import Clustering
from fedpkg.config_topology import InferConfig
from fedpkg.errors import AggregationError, ConfigError, SessionFailed
from fedpkg.log import event
from fedpkg.strategies.base import (
    Asks,
    Chosen,
    ClusterModel,
    CombinerResult,
    Replies,
    Reply,
    Request,
    State,
    Step,
    StepContext,
    StepResult,
    take_step,
)
from fedpkg.strategies.master import wide_model, with_master, with_wide_model
from fedpkg.strategies.traits import Traits, traits_of
from fedpkg.strategies.tree import CLUSTER_MODELS, COMBINERS, Combiner, TreeStrategy
from fedpkg.strategies.updates.held import Updates
from fedpkg.types import ReplyKind
from fedpkg.weights.fold import MeanFold
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.clusters")
FIRST, JOIN = "clusters", "join"  # ids of requests
Build: TypeAlias = Callable[[Mapping[str, Sequence[str]]], TreeStrategy]


@dataclass(frozen=True)
class ClusteredStrategy:
    """Finds clusters of clients in some rounds, and runs the tree of these clusters in all rounds.

    The state is that of the tree, and under ``infer``: the newest clusters (``found``), the cluster of each client
    (``places``), all paths that clusters have had (``used``), and the examples of each client. As long as some client
    has no place, also the model at which the clusters were found (``base``), and their ``centres``.

    Args:
        build: makes the tree of clusters, given the clients of each by its path; without clusters, all clients are
            below the root.
        client_ids: all clients of the session.
        known: of all clients, vectors that are compared; None: clients are asked.
        without: clients that have no vector, as none of their counts of labels reaches the minimum.
        entry_point: that clients are asked for their label histograms.
    """

    infer: InferConfig
    build: Build
    client_ids: tuple[str, ...]
    known: Updates | None = None
    without: tuple[str, ...] = ()
    entry_point: str | None = None

    @functools.cached_property
    def flat(self) -> TreeStrategy:
        """The strategy of rounds before there are clusters."""
        return self.build({})

    @functools.cached_property
    def root(self) -> Combiner:
        """Of a tree of one cluster with all clients."""
        return self.build({"a": self.client_ids}).root

    @property
    def each(self) -> Combiner:
        """What each cluster is like."""
        return self.root.children[0]

    @property
    def traits(self) -> Traits:
        asked = () if self.entry_point is None else (self.entry_point,)
        traits = self.flat.traits
        return replace(traits, entry_points=(*traits.entry_points, *asked))

    def init(self, seed_model: Weights) -> State:
        return {**self.flat.init(seed_model), INFER: {"places": {}, "used": [], "examples": {}}}

    def step(self, state: State, ctx: StepContext) -> Step:
        return (yield from _Round(self, state, ctx).run())

    def shared_names(self, model: Weights) -> frozenset[str]:
        """The tensors that are the same for all clusters.

        Raises:
            ConfigError: a pattern matches none; or all are, so that clusters have no models of their own.
        """
        found: set[str] = set()
        for pattern in self.infer.shared:
            matching = set(model.filter(pattern))
            if not matching:
                raise ConfigError(
                    f"topology.infer.shared: no tensor matches {pattern!r}",
                    hint=f"the model has {', '.join(list(model)[:8])}{', …' if len(model) > 8 else ''}",
                    key="topology.infer.shared",
                )
            found |= matching
        if found and len(found) == len(model):
            raise ConfigError(
                "topology.infer.shared: all tensors are shared, so that clusters have no models of their own",
                hint="leave some out, or set topology.infer.own_models=false",
                key="topology.infer.shared",
            )
        return frozenset(found)


@dataclass
class _Round:
    """One round: the finding of clusters, if it is due; the places of clients that have none; the step of the tree."""

    of: ClusteredStrategy
    state: State
    ctx: StepContext
    heard: dict[str, float] = field(default_factory=dict)  # examples of the clients with a usable reply

    def __post_init__(self) -> None:
        self.infer = self.of.infer
        self.own: dict[str, Any] = dict(self.state[INFER])
        self.tree_state = {name: value for name, value in self.state.items() if name != INFER}
        self.model: Weights = self.state["model"]
        self.parents: dict[str, tuple[str, ...]] = {}
        self.asked_s = 0.0  # virtual seconds before the step of the tree

    @property
    def places(self) -> dict[str, str]:
        found: dict[str, str] = self.own["places"]
        return found

    @property
    def clusters(self) -> dict[str, tuple[str, ...]]:
        """The clients of each cluster at the bottom, by its path."""
        if "found" not in self.own:
            return {}
        return Clustering.from_data(self.own["found"]).members(self.places, self.of.client_ids)

    def run(self) -> Asks[StepResult]:
        cohort = self.ctx.choose(None, tuple(client.client_id for client in self.ctx.clients), "")
        places, held, join = self.places, None, None
        if self._is_due():
            held = yield from self._find(cohort)
        elif "found" in self.own and (new := [name for name in cohort.clients if name not in places]):
            if self.of.entry_point is not None:
                yield from self._place_by_labels(new)
            else:
                join = _waiting(replace(self._request(self.own["base"], new, JOIN), contributes=False), cohort)
        result = yield from self._step(cohort, held, join)
        if len(self.heard) < self.ctx.required:
            raise AggregationError(
                f"{len(self.heard)} usable updates of {len(cohort.clients)} clients, {self.ctx.required} are required "
                "(round.required)",
                hint="`fedpkg session show --round N` shows why; fix the cause, then resume the session",
            )
        self.own["examples"] = {**self.own["examples"], **self.heard}
        if not self._lack():
            self.own.pop("base", None)
            self.own.pop("centres", None)
        clusters = self.clusters
        tree_state, models = dict(result.state), dict(result.clusters)
        if self.infer.own_models and clusters:
            tree_state, models = self._own_models(tree_state, clusters, result.combiners)
        metrics = {**result.metrics, "num_clusters": len(clusters)} if clusters else result.metrics
        if self.places != places:
            metrics = {**metrics, "clusters": {path: list(clients) for path, clients in clusters.items()}}
        return replace(result, state={**tree_state, INFER: self.own}, metrics=metrics, clusters=models)

    def _is_due(self) -> bool:
        if "found" not in self.own:
            return self.ctx.round_number >= self.infer.first
        every = self.infer.every
        return every is not None and self.ctx.round_number - self.own["found"]["round"] >= every

    def _lack(self) -> list[str]:
        """The clients that may train and have no place."""
        return [client.client_id for client in self.ctx.clients if client.client_id not in self.places]

    # ---- finding

    def _find(self, cohort: Chosen) -> Asks[Held | None]:
        """Find clusters; from updates, the result is those, which then are the clusters' first ones."""
        held, updates, without = None, self.of.known, list(self.of.without)
        if updates is not None:
            updates = _only(updates, [client.client_id for client in self.ctx.clients])
        elif self.of.entry_point is not None:
            updates, without = yield from self._labels(cohort.clients)
        else:
            request = _waiting(self._request(self.model, cohort.clients, FIRST), cohort)
            (replies,) = yield [request]
            held = Held(replies, request)
            updates = held.updates
            self.heard.update(held.num_examples)
        if updates is None:
            raise AggregationError(
                "clusters cannot be found: no client has sent counts of its labels that can be used",
                hint="the log of the round shows why",
            )
        if self._found(updates, without):
            largest = max(self.clusters.items(), key=lambda one: len(one[1]))[0]
            self.own["places"] = {**self.places, **dict.fromkeys(without, largest)}
            self._keep_centres(updates, held)
        return held

    def _found(self, updates: Updates, without: Sequence[str]) -> bool:
        """Find clusters; False: too few clients have answered. Then it is due again in the next round, and until then
        the former clusters stay, or all clients train one model.

        A former cluster none of whose clients was compared stays beside those that are found, with its clients and its
        state. ``without``: clients that have answered and cannot be compared.
        """
        finding = replace(finding_of(self.infer), seed=int(self.ctx.rng.integers(1 << 31)))
        try:
            clustering = find_clusters(updates, finding)
        except ConfigError as error:
            about = f"clusters cannot be found of {len(updates)} clients: {error.message}"
            event(logger, logging.WARNING, "clusters.not_found", round=self.ctx.round_number, about=about)
            return False
        before, used = self.places, self.own["used"]
        clustering = clustering.named_after(before, used, self.of.client_ids)
        members = clustering.leaves()
        own: dict[str, str] = {name: path for path, clients in members.items() for name in clients}
        heard = {*own, *without}
        clustering = clustering.with_former(
            {path: clients for path, clients in self.clusters.items() if heard.isdisjoint(clients)}
        )
        former = {path: clients for path, clients in clustering.leaves().items() if path not in members}
        own |= {name: path for path, clients in former.items() for name in clients}
        paths = [path for path, _ in clustering.walk()]
        states = self.tree_state[COMBINERS]
        if self.infer.own_models:
            leaves = self._states(members, states, updates)
            states = {**{path: states[path] for path in paths if path in states}, **leaves}
        else:
            states = {path: states[path] for path in paths if path in states}
        if self.infer.own_models and "found" not in self.own:
            self.tree_state = dict(self.of.build(members).init(self.model))
        self.tree_state = {**self.tree_state, COMBINERS: states}
        if "found" in self.own:
            come = {path: {before[name] for name in clients if name in before} for path, clients in members.items()}
            self.parents = {path: tuple(one for one in used if one in of) for path, of in come.items()}
        self.own = {
            **self.own,
            "found": {**clustering.to_data(), "round": self.ctx.round_number},
            "places": {**_followers(before, own), **own},
            "used": [*used, *(path for path in paths if path not in used)],
        }
        event(logger, logging.INFO, "clusters.found", round=self.ctx.round_number, clusters=len(members) + len(former))
        return True

    def _states(
        self, members: Mapping[str, Sequence[str]], before: Mapping[str, State], updates: Updates
    ) -> dict[str, State]:
        """The states of clusters with own models, as they begin.

        The model of a cluster is the mean of the models that its clients had, weighted by their examples. The rest of
        its state is that of the former cluster from which most of its clients come.
        """
        strategy = with_master(self.of.each.strategy)
        flat = {name: value for name, value in self.tree_state.items() if name not in (COMBINERS, CLUSTER_MODELS)}
        if "found" in self.own:
            flat = strategy.init(self.model)
        examples = {**self.own["examples"], **self.heard}
        found = {}
        for path, clients in members.items():
            number = Counter(self.places.get(name, "") for name in clients)
            shares = dict.fromkeys(number, 0.0)
            for name in clients:
                shares[self.places.get(name, "")] += examples.get(name) or 1.0
            of = {place: before.get(place, flat) for place in sorted(number)}
            model = _mean((wide_model(state), shares[place]) for place, state in of.items())
            most = min(of, key=lambda place: (-number[place], place))
            found[path] = with_wide_model(of[most], model)
        return found

    def _keep_centres(self, updates: Updates, held: Held | None) -> None:
        """Give places to clients that are known, or keep what others are compared with when they are asked."""
        compared = set(updates.clients)
        leaves = Clustering.from_data(self.own["found"]).leaves()
        members = {path: clients for path, clients in leaves.items() if compared.issuperset(clients)}
        if self.of.known is not None:
            if left := [name for name in self.of.known.clients if name not in self.places]:
                centres = centres_of(updates, members, self.infer.distance)
                others = list(_replies(self.of.known, left))
                found = nearest(centres, others, updates.model, self.infer.distance)
                self.own["places"] = {**self.places, **found}
        elif self._lack():
            self.own["base"] = updates.model if held is None else held.model
            self.own["centres"] = centres_of(updates, members, self.infer.distance)

    # ---- clients without a place

    def _labels(self, clients: Sequence[str], length: int | None = None) -> Asks[tuple[Updates | None, list[str]]]:
        assert self.of.entry_point is not None
        (replies,) = yield [request_for(clients, self.of.entry_point, self.infer)]
        counts = counts_in(replies, length)
        self.asked_s += replies.virtual_s
        return vectors_of(counts, self.infer.minimum)

    def _place_by_labels(self, clients: Sequence[str]) -> Asks[None]:
        updates, without = yield from self._labels(clients, self.own["base"].num_parameters)
        found = dict.fromkeys(without, max(self.clusters.items(), key=lambda one: len(one[1]))[0])
        if updates is not None:
            found |= self._nearest(_replies(updates, updates.clients), self.own["base"])
        self.own["places"] = {**self.places, **found}

    def _nearest(self, replies: Iterable[Reply], model: Weights) -> dict[str, str]:
        return nearest(self.own["centres"], replies, model, self.infer.distance)

    # ---- training

    def _request(self, model: Weights, clients: Sequence[str], request_id: str) -> Request:
        """What a cluster's strategy asks first, to clients that train from one model.

        Raises:
            SessionFailed: it asks for more than updates.
        """
        each, cohort = self.of.each, tuple(clients)
        strategy = with_master(each.strategy)
        step = take_step(strategy, strategy.init(model), replace(self.ctx, sample=lambda: cohort))
        asks: Any = next(step, ())
        step.close()
        several = [asks] if isinstance(asks, Request) else asks
        if not isinstance(several, Sequence) or len(several) != 1 or not _is_update(several[0]):
            raise SessionFailed(
                f"clusters cannot be found from updates: the strategy {each.said} asks for more than an update of one "
                "model",
                hint="start a new run with another strategy, such as fedavg",
            )
        return replace(
            several[0],
            request_id=request_id,
            clients=cohort,
            parameters={**several[0].parameters, **each.parameters},
            required=0,
            timeout_s=each.timeout_s,
            use="stepped",
            seed_number=1,
        )

    def _step(self, cohort: Chosen, held: Held | None, join: Request | None) -> Asks[StepResult]:
        """The step of the tree. ``held``: the answers to the first request of each cluster."""
        clusters = self.clusters
        takes = [name for name in cohort.clients if not clusters or name in self.places]
        share = cohort.target / len(cohort.clients)
        if held is not None:
            takes, share = [name for name in takes if name in held], 1.0
        chosen = Chosen(tuple(takes), math.ceil(len(takes) * share))

        def choose(sampler: Any, candidates: tuple[str, ...], purpose: str) -> Chosen:
            is_first = sampler is None and not purpose
            return chosen if is_first else self.ctx.choose(sampler, candidates, purpose)

        tree = self.of.build(clusters)
        step = tree.step(self.tree_state, replace(self.ctx, choose=choose, time_s=self.ctx.time_s + self.asked_s))
        joined, answers = None, None
        try:
            while True:
                asks: Any = step.send(answers)
                made: list[Any] = [self._made(request, held) for request in asks]
                sent = [request for request, answer in zip(asks, made, strict=True) if answer is None]
                sent, join = ([*sent, join], None) if join is not None else (sent, None)
                came = list((yield sent) if sent else ())
                if len(came) > made.count(None):
                    joined = came.pop()
                others = iter(came)
                answers = tuple(_Noted(next(others), self.heard) if one is None else one for one in made)
        except StopIteration as end:
            result: StepResult = end.value
        finally:
            step.close()
        if join is not None:
            (joined,) = yield [join]
        if joined is None:
            return result
        model = compared_with(self.own["base"], traits_of(self.of.each.strategy).reply)
        noted = _Noted(joined, self.heard)
        self.own["places"] = {**self.places, **self._nearest(noted, model)}
        ends = self.ctx.time_s + joined.virtual_s
        return replace(result, time_s=max(ends, result.time_s or 0.0))

    def _made(self, request: Request, held: Held | None) -> Answered | None:
        if held is None or request.seed_number != 1:
            return None
        return held.answer(request, round_number=self.ctx.round_number)

    # ---- own models

    def _own_models(
        self, state: State, clusters: Mapping[str, tuple[str, ...]], combiners: Sequence[CombinerResult]
    ) -> tuple[State, dict[str, ClusterModel]]:
        """The state with equal shared tensors and the session's model, and the models of the clusters."""
        states: dict[str, State] = dict(state[COMBINERS])
        rows = {
            row.path: row
            for row in combiners
            if row.path in clusters and row.num_failed < row.num_reports and row.num_examples
        }
        names = self.of.shared_names(self.model)
        if names and rows:
            wide = {path: wide_model(states[path]).filter(names.__contains__) for path in rows}
            mean = _mean((wide[path], row.num_examples) for path, row in rows.items())
            for path in clusters:
                own = wide_model(states[path])
                states[path] = with_wide_model(states[path], Weights({**own, **mean}, buffers=own.buffers))
        examples = self.own["examples"]
        weights = {path: sum(examples.get(name, 0.0) for name in clients) for path, clients in clusters.items()}
        some = [(wide_model(states[path]), weight) for path, weight in weights.items() if weight]
        model = self.model
        if some:
            shared = {name: states[next(iter(clusters))]["model"][name] for name in names}
            mean = _mean(some).in_dtypes_of(self.model)
            model = Weights({**mean, **shared}, buffers=mean.buffers)
        models = {
            path: ClusterModel(
                states[path]["model"],
                clients,
                self.parents.get(path, ()),
                rows[path].num_examples if path in rows else 0.0,
            )
            for path, clients in clusters.items()
        }
        return {**state, "model": model, COMBINERS: states}, models


class _Noted:
    """Replies (`fedpkg.strategies.base.Replies`); the clients that have answered are noted, with their examples."""

    def __init__(self, replies: Replies, heard: dict[str, float]) -> None:
        self._replies = replies
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replies, name)

    def __iter__(self) -> _Noted:
        return self

    def __next__(self) -> Reply:
        reply = next(self._replies)
        self._heard[reply.client_id] = reply.num_examples
        return reply


def _is_update(request: object) -> bool:
    if not isinstance(request, Request) or request.reply_kind is not ReplyKind.UPDATE:
        return False
    is_model = isinstance(request.payload, Weights) and request.entry_point == "train"
    return is_model and request.reply != "gradient" and request.group is None and request.wait == "all"


def _waiting(request: Request, cohort: Chosen) -> Request:
    """The request; with over-selection, it waits for as great a share of its clients as the round does."""
    if cohort.target == len(cohort.clients):
        return request
    return replace(request, wait=max(1, math.ceil(len(request.clients or ()) * cohort.target / len(cohort.clients))))


def _followers(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Places of clients whose updates are not among those that were compared: that of all others of their cluster.

    A client whose former cluster was divided, or none of whose clients was compared, has none.
    """
    went: dict[str, set[str]] = {}
    for client_id, path in before.items():
        if client_id in now:
            went.setdefault(path, set()).add(now[client_id])
    return {
        client_id: next(iter(went[path]))
        for client_id, path in before.items()
        if client_id not in now and len(went.get(path, ())) == 1
    }


def _mean(models: Iterable[tuple[Weights, float]]) -> Weights:
    fold: MeanFold | None = None
    for position, (model, weight) in enumerate(models):
        fold = fold or MeanFold(model)
        fold.add(position, model, weight)
    assert fold is not None
    return fold.result()


def _replies(updates: Updates, clients: Iterable[str]) -> Iterable[Reply]:
    place = {client_id: number for number, client_id in enumerate(updates.clients)}
    for position, client_id in enumerate(clients):
        yield Reply("clusters", position, client_id, {"": updates.held[place[client_id]]}, 1.0)


def _only(updates: Updates, clients: Sequence[str]) -> Updates:
    of = set(updates.clients)
    return Updates(_replies(updates, [name for name in clients if name in of]), updates.model)
