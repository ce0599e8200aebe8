"""One round: ask, dispatch, fold, commit, then validate. A round that was started before continues where it stopped."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpkg.controller.asked import desk_of
from fedpkg.controller.asking import Asking
from fedpkg.controller.choosing import VIRTUAL_TIME, Choosing
from fedpkg.controller.clusters import Clusters
from fedpkg.controller.context import SessionContext
from fedpkg.controller.events import CombinerReported, RoundFinished
from fedpkg.controller.lanes import Lanes
from fedpkg.controller.ledger import Ledger
from fedpkg.controller.measuring import VALIDATE, AroundTraining, aggregates, weighted
from fedpkg.controller.metric_rows import metric_rows
from fedpkg.controller.metrics import average, examples_of, finite_number, numbers_of
from fedpkg.controller.orders import Payloads
from fedpkg.controller.outstanding import Key, Outstanding
from fedpkg.controller.own_code import fault_of_own
from fedpkg.controller.seeds import step_rng
from fedpkg.controller.state import check_state, encode, no_weights
from fedpkg.controller.trail import buffer_keys, form_of, put_weights, store_model
from fedpkg.controller.validation import Validation, validate
from fedpkg.errors import AggregationError, ConfigError, NotFound, SessionFailed, SpecError
from fedpkg.files import remove_each, remove_tree
from fedpkg.formats.buffers import negative_variances
from fedpkg.log import event
from fedpkg.stores.base import (
    OUTSTANDING,
    ClusterChanges,
    CombinerRow,
    MetricRow,
    ModelRow,
    RoundRow,
    ValidationRow,
    WeightSource,
)
from fedpkg.stores.prune import remove_weights
from fedpkg.strategies.base import (
    Arrived,
    Client,
    CombinerResult,
    NobodyToAsk,
    Request,
    State,
    StepContext,
    StepResult,
    take_step,
)
from fedpkg.strategies.updates.held import finite
from fedpkg.strategies.virtual_clock import VirtualClock
from fedpkg.types import Json
from fedpkg.waist.place import PAYLOAD
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.controller")


@dataclass(frozen=True)
class Rounds:
    """What the rounds of a session share, and what carries over from one round to the next."""

    ctx: SessionContext
    lanes: Lanes
    outstanding: Outstanding
    clusters: Clusters


def train_round(rounds: Rounds, round_number: int, state: State) -> tuple[StepResult, RoundRow]:
    """Run one round of the session: from the state after the last round to the state after this one.

    The returned row is committed as ``aggregated``; `finish_round` closes the round.

    Raises:
        SessionFailed: fewer usable updates than ``round.required``; the round is recorded as failed.
        AggregationError: the replies cannot be aggregated to a finite model; the round is recorded as failed.
    """
    return _Training(rounds, round_number, state).run()


class _Training:
    """The training phase of one round: the strategy's step, and the data that is committed with it."""

    def __init__(self, rounds: Rounds, round_number: int, state: State) -> None:
        self.ctx = ctx = rounds.ctx
        self.outstanding = rounds.outstanding
        self.clusters = rounds.clusters
        self.round_number = round_number
        self.state = state
        self.started = time.monotonic()
        row = _earlier_round(ctx, round_number)
        if row is None:
            row = RoundRow(
                session_id=ctx.session.session_id,
                round_number=round_number,
                cohort=[],
                target=0,
                started_at=ctx.clock(),
            )
        elif row.status == "failed":  # clients that failed then are asked again: see `Asking`
            row = dataclasses.replace(row, counted=None, arrivals=[], started_at=ctx.clock())
        self.row = dataclasses.replace(row, status="training", error=None)
        self.parent = _current_model(ctx, round_number - 1)
        self.around: AroundTraining | None = None
        self.has_stepped = True
        self.reported: dict[str, CombinerRow] = {}  # of combiners that have passed a model upward, or have failed
        self.asking = self._asking(rounds, global_model(ctx, state))

    def _asking(self, rounds: Rounds, model: Weights | None) -> Asking:
        ctx, number, outstanding = self.ctx, self.round_number, rounds.outstanding
        rounds.lanes.forget(but=outstanding.clients)
        rounds.lanes.begin(ctx.store.list_clients(ctx.session.session_id))
        desk = desk_of(ctx, rounds.lanes, number, Ledger(ctx, number), Payloads(ctx, number, model, self.parent))
        measure = None
        if self.parent is not None and ctx.traits.has_model and VALIDATE in ctx.spec.entry_points:
            self.around = AroundTraining(ctx, rounds.lanes, number, self.parent, rounds.clusters, desk.ledger)
            measure = self.around.before if ctx.config.evaluation.before_training else None
        choosing = Choosing(ctx, number, list(desk.clients.values()), busy=lambda: outstanding.clients)
        own = self.row.arrivals
        replayed = _earlier_round(ctx, number, of=ctx.config.replay) if ctx.config.replay else None
        found = [*own, *(replayed.arrivals[len(own) :] if replayed else ())]
        arrivals = [[(by_round, request_id) for by_round, request_id in keys] for keys in found]
        return Asking(
            desk,
            choosing,
            outstanding,
            arrivals=arrivals,
            num_noted=len(own),
            note=self._note_arrivals,
            measure=measure,
        )

    def run(self) -> tuple[StepResult, RoundRow]:
        self.ctx.store.begin_round(self.row)
        try:
            self.outstanding.begin()
            result = self._step()
            if self.around is not None and self.ctx.config.evaluation.after_training:
                self.around.after(self.asking.counting, self.state["model"])
        except (AggregationError, ConfigError, SessionFailed, SpecError) as error:
            self._record_failed(error.message.splitlines()[0])
            if isinstance(error, (ConfigError, SpecError)):  # resuming would use the same configuration
                error.hint = "; ".join(filter(None, [error.hint, "for a changed configuration, start a new run"]))
            raise
        except (Exception, SystemExit) as error:
            failed = fault_of_own(error, where=f"round {self.round_number}", session_id=self.row.session_id)
            if failed is None:
                raise
            self._record_failed(failed.message.splitlines()[0])
            raise failed from error
        stepped_s, waited_s = time.monotonic() - self.started, self.asking.desk.waited_s
        phases = {"train": waited_s, "fold": stepped_s - waited_s}
        if self.ctx.virtual_clock is not None:
            phases[VIRTUAL_TIME] = self._virtual_time(result)
        return result, self._commit(result, phases=phases)

    def _step(self) -> StepResult:
        """Run the strategy's step: send it the replies to its requests, until it returns its result."""
        step = take_step(self.ctx.strategy, self.state, self._step_context())
        try:
            asks = next(step)
            while True:
                asks = step.send(self._answers(asks))
        except StopIteration as stop:
            result: StepResult = stop.value
        except NobodyToAsk as reason:
            if any(asked.request.wait == "nothing" for asked in self.asking.counting):
                raise SessionFailed(
                    f"round {self.round_number}: {reason}, and outstanding requests that have arrived would be lost",
                    hint="let the step ask for clients before it takes outstanding requests",
                ) from None
            event(logger, logging.WARNING, "round.nobody", round=self.round_number, reason=str(reason))
            result, self.has_stepped = StepResult.of(self.state), False
        finally:
            step.close()
        self.asking.finish()
        self.asking.note_waits()
        self.asking.check_answered()
        has_model = self.ctx.traits.has_model
        check_state(result.state, f"round {self.round_number}: a step returns its next state", has_model=has_model)
        encode([result.metrics, result.finished], no_weights)
        if has_model:
            self._check_model(result.model)
        elif (made := global_model(self.ctx, result.state)) is not None:
            _check_made(made, self.state.get("model"))
        self.clusters.check(result, self.round_number)
        self._virtual_time(result)
        return result

    def _check_model(self, model: Weights) -> None:
        """Raises SessionFailed or AggregationError: the result is no valid next model."""
        if misfit := model.mismatch(self.state["model"]):
            raise SessionFailed(f"round {self.round_number}: the next model does not fit the global model: {misfit}")
        finite(model, like=self.state["model"])
        if negative := negative_variances(self.state["model"], model):
            about = (
                f"variances of the next global model have negative values ({', '.join(negative[:6])}): is a running "
                "statistic treated as a parameter? `buffers` in the run.yaml lists tensors that are not parameters"
            )
            event(logger, logging.WARNING, "round.negative_variance", round=self.round_number, about=about)

    def _answers(self, asks: object) -> object:
        """The value that the step gets for its yield."""
        if isinstance(asks, Arrived):
            return self.asking.arrived(asks)
        if isinstance(asks, Request):
            return self.asking.ask([asks])[0]
        if not isinstance(asks, Sequence) or not all(isinstance(one, Request) for one in asks):
            raise SessionFailed(f"round {self.round_number}: a step must yield requests, not a {type(asks).__name__}")
        return self.asking.ask(asks)

    def _note_arrivals(self, arrivals: list[list[Key]]) -> None:
        """Record the outstanding requests that the step is about to get, so that it gets the same ones if repeated."""
        self.row = dataclasses.replace(self.row, arrivals=[[list(key) for key in keys] for keys in arrivals])
        self.ctx.store.begin_round(self.row)

    def _virtual_time(self, result: StepResult) -> float:
        if self.ctx.virtual_clock is None or result.time_s is None:
            return self.asking.choosing.time_s + self.asking.virtual_s
        time_s = finite_number(result.time_s)
        if time_s is None:
            raise SessionFailed(
                f"round {self.round_number}: the state's 'time' is {result.time_s!r:.60}, not a number: with a clock, "
                "it is the session's virtual seconds",
                hint="if the strategy means something else by it, use another key",
            )
        return time_s

    def _step_context(self) -> StepContext:
        ctx, asking = self.ctx, self.asking
        clients = tuple(
            Client(
                client.client_id,
                groups=tuple(name for name, members in ctx.members.items() if client.client_id in members),
                num_examples=client.known_examples,
                position=client.position,
                attributes={} if ctx.entities is None else ctx.entities.attributes_of(client.client_id),
            )
            for client in asking.choosing.may_train
        )
        rng = step_rng(ctx.session.seed, self.round_number, "ask")
        sampling = ctx.sampler.sampling([client.client_id for client in clients], ctx.groups)
        clock = ctx.virtual_clock or VirtualClock()
        required = ctx.config.round.required
        time_s = 0.0 if ctx.virtual_clock is None else asking.choosing.time_s
        choose = asking.choosing.among
        return StepContext(
            self.round_number, rng, clients, asking.sample, sampling, clock, required, time_s, choose, self._reported
        )

    def _reported(self, result: CombinerResult) -> None:
        self.reported[result.path] = row = self._combiner_row(result)
        self.ctx.watch(CombinerReported(combiner=row))

    def _combiner_row(self, one: CombinerResult) -> CombinerRow:
        is_below = one.path != ""
        return CombinerRow(
            session_id=self.row.session_id,
            round_number=self.round_number,
            path=one.path,
            status="failed" if one.num_failed else "ok",
            reason=one.reason or None,
            rounds=one.rounds,
            num_asked=one.num_asked,
            num_ok=one.num_ok,
            num_examples=one.num_examples,
            bytes_down=is_below * one.num_reports * one.num_bytes,
            bytes_up=is_below * (one.num_reports - one.num_failed) * one.num_bytes,
            virtual_s=one.virtual_s if self.ctx.virtual_clock is not None else None,
            metrics=dict(one.metrics),
        )

    def _totals(self) -> RoundRow:
        """The round's row, with the totals of its requests."""
        rows = self.asking.rows
        return dataclasses.replace(
            self.row,
            cohort=list(dict.fromkeys(client_id for row in rows for client_id in row.cohort)),
            target=sum(row.target for row in rows),
            num_ok=sum(row.num_ok for row in rows),
            num_failed=sum(row.num_failed for row in rows),
        )

    def _record_failed(self, error: str) -> None:
        """The round ends without a model; resuming asks the failed clients again."""
        row = dataclasses.replace(self._totals(), status="failed", finished_at=self.ctx.clock(), error=error)
        combiners = self.reported.values()
        self.ctx.store.finish_round(row, requests=self.asking.failed_requests(), combiners=combiners)

    def _commit(self, result: StepResult, *, phases: dict[str, float]) -> RoundRow:
        ctx, asking, row = self.ctx, self.asking, self._totals()
        before = time.monotonic()
        states, last = asking.states, asking.trained
        replied = {client_id: last[client_id] for client_id in row.cohort if client_id in last}
        examples = {client_id: number for client_id, (number, _) in replied.items()}
        measured = {name: ctx.measured(dict(metadata), name) for name, (_, metadata) in replied.items()}
        model, clusters, saved = self._store(result, examples)
        row, of_training = self._with_train_metrics(row, examples, measured)
        row, validations, of_validations = self._with_validation_metrics(row, model)
        row = dataclasses.replace(
            row,
            status="aggregated",
            counted=[client_id for client_id in row.cohort if client_id in states],
            strategy_metrics=dict(result.metrics),
            model_id=None if model is None else model.model_id,
            phases=phases,
        )
        ctx.executor.states.commit(row.session_id, states)
        superseded = ctx.store.state_digests(row.session_id)
        around = self.around
        ctx.store.commit_round(
            row,
            model,
            strategy_state=(self.round_number, saved),
            clients=self._states(states, replied),
            metrics={client_id: numbers_of(metadata) for client_id, metadata in measured.items()},
            validations=validations if around is None else [*validations, *around.rows],
            metric_rows=[*of_training, *of_validations, *(() if around is None else around.metric_rows)],
            combiners=[self._combiner_row(one) for one in result.combiners],
            clusters=clusters,
        )
        if clusters is not None:
            self.clusters.take(clusters)
        self._forget_states(states)
        remove_weights(ctx.store, ctx.models, superseded - ctx.store.state_digests(row.session_id))
        self._remove_used()
        # The row was committed before its own duration was known; `finish_round` writes these.
        now = time.monotonic()
        return dataclasses.replace(row, wall_s=now - self.started, phases={**phases, "commit": now - before})

    def _with_train_metrics(
        self, row: RoundRow, examples: Mapping[str, float], measured: Mapping[str, Json]
    ) -> tuple[RoundRow, list[MetricRow]]:
        """The row with the averages of what clients report with their updates, and the aggregates of these."""
        source: WeightSource = "reply" if self.ctx.config.round.weighting == "examples" else "equal"
        reported = [(measured[name], (number, source)) for name, number in examples.items()]
        trained = average(reported)
        row = dataclasses.replace(
            row,
            num_examples=float(sum(examples.values())),
            train_metrics=trained.values,
            averages={"train": trained.about},
        )
        return row, metric_rows(reported, session_id=row.session_id, round_number=self.round_number, phase="train")

    def _with_validation_metrics(
        self, row: RoundRow, model: ModelRow | None
    ) -> tuple[RoundRow, list[ValidationRow], list[MetricRow]]:
        """The row with the averages of what clients report in replies that validate the round's model; the clients'
        metrics, if the round has a model; and the aggregates of these.
        """
        ctx, clients = self.ctx, self.asking.desk.clients
        found = []
        for came in self.asking.validated:
            metrics = ctx.measured(dict(came.metadata), came.client_id)
            weight, source = ctx.reported_weight(clients[came.client_id], metrics, {})
            found.append(
                ValidationRow(
                    task_id=came.task_id,
                    session_id=row.session_id,
                    round_number=self.round_number,
                    model_id="" if model is None else model.model_id,
                    client_id=came.client_id,
                    metrics=metrics,
                    weight=weight,
                    weight_source=source,
                )
            )
        if not found:
            return row, [], []
        found = weighted(ctx, clients, found)
        mean = average((one.metrics, (one.weight, one.weight_source)) for one in found)
        row = dataclasses.replace(row, metrics=dict(mean.values), averages={**row.averages, VALIDATE: mean.about})
        return row, [] if model is None else found, aggregates(found, VALIDATE)

    def _store(
        self, result: StepResult, examples: Mapping[str, float]
    ) -> tuple[ModelRow | None, ClusterChanges | None, Any]:
        """Store the next models and the weights of the state; return the model's row, what changes in the clusters, and
        the state as data.
        """
        ctx, model = self.ctx, None
        weights = global_model(ctx, result.state)
        if weights is not None:
            model = store_model(
                ctx.models,
                ctx.form if ctx.traits.has_model else form_of(weights),
                weights,
                session_id=ctx.session.session_id,
                round_number=self.round_number,
                created_at=ctx.clock(),
                parent_id=None if self.parent is None else self.parent.model_id,
                contributors=[{"client_id": name, "num_examples": number} for name, number in examples.items()],
            )
        form = ctx.form.of_state  # if a model's names are positions, a subset of its tensors ("0", "3") keeps its names

        stored = {} if model is None else {id(weights): model}
        changes = None
        if model is not None and self.has_stepped and (result.clusters or self.clusters.current):
            changes = self.clusters.changes(result, model, self.parent, examples, stored)
        known = {number: (row.digest, row.buffers) for number, row in stored.items()}

        def put(weights: Weights | Records) -> tuple[str, list[str]]:
            if id(weights) not in known:
                buffers = [] if isinstance(weights, Records) else buffer_keys(weights, form)
                known[id(weights)] = put_weights(ctx.models, form, weights)[0], buffers
            return known[id(weights)]

        outstanding = {OUTSTANDING: self.outstanding.to_data()} if self.outstanding else {}
        return model, changes, encode({**result.kept, **outstanding}, put)

    def _states(
        self, states: Mapping[str, str | None], replied: Mapping[str, tuple[float, Mapping[str, Any]]]
    ) -> dict[str, tuple[str | None, float | None]]:
        """The clients after the round: the token of their state, and the number of examples they last trained on."""
        clients = self.asking.desk.clients
        last = {client_id: client.last_num_examples for client_id, client in clients.items()}
        for client_id, (_, metadata) in replied.items():
            last[client_id] = examples_of(clients[client_id], metadata)
        return {client_id: (token, last[client_id]) for client_id, token in states.items()}

    def _forget_states(self, states: Mapping[str, str | None]) -> None:
        """Remove states that the store no longer names, except for clients that are still busy."""
        of_clients, session_id, busy = self.ctx.executor.states, self.row.session_id, self.outstanding.clients
        of_clients.forget(session_id, {name: token for name, token in states.items() if name not in busy})
        for name, token in self.asking.superseded if busy else ():
            if name in busy:
                of_clients.discard(session_id, name, token)

    def _remove_used(self) -> None:
        """Remove the inputs of a committed round, and its replies unless they are kept."""
        payloads = self.asking.desk.payloads
        if id(payloads.model) not in self.outstanding.payloads:
            payloads.model = None
        needed = payloads.files
        for path in self.ctx.round_folder(self.round_number).glob(f"{PAYLOAD}*"):
            if path not in needed:
                remove_tree(path)
        if not self.ctx.config.keep.updates:
            remove_each([path.parent for path in self.asking.replies])


def _check_made(made: Weights, before: Weights | None) -> None:
    """Raises AggregationError: a model that was made became not finite. A first one may have constants that are not."""
    if before is None:
        return
    constants = {name for name, magnitude in before.magnitudes() if not math.isfinite(magnitude)}
    finite(made, like=Weights(before, buffers=[name for name in constants if name in made]))


def finish_round(rounds: Rounds, row: RoundRow, *, is_last: bool = False) -> RoundRow:
    """Validate an aggregated round's model if validation is due or the session ends, and close the round."""
    ctx, round_number = rounds.ctx, row.round_number
    before = time.monotonic()
    model = _current_model(ctx, round_number)
    found = Validation()
    if model is not None and is_validation_due(ctx, round_number, is_last=is_last):
        found = validate(ctx, rounds.lanes, round_number, model, rounds.clusters, aside=rounds.outstanding.clients)
    validate_s = time.monotonic() - before
    row = dataclasses.replace(
        row,
        status="finished",
        finished_at=ctx.clock(),
        wall_s=(row.wall_s or 0.0) + validate_s,
        metrics={**row.metrics, **found.metrics},
        averages={**row.averages, **found.averages},
        phases={**row.phases, "validate": validate_s},
    )
    states = {name: token for name, (token, _) in found.clients.items()}
    ctx.executor.states.commit(row.session_id, states)
    told: Sequence[ValidationRow] = ()  # by replies to the strategy's own requests
    if row.metrics:
        told = ctx.store.list_validations(row.session_id, round_number=round_number, phase=VALIDATE)
    measured = {one.client_id: numbers_of(one.metrics) for one in (*told, *found.rows)}
    ctx.store.finish_round(
        row,
        clients=found.clients,
        metrics=measured,
        validations=[*found.rows, *found.server],
        metric_rows=found.metric_rows,
    )
    ctx.executor.states.forget(row.session_id, states)
    for name, token in found.dropped.items():
        if token is not None:
            ctx.executor.states.discard(row.session_id, name, token)
    _tell_finished(ctx, row, model)
    return row


def _tell_finished(ctx: SessionContext, row: RoundRow, model: ModelRow | None) -> None:
    event(
        logger,
        logging.INFO,
        "round.finished",
        round=row.round_number,
        ok=row.num_ok,
        failed=row.num_failed,
        examples=row.num_examples,
        seconds=row.wall_s or 0.0,
        **_not_finite(row.averages),
    )
    aggregates = ctx.store.list_metric_rows(row.session_id, round_number=row.round_number, cluster=None)
    combiners = ctx.store.list_combiners(row.session_id, round_number=row.round_number) if ctx.config.topology else []
    ctx.watch(RoundFinished(round=row, model=model, metrics=aggregates, combiners=combiners))


def _not_finite(averages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The metrics that were not finite for some clients, for the log."""
    words = [
        f"{name} of {phase} ({finite} of {told} finite)"
        for phase, about in averages.items()
        for name, (finite, told) in about.get("finite", {}).items()
    ]
    return {"not_finite": ", ".join(words)} if words else {}


def is_validation_due(ctx: SessionContext, round_number: int, *, is_last: bool = False) -> bool:
    """Every k-th round and the last one, for packages that can validate."""
    every = ctx.config.validation.every
    if not is_validated(ctx):
        return False
    return round_number % every == 0 or round_number == ctx.config.rounds or is_last


def is_validated(ctx: SessionContext) -> bool:
    """Whether any round of the session is validated."""
    can_validate = VALIDATE in ctx.spec.entry_points or ctx.config.evaluation.server is not None
    return ctx.config.validation.every != 0 and can_validate and ctx.traits.has_model


def _current_model(ctx: SessionContext, round_number: int) -> ModelRow | None:
    """The model after a round; None: the session has none."""
    model_id = f"{ctx.session.session_id}.{round_number}"
    if ctx.traits.makes_model:
        newest = ctx.store.list_models(ctx.session.session_id, newest_first=True, limit=1)
        return next((row for row in newest if row.model_id == model_id), None)
    return ctx.store.get_model(model_id) if ctx.traits.has_model else None


def global_model(ctx: SessionContext, state: State) -> Weights | None:
    """The global model of a strategy's state; None: the session has none (yet)."""
    if not ctx.traits.has_model and not ctx.traits.makes_model:
        return None
    model: Weights | None = state["model"] if ctx.traits.has_model else state.get("model")
    return model


def _earlier_round(ctx: SessionContext, round_number: int, *, of: str | None = None) -> RoundRow | None:
    """A recorded round of this or another session."""
    try:
        return ctx.store.get_round(of or ctx.session.session_id, round_number)
    except NotFound:
        return None
