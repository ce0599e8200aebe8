"""Sweeps: each distinct point once, whatever happens to some of them, and again where they were after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeping import (
    DRIFTING,
    MISBEHAVE,
    REPO,
    digests,
    points_of,
    resume,
    sessions_of,
    statuses,
    sweep,
    write_run_yaml,
)

import fedpkg
from fedpkg.compute_package.unpack import package_problems
from fedpkg.controller.events import Estimated, Event, RoundFinished
from fedpkg.errors import ConfigError, Interrupted, NotFound, SessionError, StoreError
from fedpkg.experiments.record import points_with_sessions, status_of_sweep
from fedpkg.experiments.starting import prepare_resumed
from fedpkg.library import run
from fedpkg.stores.base import SweepPointRow, SweepRow
from fedpkg.stores.check import check_home
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "ett hem ü")


@pytest.mark.parametrize("compared", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_points_of_a_grid_have_the_bits_of_each_alone(home: Home, tmp_path: Path, compared: int) -> None:
    path = write_run_yaml(tmp_path)
    prepared = sweep(home, path, "seed=3,1,3,1", "rounds=1", parallel=2)
    assert prepared.planned.num_repeated == 2, "each distinct point runs once"
    points = points_of(home)
    assert statuses(points) == ["finished"] * 2 and [point.choices for point in points] == [{"seed": 3}, {"seed": 1}]
    for point in points[-compared:]:
        alone = run(path, tmp_path / "alone", progress=False, **point.choices)
        assert digests(home, point.session_id) == [model.digest for model in alone.models]
    assert {session.name for session in sessions_of(home)} == {"try.0", "try.1"}
    assert home.holder() is None
    assert check_home(home, package_problems=package_problems).findings == []


def test_sweep_goes_on_when_a_point_fails_or_cannot_be_composed(home: Home, tmp_path: Path) -> None:
    path = write_run_yaml(tmp_path, package=str(MISBEHAVE))
    how = 'arguments.train.plan=\'{"client-0@1":"raise","client-1@1":"raise"}\',\'{}\''
    sweep(home, path, how, "executor.workers=2,none")
    points = points_of(home)
    assert statuses(points) == ["failed", "failed", "finished", "failed"]
    assert "executor.workers" in (points[1].error or "") and points[1].config is None
    assert "0 usable updates, 1 are required" in (points[0].error or "")
    before = [session.session_id for session in sessions_of(home)]
    resume(home)
    assert statuses(points_of(home)) == ["failed", "failed", "finished", "failed"]
    assert [session.session_id for session in sessions_of(home)] == before, "it was tried again, in its session"


def test_resumed_sweep_composes_again_what_could_not_be_composed(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "an experiment"
    (folder / "method").mkdir(parents=True)
    root = f"defaults: [method: plain, _self_]\nname: x\npackage: {DRIFTING}\nrounds: 1\nclients: {{count: 1}}\n"
    (folder / "experiment.yaml").write_text(root)
    (folder / "method" / "plain.yaml").write_text("strategy: {name: fedavg}\n")
    sweep(home, folder, "method=plain,momentum", "+run_config.x=1,2", baselines=("local",))
    ended = ["finished"] * 2 + ["failed"] * 2 + ["finished"] * 2
    assert statuses(points_of(home, "x")) == ended
    assert points_of(home, "x")[4].choices == {"method": "plain", "run_config.x": 1, "client": "client-0"}
    finished = points_of(home, "x")[:2]
    (folder / "method" / "momentum.yaml").write_text("strategy: {name: fedavgm, momentun: 0.5}\n")
    resume(home)
    assert statuses(points_of(home, "x")) == ended
    assert "'momentun'" in (points_of(home, "x")[2].error or ""), "the new error"
    (folder / "method" / "momentum.yaml").write_text("strategy: {name: fedavgm, momentum: 0.5}\n")
    resume(home)
    points = points_of(home, "x")
    assert statuses(points) == ["finished"] * 6 and points[:2] == finished
    assert {session.name for session in sessions_of(home)} == {f"x.{number}" for number in range(6)}
    assert points[4].choices == {"run_config.x": 1, "client": "client-0"}, "both methods have this baseline"
    configs = [point.config or {} for point in points[2:4]]
    assert [(one["strategy"]["name"], one["run_config"]["x"]) for one in configs] == [("fedavgm", 1), ("fedavgm", 2)]


def test_sweep_of_which_no_point_can_be_composed_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'roundz'"):
        sweep(home, write_run_yaml(tmp_path), "roundz=1,2")
    open_store(home).close()
    with pytest.raises(NotFound, match="no sweep yet"):
        points_with_sessions(home)


def test_two_sweeps_of_one_name_are_refused(home: Home, tmp_path: Path) -> None:
    path = write_run_yaml(tmp_path)
    with open_store(home) as store:
        for name in ("first", "try"):
            store.sweeps.create(SweepRow(name=name, kind="grid", source="", overrides=[], created_at=0, updated_at=0))
    with pytest.raises(SessionError, match="there is a sweep 'first'") as caught:
        sweep(home, path, "seed=1,2,3", name="first")
    assert "experiment resume first" in str(caught.value)
    sweep(home, path, "seed=1")
    with open_store(home, read_only=True) as store:
        assert store.sweeps.names() == ["first", "try", "try-2"], "a name that was not given is made a new one"
    with pytest.raises(ConfigError, match="cannot be the name of a sweep"):
        sweep(home, path, "seed=1", name="a/b")


@pytest.mark.parametrize("seeds", ["1", pytest.param("1,2", marks=pytest.mark.soak)])
def test_points_with_other_executors_wait_for_each_other(home: Home, tmp_path: Path, seeds: str) -> None:
    path = write_run_yaml(tmp_path)
    sweep(home, path, "executor.name=forkserver,process", f"seed={seeds}", parallel=2)
    points = points_of(home)
    half = len(seeds.split(","))
    assert statuses(points) == ["finished"] * 2 * half
    assert digests(home, points[0].session_id) == digests(home, points[half].session_id), "the executor changes no bit"


@pytest.mark.soak
def test_stopped_sweep_goes_on_in_the_round_of_its_running_point(home: Home, tmp_path: Path) -> None:
    path = write_run_yaml(tmp_path, rounds=2, arguments={"train": {"gate": "client-0@2", "arrivals": str(tmp_path)}})
    reached = threading.Event()

    def see(point: SweepPointRow, event: Event | None) -> None:
        if isinstance(event, RoundFinished):
            reached.set()

    def ask_to_stop() -> None:
        reached.wait(60)
        with open_store(home) as store:
            store.sweeps.change("try", stop_requested=True)

    asks = threading.Thread(target=ask_to_stop)
    asks.start()
    with pytest.raises(Interrupted, match="0 of 2 points of sweep try are finished"):
        sweep(home, path, "seed=1,2", watch=see)
    asks.join()
    assert statuses(points_of(home)) == ["running", "waiting"]
    (tmp_path / "open").touch()
    resume(home)
    points = points_of(home)
    assert statuses(points) == ["finished"] * 2 and len(sessions_of(home)) == 2
    with open_store(home, read_only=True) as store:
        assert status_of_sweep(home, store.sweeps.get("try")) == "finished"


@pytest.mark.slow
@pytest.mark.every_push("SIGKILL")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_interrupted_or_killed_sweep_ends_with_the_bits_of_one_that_was_not(
    home: Home, tmp_path: Path, number: int
) -> None:
    """The second point hangs in its second round, while the first one is finished and the third one waits."""
    path = write_run_yaml(tmp_path, rounds=2)
    arrivals = f"arguments.train.arrivals={tmp_path}"
    gates = "arguments.train.gate=nobody,client-0@2"
    words = [sys.executable, "-m", "fedpkg", "experiment", "sweep", str(path), gates, "seed=1,2", arrivals]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(
        [*words, "--home", str(home.root)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while True:
        assert process.poll() is None, process.communicate()
        with_rounds = [] if not home.state_db.exists() else _rounds(home)
        if with_rounds == [2, 2, 1]:
            break
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130 and "2 of 4 points of sweep try are finished" in said
        assert "fedpkg experiment resume try" in said
    with open_store(home, read_only=True) as store:
        assert status_of_sweep(home, store.sweeps.get("try")) == (
            "interrupted" if number == signal.SIGINT else "killed"
        )
    before = {point.number: point.session_id for point in points_of(home)}
    (tmp_path / "open").touch()
    resume(home)
    points = points_of(home)
    assert statuses(points) == ["finished"] * 4
    assert [points[n].session_id for n in range(3)] == [before[n] for n in range(3)] and len(sessions_of(home)) == 4
    assert digests(home, points[0].session_id) == digests(home, points[2].session_id), "the gate changes no bit"
    assert digests(home, points[1].session_id) == digests(home, points[3].session_id)
    assert check_home(home, package_problems=package_problems).findings == []


def _rounds(home: Home) -> list[int]:
    """The number of finished rounds of each session so far."""
    try:
        with open_store(home, read_only=True) as store:
            rows = store.list_sessions()
            return [store.count_rounds(row.session_id, status="finished") for row in rows]
    except StoreError:  # it is just being made
        return []


def test_running_sweep_cannot_be_resumed_elsewhere(home: Home, tmp_path: Path) -> None:
    seen: list[Exception] = []

    def see(point: SweepPointRow, event: Event | None) -> None:
        if isinstance(event, RoundFinished) and not seen:
            with pytest.raises(SessionError) as caught:
                prepare_resumed(home, "try", watch=lambda point, event: None)
            seen.append(caught.value)

    sweep(home, write_run_yaml(tmp_path), "seed=1", watch=see)
    assert "sweep try is running" in str(seen[0])


def test_full_disk_ends_the_sweep_which_goes_on_when_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    home, filler = Home.open(small_disk / "home"), small_disk / "filler"

    def fill(point: SweepPointRow, event: Event | None) -> None:
        if point.number == 0 and point.status == "finished" and event is None and not filler.exists():
            with open(filler, "wb", buffering=0) as file:
                for size_bytes in (1 << 16, 1 << 12):
                    try:
                        while True:
                            file.write(os.urandom(size_bytes))
                    except OSError:
                        continue

    path = write_run_yaml(tmp_path)
    with pytest.raises(StoreError, match="full"):
        sweep(home, path, "seed=range(3)", watch=fill)
    filler.unlink()
    assert statuses(points_of(home))[0] == "finished"
    resume(home)
    assert statuses(points_of(home)) == ["finished"] * 3


def test_experiment_s_folder_is_swept_over_its_groups(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "an experiment"
    (folder / "method").mkdir(parents=True)
    write_run_yaml(folder).rename(folder / "base.json")
    root = f"defaults: [method: plain, _self_]\nname: groups\npackage: {DRIFTING}\nrounds: 1\nclients: {{count: 2}}\n"
    (folder / "experiment.yaml").write_text(root)
    (folder / "method" / "plain.yaml").write_text("strategy: {name: fedavg}\n")
    (folder / "method" / "momentum.yaml").write_text("strategy: {name: fedavgm, momentum: 0.5}\n")
    sweep(home, folder, "method=glob(*)", "seed=1,2", parallel=2)
    found = points_with_sessions(home, "groups")
    assert [point.choices for point, _ in found] == [
        {"method": method, "seed": seed} for method in ("momentum", "plain") for seed in (1, 2)
    ]
    assert [session.config["strategy"]["name"] for _, session in found if session] == ["fedavgm"] * 2 + ["fedavg"] * 2


def test_programs_sweep_with_values_as_they_are(tmp_path: Path) -> None:
    values = {"run_config.x": [{"a": None, "a b": ["c,d", 1]}, "it's \\ on\ntwo lines", None], "seed": range(2)}
    found = fedpkg.sweep(write_run_yaml(tmp_path), values, tmp_path / "home", progress=False, parallel=2, rounds=1)
    assert [point.choices for point, _ in found] == [
        {"run_config.x": x, "seed": seed} for x in values["run_config.x"] for seed in (0, 1)
    ]
    assert [session.config["run_config"]["x"] for _, session in found if session] == [
        point.choices["run_config.x"] for point, _ in found
    ]
    pairs = fedpkg.sweep({"package": str(DRIFTING), "rounds": 1, "clients": {"count": 1}}, {"seed": [1], "rounds": [2]},
                         tmp_path / "home", kind="zip", name="pairs")  # fmt: skip
    assert [session.status for _, session in pairs if session] == ["finished"]
    with pytest.raises(ConfigError, match="a random sweep needs a number of points"):
        fedpkg.sweep(write_run_yaml(tmp_path), {"seed": [1]}, tmp_path / "home", kind="random")


def test_first_point_tells_whether_the_disk_holds_the_others(home: Home, tmp_path: Path) -> None:
    package = tmp_path / "large"
    package.mkdir()
    (package / "run.py").write_text(
        "import json, shutil, sys\nimport numpy as np\n"
        "if len(sys.argv) == 3:\n    np.savez(sys.argv[2], w=np.zeros(2_500_000, np.float32))\n"
        "else:\n    shutil.copyfile(*sys.argv[2:4])\n"
        "    json.dump({'num_examples': 1}, open(sys.argv[3] + '-metadata', 'w'))\n"
    )
    commands = {name: {"command": f"python run.py {name}"} for name in ("build", "train")}
    (package / "fedn.yaml").write_text(f"entry_points: {commands}")
    keep = {"task_folders": "last 1"}
    path = write_run_yaml(tmp_path, package=str(package), clients={"count": 1}, keep=keep)
    with pytest.raises(StoreError, match=r"the sweep of 1 point has 1,000,000 tasks: about 10.* TB of disk"):
        sweep(home, path, "rounds=1,1000000")
    assert statuses(points_of(home)) == ["finished", "waiting"], "it is refused when the size of the model is known"
    seen: list[Event | None] = []
    sweep(home, path, "rounds=1", "seed=2,3", name="other", watch=lambda point, event: seen.append(event))
    (told,) = (event for event in seen if isinstance(event, Estimated))
    assert told.num_tasks == 1 and told.seconds is not None and 40e6 < told.disk_bytes < 70e6
