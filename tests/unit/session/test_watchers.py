"""Watchers get every event in order; one that fails, is slow or hangs concerns nobody else."""

from __future__ import annotations

import logging
import threading

import pytest
from test_events import SESSION

from fedpkg.controller.events import Event, Preparing, SessionEnded, TaskEnded, Warming
from fedpkg.session.watchers import Line, Watchers
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Order


def said(number: int) -> Preparing:
    return Preparing(what=str(number))


def test_each_watcher_gets_all_events_in_order_before_close_returns() -> None:
    first: list[Event] = []
    second: list[Event] = []
    watchers = Watchers([first.append, second.append])
    for number in range(100):
        watchers.put(said(number))
    watchers.close()
    assert first == second == [said(number) for number in range(100)]


def test_the_end_of_a_session_is_its_last_event() -> None:
    """Who looks whether an interpreter is warming does so in a thread of its own, and may be late."""
    seen: list[Event] = []
    watchers = Watchers([seen.append])
    ended = SessionEnded(session=SESSION)
    for event in (Warming(is_warming=True), ended, Warming(is_warming=False)):
        watchers.put(event)
    watchers.close()
    assert seen == [Warming(is_warming=True), ended]


def test_a_watcher_that_fails_gets_later_events_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    def fail(event: Event) -> None:
        seen.append(event)
        raise KeyboardInterrupt if len(seen) == 2 else ValueError("a fault of the watcher")

    watchers = Watchers([fail])
    for number in range(3):
        watchers.put(said(number))
    watchers.close()
    assert len(seen) == 3
    assert [record.message.split()[0] for record in caplog.records] == ["watcher.failed"]
    assert caplog.records[0].exc_info


def test_a_slow_watcher_loses_events_of_tasks_first_and_memory_stays_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_go_on, has_begun = threading.Event(), threading.Event()
    seen: list[Event] = []

    def slow(event: Event) -> None:
        has_begun.set()
        may_go_on.wait()
        seen.append(event)

    line = Line(slow, max_waiting=100)
    line.put(said(0))
    has_begun.wait()
    line.put(said(1))
    for _ in range(250):
        line.put(ENDED)
    line.put(said(2))
    assert len(line._waiting) <= 100
    may_go_on.set()
    line.finish()
    line.join(60)
    assert [event for event in seen if event is not ENDED] == [said(0), said(1), said(2)]
    assert 0 < sum(event is ENDED for event in seen) < 250
    assert [record.message.split()[0] for record in caplog.records] == ["watcher.slow"]


def test_where_nothing_can_be_spared_the_older_half_goes() -> None:
    may_go_on, has_begun = threading.Event(), threading.Event()
    seen: list[Event] = []

    def slow(event: Event) -> None:
        has_begun.set()
        may_go_on.wait()
        seen.append(event)

    line = Line(slow, max_waiting=10)
    line.put(said(-1))
    has_begun.wait()
    for number in range(11):
        line.put(said(number))
    may_go_on.set()
    line.finish()
    line.join(60)
    assert seen == [said(-1), *(said(number) for number in range(5, 11))]


def test_a_watcher_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    ever = threading.Event()
    watchers = Watchers([lambda event: ever.wait() and None])
    for number in range(5):
        watchers.put(said(number))
    with caplog.at_level(logging.WARNING):
        watchers.close(patience_s=0.0)
    ever.set()
    assert [record.message.split()[0] for record in caplog.records] == ["watcher.hangs"]


ORDER = Order(
    task_id="t", session_id="s", round_number=1, client_id="c", entry_point="train", package="p", reply_spec="r"
)
ENDED = TaskEnded(order=ORDER, answer=Answer(task_id="t", status="ok"))
