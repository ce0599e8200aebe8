"""The requests of a round, in sequence or several at once, and the replies that count in it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from fedpkg.controller.asked import Asked, Desk
from fedpkg.controller.choosing import Choosing
from fedpkg.controller.events import PhaseStarted, RequestAsked, Waiting
from fedpkg.controller.ledger import Came
from fedpkg.controller.outstanding import Key, Outstanding
from fedpkg.errors import SessionFailed
from fedpkg.samplers.base import Sample
from fedpkg.stores.base import MetricPhase, RequestRow
from fedpkg.strategies.base import Arrived, Request, sets_of
from fedpkg.types import Json, ReplyKind
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_KINDS = (ReplyKind.UPDATE, ReplyKind.SETS, ReplyKind.METRICS, ReplyKind.RECORDS)
_OF_WEIGHTS = (ReplyKind.UPDATE, ReplyKind.SETS)


class Asking:
    """The requests of one round.

    Records of the round by an earlier controller are used before anything is dispatched. Tasks of one client run
    in sequence, in the order of the requests: each starts with the state that the previous one left.

    Args:
        arrivals: the results of the round's waits for outstanding requests before it was killed, or in the session that
            is repeated.
        num_noted: number of these on record.
        note: records the results of the waits.
        measure: is called with the clients of the round's first requests before these are sent; None: nothing is.

    Attributes:
        counting: the requests whose replies count in this round: those that it waited for, and those of this or an
            earlier round that arrived in it.
        virtual_s: duration of the round by the virtual clock.
    """

    def __init__(
        self,
        desk: Desk,
        choosing: Choosing,
        outstanding: Outstanding,
        *,
        arrivals: Sequence[Sequence[Key]],
        num_noted: int,
        note: Callable[[list[list[Key]]], None],
        measure: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self.ctx = desk.ctx
        self.desk = desk
        self.choosing = choosing
        self.outstanding = outstanding
        self.counting: list[Asked] = []
        self.virtual_s = 0.0
        self._arrivals = [list(keys) for keys in arrivals]
        self._num_noted = num_noted
        self._note = note
        self._measure = measure
        self._waits = 0
        self._is_waiting = False
        self._after_replies: list[Asked] = []  # requests of this round after its first ones, or after a wait
        self._after_waits: list[Asked] = []  # requests of this round after its first wait
        self._num_asked = 0
        self._ids: set[str] = set()
        self._batch: list[Asked] = []
        self._batches = 0

    def ask(self, requests: Sequence[Request]) -> tuple[Asked, ...]:
        """Send these requests at once, after completing earlier ones that do not stay outstanding.

        Raises:
            SessionFailed: a request is invalid, or an earlier one got too few usable replies.
            StoreError: the disk is full.
        """
        self.finish()
        # All clients are chosen before any request is recorded: if one finds no client, none of them is sent.
        chosen = [self._chosen(request, self._num_asked + place) for place, request in enumerate(requests, 1)]
        busy: set[str] = set()
        for request, sample in chosen:
            if request.wait == "nothing":
                busy.update(sample.clients)
            else:
                self._check_idle(request, sample.clients, busy)
        return self.ask_chosen(chosen)

    def ask_chosen(self, chosen: Sequence[tuple[Request, Sample]]) -> tuple[Asked, ...]:
        """Send requests to the clients that were chosen for them."""
        if self._measure is not None and not self._batches:
            self._measure(list(dict.fromkeys(name for _, sample in chosen for name in sample.clients)))
        self._batches += 1
        self.note_waits()
        asked = [self._row(request, sample) for request, sample in chosen]
        rows = self.desk.ledger.begin(asked, is_first=self._batches == 1, is_after_wait=self._waits > 0)
        several = [self._begin(request, row) for (request, _), row in zip(chosen, rows, strict=True)]
        self._tell(sum(len(asked.cohort) for asked in several))
        self.desk.set_deadline()
        # With several requests, the replacement of failed clients would depend on when the failures are noticed.
        turns = [turn for asked in several for turn in asked.turns(without_reserve=len(several) > 1)]
        self.desk.lanes.enter(turns)
        return tuple(several)

    def arrived(self, wanted: Arrived) -> tuple[Asked, ...]:
        """The next outstanding requests that have ended, in the order in which they arrived.

        Raises:
            SessionFailed: one of them got too few usable replies.
        """
        if not isinstance(wanted.number, int) or wanted.number < 0:
            raise SessionFailed(f"round {self.desk.round_number}: the strategy waits for {wanted.number!r} requests")
        self.finish()
        self._waits += 1
        if self._waits > len(self._arrivals):
            self.desk.set_deadline()
            lanes = self.desk.lanes
            wait = functools.partial(self._wait, wanted.number) if wanted.number else functools.partial(lanes.take, 0.0)
            self._arrivals.append(self.outstanding.arrived(wanted.number, wait))
        if self._arrivals[self._waits - 1]:
            self.note_waits()
        self.desk.deadline = None
        keys = self._arrivals[self._waits - 1]
        found = self.outstanding.take(keys, functools.partial(self._wait, len(keys)))
        if self._is_waiting:
            self._is_waiting = False
            self._tell_waiting(0)
        self.counting += found
        needed = self.outstanding.payloads
        for asked in found:
            asked.finish()
            asked.desk.payloads.clear(but=needed)
        return tuple(found)

    def _wait(self, number: int) -> bool:
        if not self._is_waiting:
            self._is_waiting = True
            self._tell_waiting(number)
        return self.desk.wait()

    def _tell_waiting(self, number: int) -> None:
        round_number, num_outstanding = self.desk.round_number, len(self.outstanding)
        self.ctx.watch(Waiting(round_number=round_number, num_requests=number, num_outstanding=num_outstanding))

    def note_waits(self) -> None:
        """Record the results of waits. An empty result is only written before records that may depend on it."""
        if self._waits > self._num_noted:
            self._note(self._arrivals[: self._waits])
            self._num_noted = self._waits

    def finish(self) -> None:
        """Complete all requests that the round waits for, and record which replies count."""
        for asked in self._batch:
            asked.finish()
        self.virtual_s += max((asked.virtual_s for asked in self._batch), default=0.0)
        self._batch = []
        self.desk.payloads.clear(but=self.outstanding.payloads)

    def sample(self) -> tuple[str, ...]:
        """A cohort from the session's sampler; each call draws another one."""
        return self.choosing.sample().clients

    # ---- results

    @property
    def rows(self) -> list[RequestRow]:
        return [asked.row for asked in self.counting]

    @property
    def last(self) -> dict[str, tuple[float, Mapping[str, Json]]]:
        """Number of examples and metadata of each client's last counted reply with weights."""
        return {
            came.client_id: (came.num_examples or 0.0, came.metadata)
            for asked in self.counting
            if asked.request.reply_kind in _OF_WEIGHTS and asked.request.contributes
            for came in asked.usable
        }

    @property
    def trained(self) -> dict[str, tuple[float, Mapping[str, Json]]]:
        """Number of examples and metadata of each client's last counted reply that is a training's."""
        return self.last | self._of_phase("train")

    def _of_phase(self, phase: MetricPhase) -> dict[str, tuple[float, Mapping[str, Json]]]:
        found = (came for asked in self.counting if asked.request.phase == phase for came in asked.usable)
        return {came.client_id: (came.num_examples or 0.0, came.metadata) for came in found}

    @property
    def validated(self) -> list[Came]:
        """Each client's last counted reply with metrics of this round's model, in the order of the clients."""
        found = (came for asked in self.counting if asked.request.phase == "validate" for came in asked.usable)
        last = {came.client_id: came for came in found}
        return sorted(last.values(), key=lambda came: self.desk.clients[came.client_id].position)

    @property
    def states(self) -> dict[str, str | None]:
        """Tokens of the clients' states after their last counted task."""
        return {came.client_id: came.state for asked in self.counting for came in asked.usable}

    @property
    def replies(self) -> list[Path]:
        """The files of all counted replies."""
        return [came.reply for asked in self.counting for came in asked.usable if came.reply is not None]

    @property
    def superseded(self) -> list[tuple[str, str]]:
        """By client, tokens of states that `states` supersedes."""
        last = self.states
        known = [(name, self.desk.clients[name].state_version) for name in last]
        known += [(came.client_id, came.state) for asked in self.counting for came in asked.usable]
        return [(name, token) for name, token in known if token is not None and token != last[name]]

    def check_answered(self) -> None:
        """Check that at least one reply is usable, if clients were asked.

        Raises:
            SessionFailed: clients were asked, and no reply is usable. This holds whatever the strategy requires, unless
                it declares ``takes_no_replies``.
        """
        traits, calls = self.ctx.traits, sum(len(row.cohort) for row in self.rows)
        if traits.takes_no_replies and all(asked.request.required == 0 for asked in self.counting):
            return
        if calls and not traits.takes_empty_rounds and not any(row.num_ok for row in self.rows):
            raise SessionFailed(
                f"round {self.desk.round_number}: none of the {calls} calls of clients returned a usable reply",
                hint=self.desk.when_mended,
                session_id=self.ctx.session.session_id,
                round_number=self.desk.round_number,
            )

    def failed_requests(self) -> list[RequestRow]:
        """The requests to repeat after a round without a model: all, if no reply counted; else the last ones.

        When the round is repeated, other requests may arrive first, and the step may then send other requests. So
        requests after a wait are repeated as well, and their answers are withdrawn. The same holds for requests after
        other requests, if no reply counted.
        """
        again, otherwise = self.counting, self._after_replies
        # What a combiner of a tree has is the result of all of its rounds.
        if any(asked.row.num_ok for asked in again) and self.ctx.config.topology is None:
            arrived = [asked for asked in again if asked.request.wait == "nothing" and asked.falls_short]
            again, otherwise = [*arrived, *self._batch], self._after_waits
        self.desk.ledger.disown_answers({asked.request_id for asked in otherwise})
        rows = {id(asked): asked.row for asked in (*again, *otherwise)}
        return [dataclasses.replace(row, status="failed", counted=None) for row in rows.values()]

    # ---- sending

    def _tell(self, num_tasks: int) -> None:
        """Emit an event to watchers when tasks begin."""
        number, batch = self.desk.round_number, self._batches
        self.ctx.watch(PhaseStarted(round_number=number, phase="train", num_clients=num_tasks, batch=batch))

    def _chosen(self, request: Request, number: int) -> tuple[Request, Sample]:
        """A request with its id and its clients."""
        if not request.request_id:
            request = dataclasses.replace(request, request_id=str(number))
        self._check(request)
        sample = self._cohort(request)
        if isinstance(request.wait, int):
            sample = Sample(sample.clients, target=min(request.wait, sample.target))
        elif request.wait == "nothing":
            sample = Sample(sample.clients, target=len(sample.clients))
        return request, sample

    def _row(self, request: Request, sample: Sample) -> RequestRow:
        if request.request_id in self._ids:
            where = self._where(request.request_id)
            raise SessionFailed(f"{where}: the strategy has used this request id before in the same round")
        self._ids.add(request.request_id)
        self._num_asked += 1
        return RequestRow(
            session_id=self.ctx.session.session_id,
            round_number=self.desk.round_number,
            request_id=request.request_id,
            number=self._num_asked,
            entry_point=request.entry_point,
            reply_kind=request.reply_kind.value,
            client_group=request.group,
            cohort=list(sample.clients),
            target=sample.target,
            started_at=self.ctx.clock(),
        )

    def _begin(self, request: Request, row: RequestRow) -> Asked:
        asked = Asked(
            self.desk,
            request,
            row,
            sampled=self.choosing.sampled,
            durations=self.choosing.durations(row.cohort, request.payload, row.number),
        )
        if self._waits:
            self._after_waits.append(asked)
        if self._waits or self._batches > 1:
            self._after_replies.append(asked)
        if request.wait == "nothing":
            self.outstanding.add(asked)
        else:
            self._batch.append(asked)
            self.counting.append(asked)
        self.ctx.watch(RequestAsked(request=row))
        return asked

    def _check(self, request: Request) -> None:
        where = self._where(request.request_id)
        if request.reply_kind not in _KINDS:
            kinds = ", ".join(kind.value for kind in _KINDS)
            raise SessionFailed(f"{where}: the strategy must ask for one of {kinds}, not {request.reply_kind.value}")
        if request.transforms is not None and request.reply_kind is not ReplyKind.UPDATE:
            raise SessionFailed(f"{where}: transforms require an update, not {request.reply_kind.value}")
        if request.download is not None and not isinstance(request.payload, Weights):
            raise SessionFailed(f"{where}: transforms of a download with several sets are not supported")
        is_payload = isinstance(request.payload, (Mapping, Records))
        if not is_payload or not all(isinstance(one, Weights) for one in sets_of(request.payload).values()):
            raise SessionFailed(f"{where}: a payload must be Weights, several named Weights, or Records")
        if not all(isinstance(one, Records) for one in request.payloads.values()):
            raise SessionFailed(f"{where}: payloads for single clients must be Records")
        if isinstance(request.clients, str):
            raise SessionFailed(f"{where}: clients of a request must be several ids: ('{request.clients}',)")
        try:
            json.dumps(dict(request.parameters))
        except (TypeError, ValueError) as error:
            raise SessionFailed(f"{where}: parameters must be JSON: {error}") from error
        if reason := _cannot_wait(request):
            raise SessionFailed(f"{where}: the strategy waits for {reason}")
        if request.wait == "nothing" and (reason := self._cannot_stay(request)):
            raise SessionFailed(f"{where}: the request cannot stay outstanding, because {reason}")
        if request.reply_kind is ReplyKind.SETS and not request.sets:
            raise SessionFailed(f"{where}: the strategy asks for sets, but names none")
        if not self.ctx.traits.has_model and _fits_nothing(request):
            raise SessionFailed(
                f"{where}: without a model, the strategy asks for {request.reply_kind.value} of any form",
                hint="ask for records, or send Weights with the names and shapes of the update",
            )
        self.ctx.spec.entry_point(request.entry_point)

    def _cannot_stay(self, request: Request) -> str:
        """The reason why a request cannot be outstanding; empty: it can."""
        if self.ctx.virtual_clock is not None:
            return "with a `clock`, virtual time decides which answer arrives first; remove the section"
        if request.download is not None:
            return "transforms of a download are not supported for such requests"
        if request.timeout_s is not None:
            return "it has a time limit (timeout_s), which holds for requests that the step waits for"
        fits_model = request.reply_kind is ReplyKind.UPDATE or None in request.sets.values()
        if fits_model and not isinstance(request.payload, Weights):
            return "its replies must fit the global model, which is not its whole payload"
        return ""

    def _cohort(self, request: Request) -> Sample:
        where, clients = self._where(request.request_id), request.clients
        if clients is None and request.group is not None:
            clients = self.ctx.groups.get(request.group)
            if clients is None:
                raise SessionFailed(
                    f"{where}: there is no group '{request.group}'",
                    hint=f"list its clients in the run.yaml: clients.groups.{request.group}",
                )
        if clients is None:
            return self.choosing.sample()
        may_not = self.ctx.held_out
        unknown = [name for name in clients if name not in self.desk.clients or name in may_not]
        if not clients and self.ctx.traits.takes_empty_rounds:
            return Sample((), target=0)
        if not clients or unknown or len(set(clients)) < len(clients):
            what = f"unknown clients: {', '.join(unknown[:3])}" if unknown else "none" if not clients else "one twice"
            raise SessionFailed(f"{where}: clients of the request: {what}")
        if request.wait != "nothing":
            self._check_idle(request, clients, self.outstanding.clients)
        return Sample(clients, target=len(clients))

    def _check_idle(self, request: Request, clients: Sequence[str], busy: Collection[str]) -> None:
        if both := sorted(set(clients).intersection(busy)):
            raise SessionFailed(
                f"{self._where(request.request_id)}: the strategy waits for {', '.join(both[:3])}, but these clients "
                "have outstanding requests to complete first",
                hint="get those answers first (yield Arrived()), or ask with wait='nothing'",
            )

    def _where(self, request_id: str) -> str:
        return f"round {self.desk.round_number}" + (f", request {request_id}" if self._num_asked else "")


def _fits_nothing(request: Request) -> bool:
    """Whether weights are requested without a model or payload to check them against."""
    has_likeness = isinstance(request.payload, Weights) or (request.sets and None not in request.sets.values())
    return request.reply_kind in _OF_WEIGHTS and not has_likeness


def _cannot_wait(request: Request) -> str:
    """What is wrong with a request's `wait`; empty: nothing."""
    wait = request.wait
    if wait in ("all", "nothing"):
        return ""
    if not isinstance(wait, int) or wait < 1:
        return f"{wait!r}, but `wait` must be 'all', a number of replies, or 'nothing'"
    return f"{wait} replies, but requires {request.required}" if wait < (request.required or 0) else ""
