"""What an executor names in its own way, the controller does not take for names of its own."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from federation import MISBEHAVE, Federation

from fedpkg.config import RunConfig
from fedpkg.controller.events import Event, TaskEnded
from fedpkg.errors import Interrupted
from fedpkg.session import beginning, resuming
from fedpkg.session.workshop import Workshop
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order


class Elsewhere:
    """An executor whose answers name folders as another machine might."""

    is_ours = False

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._answers: dict[str, Answer] = {}  # as they were

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def submit(self, order: Order) -> Future[Answer]:
        renamed: Future[Answer] = Future()

        def rename(done: Future[Answer]) -> None:
            answer = self._answers[order.task_id] = done.result()
            folder = f"work/{Path(answer.folder).name}"
            renamed.set_result(msgspec.structs.replace(answer, folder=folder))

        self._executor.submit(order).add_done_callback(rename)
        return renamed

    def fetch(self, order: Order, answer: Answer, into: Path) -> None:
        self._executor.fetch(order, self._answers[order.task_id], into)

    def discard(self, order: Order, answer: Answer) -> None:
        self._executor.discard(order, self._answers[order.task_id])


class OtherSide(Workshop):
    def _join_executor(self, *args: Any, **named: Any) -> Any:
        return Elsewhere(super()._join_executor(*args, **named))


def config_of(federation: Federation) -> RunConfig:
    return federation.config(package=str(MISBEHAVE), clients=2, rounds=2, executor={"name": "forkserver", "workers": 1})


def test_tasks_that_another_side_has_answered_are_taken_from_the_record(federation: Federation) -> None:
    expected = federation.run(config_of(federation))
    home = federation.home

    def interrupt(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.order.round_number == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        beginning.run(config_of(federation), home, interrupt, workshop=OtherSide(home))
    session_id = str(caught.value.fields["session_id"])
    resuming.resume(session_id, home, lambda event: None, workshop=OtherSide(home))
    assert federation.digests(session_id) == federation.digests(expected.session_id)
    trained = federation.store.list_tasks(session_id, entry_point="train")
    assert [(task.round_number, task.client_id, task.attempt, task.status) for task in trained] == [
        (1, "client-0", 1, "ok"),
        (1, "client-1", 1, "ok"),
        (2, "client-0", 1, "ok"),
        (2, "client-1", 1, "ok"),
    ]
    updates = {update.task_id for update in federation.store.list_updates(session_id)}
    assert updates == {task.task_id for task in trained}
