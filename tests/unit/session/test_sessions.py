"""Sessions as objects: started, stopped, waited for, resumed and read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.config_reading import config_of
from fedpkg.controller.events import Event, PhaseStarted, RoundFinished, SessionEnded, SessionStarted
from fedpkg.errors import ConfigError, Interrupted, NotFound, SessionError, SessionFailed, StoreError
from fedpkg.library import prepare, run
from fedpkg.session import beginning
from fedpkg.session.configuration import resolved
from fedpkg.session.control import Control, heeding_requests
from fedpkg.session.session import Session
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore

MISBEHAVE = Path(__file__).resolve().parents[2] / "packages" / "misbehave"


def configuration(rounds: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "package": str(MISBEHAVE),
        "rounds": rounds,
        "clients": {"count": 2},
        "validation": {"every": 0},
        "executor": {"workers": 2},
        **changes,
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "ein Heim ü")


def digests(session: Session) -> list[str]:
    return [model.digest for model in session.models]


def test_a_session_runs_in_a_thread_of_its_own_and_is_read_afterwards(home: Home) -> None:
    events: list[Event] = []
    session = prepare(configuration(2, validation={"every": 1}), home, watch=events.append)
    assert (session.status, session.id) == ("prepared", "")
    with pytest.raises(SessionError, match="nothing to wait for"):
        session.join()
    row = session.start().join()
    assert (row.status, row.session_id, session.status) == ("finished", session.id, "finished")
    assert isinstance(events[-1], SessionEnded) and any(isinstance(event, SessionStarted) for event in events)
    assert session.join() == row, "whoever asks again gets the same"

    again = Session.open(home, session.id)
    assert [one.round_number for one in again.rounds] == [1, 2]
    assert [one["round"] for one in again.metrics()] == [1, 2] and set(again.metrics()[0]) > {"round"}
    assert [model.round_number for model in again.models] == [0, 1, 2]
    first, last = again.model(0), again.model()
    assert not any(last[name].equal(first[name]) for name in first.parameters)
    with pytest.raises(NotFound, match=r"no model of round 7; it has \[0, 1, 2\]"):
        again.model(7)
    with pytest.raises(SessionError, match="started already"):
        session.start()


def test_a_stopped_session_keeps_what_was_committed_and_resumes_to_the_same_bits(home: Home) -> None:
    changes = {"arguments": {"train": {"plan": '{"client-0@2": "sleep"}'}}}
    in_second_round = threading.Event()

    def watch(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.round_number == 2:
            in_second_round.set()

    session = prepare(configuration(3, **changes), home, watch=watch).start()
    in_second_round.wait()
    assert session.is_running and session.status == "running"
    with pytest.raises(SessionError, match="is running"):
        session.resume()
    with pytest.raises(TimeoutError):
        session.join(0)
    session.stop()
    with pytest.raises(Interrupted, match="all committed rounds are kept"):
        session.join()
    assert (session.status, len(session.models)) == ("interrupted", 2)
    session.stop()  # of one that does not run: nothing

    ended: list[Event] = []
    session.watch(ended.append)
    # The client would sleep again: a resumed session keeps its arguments, so this one is stopped again.
    in_second_round.clear()
    session.resume()
    in_second_round.wait()
    session.stop()
    with pytest.raises(Interrupted):
        session.join()
    assert isinstance(ended[-1], SessionEnded)


def test_a_session_that_was_stopped_goes_on_to_the_bits_of_one_that_was_not(home: Home, tmp_path: Path) -> None:
    expected = run(configuration(3), Home.open(tmp_path / "other"), progress=False)
    session = prepare(configuration(3), home)

    @session.watch
    def stop_after_the_first(event: Event) -> None:
        if isinstance(event, RoundFinished) and event.round.round_number == 1:
            session.stop()

    session.start()
    try:
        session.join()
    except Interrupted:
        assert Session.open(home).resume().join().status == "finished"
    assert digests(Session.open(home)) == digests(expected)
    assert Session.open(home).resume(rounds=4).join().num_rounds == 4
    assert len(Session.open(home).models) == 5


def test_a_request_to_stop_is_seen_although_the_database_could_not_be_read_before(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, control = threading.Event(), Control()

    def looked_at(home: Home, **options: bool) -> StateStore:
        try:
            return open_store(home, **options)
        except StoreError:
            failed.set()
            raise

    monkeypatch.setattr("fedpkg.session.control.open_store", looked_at)
    session_id = run(configuration(), home, progress=False).id
    away = home.state_db.rename(home.root / "away")
    with heeding_requests(home, session_id, control):
        assert failed.wait(60)
        away.rename(home.state_db)
        with open_store(home) as store:
            store.request_stop(session_id)
        with pytest.raises(KeyboardInterrupt):
            control.follow(Future()).result(timeout=10)


def test_one_whose_store_cannot_be_opened_releases_the_home(home: Home) -> None:
    home.state_db.mkdir()
    session = prepare(configuration(), home)
    with pytest.raises(StoreError, match="is a folder, where the state database should be"):
        session.run()
    home.state_db.rmdir()
    assert prepare(configuration(), home).run().status == "finished"
    assert session.status == "prepared"


def test_one_that_is_stopped_as_it_begins_is_on_record_as_interrupted(home: Home) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, SessionStarted):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="all committed rounds are kept"):
        beginning.run(config_of(configuration(), resolve=resolved), home, stop)
    assert Session.open(home).status == "interrupted"


def test_one_that_is_stopped_before_it_goes_on_says_how_it_can_be_resumed(home: Home) -> None:
    session = run(configuration(), home, progress=False)
    with session.workshop.preparing:
        session.resume(rounds=2)
        session.stop()
        with pytest.raises(Interrupted, match="was resumed") as caught:
            session.join(timeout_s=60)
    assert caught.value.hint == f"fedpkg session resume {session.id}"


def test_a_request_to_stop_reaches_one_that_prepares_to_go_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    makes_environment = threading.Event()

    def make(*_: Any, check: Callable[[], None], **__: Any) -> None:
        makes_environment.set()
        while True:
            check()
            threading.Event().wait(0.01)

    session = run(configuration(), home, progress=False)
    monkeypatch.setattr("fedpkg.session.resuming.put_on_disk", make)
    session.resume(rounds=2)
    assert makes_environment.wait(60)
    try:
        with open_store(home) as store:
            store.request_stop(session.id)
        with pytest.raises(Interrupted, match="was resumed"):
            session.join(timeout_s=20)
    finally:
        session.stop()


def test_one_that_is_stopped_while_its_data_is_split_leaves_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepare(configuration(clients={"count": 3, "data": {"dataset": "sklearn/digits"}}), home)
    save = np.savez

    def stop_and_save(*args: Any, **arrays: Any) -> None:
        session.stop()
        save(*args, **arrays)

    monkeypatch.setattr(np, "savez", stop_and_save)
    session.start()
    with pytest.raises(Interrupted, match="nothing was recorded"):
        session.join()
    assert [path.name for path in home.data.iterdir()] in ([], [".lock"])
    assert session.status == "prepared"


def test_join_raises_what_stopped_a_session(home: Home) -> None:
    session = prepare(configuration(arguments={"train": {"how": "exit3"}}), home).start()
    with pytest.raises(SessionFailed, match="exited with code 3"):
        session.join()
    assert session.status == "failed"


def test_one_that_fails_before_it_is_on_record_says_so(home: Home) -> None:
    session = prepare(configuration(arguments={"build": {"how": "raise"}}), home).start()
    with pytest.raises(Exception, match="build"):
        session.join()
    assert (session.status, session.id) == ("prepared", "")
    with pytest.raises(SessionError, match="not in the store"):
        session.resume()


def test_an_exception_of_a_watcher_does_not_touch_the_session(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise ValueError("a fault of the watcher")

    assert run(configuration(), home, watch=fail, progress=False).status == "finished"
    assert [record.message.split()[0] for record in caplog.records].count("watcher.failed") == 1


def test_wrong_keys_and_values_are_refused_before_anything_runs(home: Home) -> None:
    with pytest.raises(ConfigError, match="did you mean 'rounds'"):
        prepare(configuration(), home, rouds=3)
    with pytest.raises(ConfigError, match="is a set"):
        prepare(configuration(), home, rounds={3})
    with pytest.raises(NotFound, match="no fedpkg home"):
        Session.open(home.root / "nowhere")
    with pytest.raises(StoreError, match="no state database"):
        Session.open(home)


def test_a_package_runs_without_a_run_yaml(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    session = run(MISBEHAVE, home, clients=2, rounds=1, **{"validation.every": 0})
    assert session.row.config["clients"]["count"] == 2
    said = capsys.readouterr()
    assert f"session {session.id}: 2 clients, round 1" in said.err and "round 1/1  2 ok 0 failed" in said.err
    assert said.out == ""
