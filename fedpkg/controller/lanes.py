"""The clients' lanes: the tasks of each client run in sequence, and answers are processed as they arrive."""

from __future__ import annotations

import functools
import queue
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeAlias

from fedpkg.controller.receiving import Received, Receiver, drop
from fedpkg.controller.vetting import failed
from fedpkg.errors import DispatchError
from fedpkg.files import remove_files
from fedpkg.stores.base import ClientRow
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order

_Arrived: TypeAlias = "tuple[Order, Received | BaseException]"
END_PATIENCE_S = 60.0  # for a cancelled task to end; fedpkg's own executors need less than 10 s


class Asked(Protocol):
    """A request, as seen by the lanes; ``position``: of a client in its cohort."""

    late: Failure | None  # the failure of clients that have not answered when it is complete

    @property
    def cohort(self) -> Sequence[str]: ...

    @property
    def wants_no_more(self) -> bool: ...

    @property
    def receive(self) -> Receiver: ...

    def lane(self, position: int) -> str: ...

    def order_unless_settled(self, position: int) -> Order | None:
        """The order of a client whose turn has come; None: nothing has to run."""
        ...

    def disown(self, position: int) -> None:
        """An earlier task of this client is about to run: the record of this one becomes invalid."""
        ...

    def started(self, order: Order) -> None: ...

    def take(self, position: int, received: Received) -> None: ...


class Turn(NamedTuple):
    """A client's part in a request."""

    asked: Asked
    position: int


class Lanes:
    """The tasks of a session's clients. Each task starts with the state that the previous one in its lane left.

    Attributes:
        clients: all of the session, by id, as they were when the round or its validation began.
        states: by lane, the token of the state from its last successful task; only lanes in which a task succeeded
            since `forget` have an entry.
    """

    def __init__(self, executor: Executor) -> None:
        self.clients: Mapping[str, ClientRow] = {}
        self.states: dict[str, str | None] = {}
        self._executor = executor
        self._turns: dict[str, deque[Turn]] = {}  # by lane; the task of the first turn is in flight
        self._in_flight: dict[str, Turn] = {}  # by task
        self._running: dict[str, str] = {}  # the task in flight of each lane that has one
        self._have_run: set[str] = set()
        self._arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()

    def enter(self, turns: Iterable[Turn]) -> None:
        """Append turns to their lanes. Turns in empty lanes start now."""
        idle = []
        for turn in turns:
            name = turn.asked.lane(turn.position)
            lane = self._turns.setdefault(name, deque())
            if not lane:
                idle.append(name)
            lane.append(turn)
            if name in self._have_run:
                turn.asked.disown(turn.position)
        for name in idle:
            self._advance(name)

    def begin(self, clients: Iterable[ClientRow]) -> None:
        """A round or its validation begins. Requests of earlier rounds continue with these clients as well."""
        self.clients = {client.client_id: client for client in clients}

    def forget(self, *, but: Iterable[str] = ()) -> None:
        """A round begins: the store has the states of all lanes, except those still in use."""
        self.states = {name: self.states[name] for name in but if name in self.states}

    def has_run(self, lane: str) -> bool:
        """Whether this controller has run a task of the lane: recorded later tasks then started from another state."""
        return lane in self._have_run

    def take(self, patience_s: float | None = None) -> bool:
        """Wait for one more answer, to any request; False if no answer is left, or the time is over.

        Raises:
            Exception: any error of the executor itself.
        """
        if not self._in_flight:
            return False
        try:
            order, received = self._arrived.get(timeout=patience_s)
        except queue.Empty:
            return False
        if isinstance(received, BaseException):
            raise received
        turn = self._in_flight.pop(order.task_id)
        del self._running[turn.asked.lane(turn.position)]
        self._settle(turn, received)
        return True

    def end(self, asked: Asked) -> None:
        """End the tasks of a request that needs no more answers. Turns that have not started leave their lanes.

        Raises:
            DispatchError: a task did not end.
        """
        names = [asked.lane(position) for position in range(len(asked.cohort))]
        running = [self._running[name] for name in names if name in self._running]
        ends = [task_id for task_id in running if self._in_flight[task_id].asked is asked]
        for task_id in ends:
            self._executor.cancel(task_id)
        deadline = time.monotonic() + END_PATIENCE_S
        while left := self._in_flight.keys() & ends:
            if not self.take(max(0.0, deadline - time.monotonic())):
                raise DispatchError(
                    f"{min(left)} was cancelled, but its executor did not end it within {END_PATIENCE_S:g} s",
                    hint="check the executor's logs; when it works again, resume the session",
                )
        for name in names:
            if lane := self._turns.get(name):
                self._turns[name] = deque(turn for turn in lane if turn.asked is not asked)

    def _advance(self, name: str) -> None:
        """A lane's client is free: settle its next turns from the record, up to one that must run."""
        lane = self._turns[name]
        while lane:
            turn = lane[0]
            order = turn.asked.order_unless_settled(turn.position)
            if order is not None:
                self._have_run.add(name)
                for later in list(lane)[1:]:
                    later.asked.disown(later.position)
                self._in_flight[order.task_id], self._running[name] = turn, order.task_id
                self._submit(order, turn.asked.receive)
                turn.asked.started(order)
                return
            lane.popleft()

    def _settle(self, turn: Turn, received: Received) -> None:
        """An answer has arrived: record it, and start its client's next turn."""
        turn.asked.take(turn.position, self._as_it_counts(turn.asked, received))
        name = turn.asked.lane(turn.position)
        self._turns[name].popleft()
        self._advance(name)

    def _submit(self, order: Order, receive: Receiver) -> None:
        self._executor.submit(order).add_done_callback(functools.partial(self._arrive, order, receive))

    def _arrive(self, order: Order, receive: Receiver, done: Future[Answer]) -> None:
        """Receive an answer in a thread of the executor, where slow work is done."""
        received: Received | BaseException
        try:
            received = receive(order, done.result())
        except BaseException as error:  # raised in the thread that waits
            received = error
        self._arrived.put((order, received))

    def _as_it_counts(self, asked: Asked, received: Received) -> Received:
        """A late answer does not count, but a failure of the executor's own does."""
        order, answer = received.order, received.answer
        if answer.status == "failed":
            return received
        if not asked.wants_no_more:
            if answer.status == "ok":
                return received
            failure = Failure("executor", "the executor cancelled it without a request to do so")
            return Received(order, failed(answer, failure))
        self._drop(received)
        ended = Answer(
            task_id=order.task_id,
            status="cancelled" if asked.late is None else "failed",
            failure=asked.late,
            command=answer.command,
            log_tail=answer.log_tail,
            folder=answer.folder,
            started_at=answer.started_at or time.time(),
            wall_s=answer.wall_s,
        )
        return Received(order, ended)

    def _drop(self, received: Received) -> None:
        """Discard an answer that is not needed, with its files."""
        if received.answer.status == "ok":
            if received.path is not None:
                remove_files(received.path.parent)
            drop(self._executor, received.order, received.answer)
