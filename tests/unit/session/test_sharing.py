"""Sessions that run at the same time in one process, on the slots of one executor."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from fedpkg.compute_package.unpack import package_problems
from fedpkg.controller.events import Event, PhaseStarted, Preparing, RoundFinished, TaskStarted
from fedpkg.errors import ConfigError, Interrupted, SessionError
from fedpkg.library import prepare, run
from fedpkg.session import executors
from fedpkg.session.session import Session
from fedpkg.stores.check import check_home
from fedpkg.stores.home import Home

DRIFTING = Path(__file__).resolve().parents[2] / "packages" / "drifting"
MISBEHAVE = DRIFTING.parent / "misbehave"


def configuration(seed: int, executor: str = "forkserver", **changes: Any) -> dict[str, Any]:
    return {
        "package": str(DRIFTING),
        "rounds": 2,
        "seed": seed,
        "clients": {"count": 3},
        "executor": {"name": executor, "workers": 2},
        **changes,
    }


def digests(session: Session) -> list[str]:
    return [model.digest for model in session.models]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["process", "forkserver", "resident"])
@pytest.mark.every_push("forkserver")
def test_two_sessions_of_one_package_have_the_bits_of_each_alone(executor: str, tmp_path: Path) -> None:
    alone = [run(configuration(seed, executor), tmp_path / "alone", progress=False) for seed in (1, 2)]
    home = Home.open(tmp_path / "together")
    first = prepare(configuration(1, executor), home)
    second = prepare(configuration(2, executor), beside=first)
    both_run_at_once = []

    @first.watch
    def look(event: Event) -> None:
        if isinstance(event, PhaseStarted) and second.is_running:
            both_run_at_once.append(event)

    first.start()
    second.start()
    rows = [session.join() for session in (first, second)]
    assert [row.status for row in rows] == ["finished"] * 2 and first.id != second.id
    assert both_run_at_once
    assert [digests(session) for session in (first, second)] == [digests(session) for session in alone]
    assert digests(first) != digests(second)
    assert home.holder() is None, "the last one has released the lock"


def test_one_that_is_stopped_does_not_disturb_the_other(tmp_path: Path) -> None:
    sleeps = threading.Event()
    plan = {"arguments": {"train": {"plan": '{"client-0@1": "sleep"}'}}}
    common = {"package": str(MISBEHAVE), "clients": {"count": 2}, "validation": {"every": 0}}
    one = prepare(configuration(0, **common, **plan), tmp_path / "home")

    @one.watch
    def wait_for(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            sleeps.set()

    one.start()
    sleeps.wait()
    other = prepare(configuration(0, **common), beside=one).start()
    assert other.join().status == "finished"
    assert one.status == "running" and other.status == "finished"
    one.stop()
    with pytest.raises(Interrupted):
        one.join()
    assert one.status == "interrupted"
    assert Home.open(tmp_path / "home").holder() is None


@pytest.mark.parametrize("how", ["stop", "Ctrl-C"])
def test_one_that_is_interrupted_with_outstanding_requests_does_not_disturb_the_other(tmp_path: Path, how: str) -> None:
    page = (DRIFTING.parents[2] / "docs" / "how-to" / "outstanding-requests.md").read_text()
    (code,) = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Stragglers" in one)
    (tmp_path / "stragglers.py").write_text(code.replace('"stragglers"', f'"stragglers {how}"'))
    strategy = {"file": str(tmp_path / "stragglers.py"), "enough": 2}

    def make(seed: int, gate: str, **options: Any) -> Session:
        (tmp_path / str(seed)).mkdir()
        arguments = {"train": {"gate": gate, "arrivals": str(tmp_path / str(seed))}}
        config = configuration(seed, validation={"every": 0}, strategy=strategy, rounds=3, arguments=arguments)
        return prepare({**config, "executor": {"workers": 5}}, **options)

    # In round 2 of both, client-0 still trains what round 1 asked, and client-1 keeps the round from ending.
    one = make(1, "client-0@1,client-1@2", home=tmp_path / "home")
    other = make(2, "client-0@1,client-1@2", beside=one)
    reached = threading.Event()

    @one.watch
    def interrupt(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round.round_number == 1:
            reached.wait(60)
            one.stop() if how == "stop" else os.kill(os.getpid(), signal.SIGINT)

    @other.watch
    def note(event: Event) -> None:
        if isinstance(event, TaskStarted) and (event.order.client_id, event.order.round_number) == ("client-1", 2):
            reached.set()

    other.start()
    with pytest.raises(Interrupted):
        one.run()
    assert one.status == "interrupted" and other.is_running
    (tmp_path / "1" / "open").touch()
    assert one.resume().join().status == "finished" and other.is_running
    (tmp_path / "2" / "open").touch()
    assert other.join().status == "finished"
    assert [row.num_failed for session in (one, other) for row in session.rounds] == [0] * 6
    assert check_home(one.home, package_problems=package_problems).findings == []


def test_sessions_that_differ_in_what_they_share_are_refused(tmp_path: Path) -> None:
    has_executor = threading.Event()
    plan = {"arguments": {"train": {"plan": '{"client-0@1": "sleep"}'}}}
    common = {"package": str(MISBEHAVE), "clients": {"count": 1}, "validation": {"every": 0}}
    one = prepare(configuration(0, **common, **plan), tmp_path / "home")
    with pytest.raises(SessionError, match="the same home"):
        prepare(configuration(0), tmp_path / "other", beside=one)

    @one.watch
    def note(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            has_executor.set()

    one.start()
    has_executor.wait()
    other = prepare(configuration(0, "process", **common), beside=one).start()
    with pytest.raises(ConfigError, match="their sections 'executor' differ"):
        other.join()
    other = prepare(configuration(0, **common, python_env="none"), beside=one).start()
    with pytest.raises(ConfigError, match="its Python environments differ"):
        other.join()
    one.stop()
    with pytest.raises(Interrupted):
        one.join()


def test_each_of_two_sessions_has_what_its_own_startup_left(tmp_path: Path) -> None:
    package = tmp_path / "seeded"
    package.mkdir()
    (package / "fedn.yaml").write_text(
        "entry_points:\n  build: {command: python run.py build}\n  startup: {command: python run.py startup}\n"
        "  train: {command: python run.py train}\n"
    )
    (package / "run.py").write_text(
        "import json, os, sys\nimport numpy as np\n"
        "if sys.argv[1] == 'startup':\n    np.save('seed.npy', np.float32(int(os.environ['FEDPKG_SEED']) % 1000))\n"
        "else:\n    out = sys.argv[-1]\n"
        "    np.savez(out, w=np.load('seed.npy') if sys.argv[1] == 'train' else np.float32(0))\n"
        "    json.dump({'num_examples': 1}, open(out + '-metadata', 'w'))\n"
    )
    common = {"package": str(package), "startup": "once", "rounds": 1, "validation": {"every": 0}}
    alone = [run(configuration(seed, **common), tmp_path / "alone", progress=False) for seed in (1, 2)]
    first = prepare(configuration(1, **common), tmp_path / "together")
    second = prepare(configuration(2, **common), beside=first)
    for session in (first, second):
        session.start()
    assert [session.join().status for session in (first, second)] == ["finished"] * 2
    assert [digests(session) for session in (first, second)] == [digests(session) for session in alone]
    assert digests(first) != digests(second)


def test_who_joins_while_an_executor_is_closed_waits_only_for_its_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_closing, may_close, make = threading.Event(), threading.Event(), executors.make_executor
    order: list[str] = []

    def make_slow_to_close(*args: Any, **options: Any) -> Any:
        executor: Any = make(*args, **options)
        order.append("made")
        close = executor.close

        def wait_and_close() -> None:
            is_closing.set()
            may_close.wait()
            close()
            order.append("closed")

        executor.close = wait_and_close
        return executor

    monkeypatch.setattr(executors, "make_executor", make_slow_to_close)
    common = {"package": str(MISBEHAVE), "clients": {"count": 1}, "validation": {"every": 0}, "rounds": 1}
    one = prepare(configuration(0, "process", **common), tmp_path / "home").start()
    try:
        assert is_closing.wait(60)
        prepares = threading.Event()

        def note(event: Event) -> None:
            if isinstance(event, Preparing):
                prepares.set()

        other = prepare(configuration(0, "process", **common), beside=one, watch=note).start()
        assert prepares.wait(60)
    finally:
        may_close.set()
    assert [session.join().status for session in (one, other)] == ["finished"] * 2
    assert order == ["made", "closed", "made", "closed"], "no two executors have the same slots at once"
