"""Clusters that are found during runs of a package, in real processes: what they learn, kills, executors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits import permuted
from driven import killed, outcome_of, wait_until_gone, write_config
from federation import Federation
from training import SOFTMAX, accuracy, models, places

from fedpkg.config import RunConfig
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home

OWN: dict[str, Any] = {"cut": {"clusters": 2}, "own_models": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file for each of five clients; those of the last two have the labels 9 - y."""
    folder = tmp_path_factory.mktemp("data")
    for number, (x, y) in enumerate(permuted([3, 2])):
        arrays = {"x": x[:150], "y": y[:150], "x_test": x[150:], "y_test": y[150:]}
        found = {name: tensor.numpy() for name, tensor in arrays.items()}
        np.savez(folder / f"client-{number}.npz", **found)
    return str(folder / "*")


def config_of(federation: Federation, data: str, infer: dict[str, Any] | None, **more: Any) -> RunConfig:
    topology = None if infer is None else {"infer": infer}
    settings = {"package": str(SOFTMAX), "clients": {"folders": data}, "topology": topology, **more}
    return federation.config(**settings)


@pytest.mark.slow
def test_clusters_of_a_package_learn_more_than_one_model_could(federation: Federation, data: str) -> None:
    more = {"rounds": 2, "validation": {"every": 2}}
    clustered = federation.run(config_of(federation, data, OWN, **more))
    found, own = places(federation, clustered), models(federation, clustered)
    assert found == {"a": [0, 1, 2], "b": [3, 4]}
    plain = federation.run(config_of(federation, data, None, **more))
    one = federation.model(f"{plain.session_id}.2")
    tests = [(x[150:].double(), y[150:]) for x, y in permuted([3, 2])]
    learned = np.mean([accuracy(own[path], tests[number]) for path, numbers in found.items() for number in numbers])
    assert learned > np.mean([accuracy(one, test) for test in tests]) + 0.2
    measured = [federation.store.get_round(row.session_id, 2).metrics["accuracy"] for row in (clustered, plain)]
    assert measured[0] is not None and measured[1] is not None and measured[0] > measured[1] + 0.2


FOUND_AGAIN: dict[str, Any] = {
    "rounds": 4,
    "sampler": {"count": 4},
    "strategy": {"name": "fedavgm", "momentum": 0.5},
    "arguments": {"train": {"steps": 3}},
    "validation": {"every": 3},
}


def outcome(federation: Federation, session: SessionRow) -> list[object]:
    clusters = [(row.cluster, row.digest) for row in federation.store.list_clusters(session.session_id)]
    saved = federation.store.load_strategy_state(session.session_id)
    return [*outcome_of(federation, session.session_id), clusters, saved]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "every", [pytest.param(60, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.soak)], ids=str
)
def test_killed_a_session_with_own_models_resumes_to_the_same_bits(
    federation: Federation, data: str, tmp_path_factory: pytest.TempPathFactory, every: int
) -> None:
    infer = {**OWN, "every": 2, "shared": ["bias"]}
    quiet = Federation(Home.open(tmp_path_factory.mktemp("quiet") / ".fedpkg"))
    expected = outcome(quiet, quiet.run(config_of(quiet, data, infer, **FOUND_AGAIN)))
    config = write_config(federation, config_of(federation, data, infer, **FOUND_AGAIN))
    for kill_at in range(every, len(quiet.events), every):
        killed(federation, "--run", config, "--kill-at", str(kill_at))
        wait_until_gone(federation)
        session = federation.resume(federation.store.list_sessions()[-1].session_id)
        assert outcome(federation, session) == expected, f"killed at event {kill_at}"


@pytest.mark.soak
@pytest.mark.parametrize("infer", [{**OWN, "every": 2}, {"cut": {"clusters": 2}}], ids=["own models", "tree"])
def test_whatever_runs_the_tasks_the_bits_are_the_same(data: str, tmp_path: Path, infer: dict[str, Any]) -> None:
    found = []
    for name, workers in (("process", 1), ("forkserver", 1), ("forkserver", 4), ("resident", 2)):
        federation = Federation(Home.open(tmp_path / f"{name} {workers}" / ".fedpkg"))
        config = config_of(federation, data, infer, **FOUND_AGAIN, executor={"name": name, "workers": workers})
        found.append(outcome(federation, federation.run(config)))
    assert all(one == found[0] for one in found)
