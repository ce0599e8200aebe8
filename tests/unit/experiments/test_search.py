"""Search: points that Optuna proposes, from the metrics of those before."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweeping import points_of, resume, statuses, sweep, write_run_yaml

from fedpkg.controller.events import Event, RoundFinished
from fedpkg.errors import ConfigError, Interrupted
from fedpkg.experiments.axes import Dimension, split_overrides
from fedpkg.experiments.planning import Maker, Settings, Source
from fedpkg.experiments.search import Search
from fedpkg.session.configuration import load
from fedpkg.stores.base import RoundRow, SweepPointRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

SCORING = """
import json, os, pathlib, sys, time
import numpy as np
command, *words = sys.argv[1:]
options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
paths = [word for word in words if not word.startswith("--")]
task = json.loads(pathlib.Path(os.environ["FEDPKG_TASK"]).read_text()) if "FEDPKG_TASK" in os.environ else {}
if command == "build":
    np.savez(paths[0], w=np.zeros(1, np.float32))
elif command == "train":
    np.savez(paths[1], w=np.load(paths[0])["w"] + float(options["x"]))
    pathlib.Path(paths[1] + "-metadata").write_text(json.dumps({"num_examples": 1}))
else:
    w = float(np.load(paths[0])["w"][0]) / task["round_number"]
    pathlib.Path(paths[1]).write_text(json.dumps({"score": -(w - 3) ** 2}))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run.yaml whose metric ``score`` is -(x - 3)² after each round, with x from ``arguments.train.x``."""
    package = tmp_path / "ett paket ü"
    package.mkdir()
    (package / "run.py").write_text(SCORING)
    commands = {name: {"command": f"python run.py {name}"} for name in ("build", "train", "validate")}
    (package / "fedn.yaml").write_text(f"entry_points: {commands}")
    return write_run_yaml(tmp_path, package=str(package), clients={"count": 1}, validation={"every": 1})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


X = "arguments.train.x"


def test_search_finds_the_best_point_of_a_list(home: Home, path: Path) -> None:
    sweep(home, path, f"{X}=range(0,6)", kind="search", number=6, metric="score", seed=1)
    points = points_of(home)
    assert statuses(points) == ["finished"] * 6
    assert {point.choices[X]: point.value for point in points} == {x: -((x - 3.0) ** 2) for x in range(6)}, (
        "each point once, though TPE proposes some again"
    )


def test_metric_that_never_appears_ends_the_search_with_its_name(home: Home, path: Path) -> None:
    with pytest.raises(ConfigError, match="has the metric 'scores' of the search; did you mean 'score'") as caught:
        sweep(home, path, f"{X}=1,2,3", kind="search", number=3, metric="scores")
    assert "score" in str(caught.value.hint)
    with open_store(home, read_only=True) as store:
        assert store.sweeps.get("try").status == "failed" and len(points_of(home)) == 1


def test_pruned_points_stop_by_their_rounds_so_far(home: Home, path: Path) -> None:
    settings = {"kind": "search", "number": 6, "metric": "score", "prune": True, "minimise": True}
    # Each point lasts long enough that a stop arrives: rounds without clients' work take milliseconds.
    sweep(home, path, f"{X}=3,10,11,12,13,14", "rounds=12", **settings)
    points = points_of(home)
    assert set(statuses(points)) == {"finished", "pruned"}
    with open_store(home, read_only=True) as store:
        rounds = {p.number: store.count_rounds(p.session_id or "", status="finished") for p in points}
    assert all((rounds[p.number] < 12) == (p.status == "pruned") for p in points)


def test_search_that_was_interrupted_goes_on_to_the_same_points(home: Home, path: Path, tmp_path: Path) -> None:
    words = (f"{X}=interval(0.0,6.0)", "rounds=1")
    settings = {"kind": "search", "number": 5, "metric": "score", "seed": 7}
    sweep(home, path, *words, **settings)
    other = Home.open(tmp_path / "interrupted")

    def stop(point: SweepPointRow, event: Event | None) -> None:
        if point.number == 2 and isinstance(event, RoundFinished):
            with open_store(other) as store:
                store.sweeps.change("try", stop_requested=True)

    with pytest.raises(Interrupted):
        sweep(other, path, *words, watch=stop, **settings)
    assert len(points_of(other)) < 5
    resume(other)
    assert [point.choices for point in points_of(other)] == [point.choices for point in points_of(home)]
    assert [point.value for point in points_of(other)] == [point.value for point in points_of(home)]


def test_later_proposals_are_better_than_draws(path: Path) -> None:
    """TPE over 40 points, without sessions: the values come from the function itself."""
    _, dimensions = split_overrides([f"{X}=interval(-100.0,100.0)"])
    search = _search(path, dimensions, Settings("search", number=40, metric="score", seed=1))
    values = []
    while (point := search.take()) is not None:
        _round_of[0] = -((point.choices[X] - 3) ** 2)
        ended = search.ended(_ended(point), None)
        values.append(ended.value or 0.0)
    assert len(values) == 40
    assert sum(values[30:]) / 10 > sum(values[:10]) / 10 * 0.2, "the last ten are much closer to 3 than the first ten"


_round_of = [0.0]


def _ended(point: SweepPointRow) -> SweepPointRow:
    import dataclasses

    return dataclasses.replace(point, status="finished", session_id="s")


def _search(path: Path, dimensions: list[Dimension], settings: Settings) -> Search:
    source = Source("run.yaml", lambda overrides: load(path, overrides).config)

    def rounds_of(session_id: str) -> list[RoundRow]:
        metrics = {"score": _round_of[0]}
        return [
            RoundRow(
                session_id="s", round_number=1, cohort=[], target=0, started_at=0.0, status="finished", metrics=metrics
            )
        ]

    return Search(Maker("try", source, []), dimensions, settings, rounds_of)
