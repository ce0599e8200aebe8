"""Baselines: the same training with all data in one place, and by each client alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import MISBEHAVE, points_of, statuses, sweep, write_run_yaml

from fedpkg.errors import ConfigError
from fedpkg.experiments.baselines import Baseline, baseline_configs
from fedpkg.experiments.record import points_with_sessions
from fedpkg.session.configuration import load
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


ALPHA = "clients.data.partition.alpha=choice(0.5)"


def write(folder: Path, **values: Any) -> Path:
    """A run.yaml of four clients that share 24 examples of 3 classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    np.savez(folder / "all.npz", x_train=rng.normal(size=(24, 2)), y_train=labels, x_test=rng.normal(size=(6, 2)),
             y_test=labels[:6])  # fmt: skip
    partition = {"name": "dirichlet", "alpha": 0.5, "min_examples": 2}
    clients = {"count": 4, "data": {"dataset": str(folder / "all.npz"), "partition": partition}}
    return write_run_yaml(folder, **{"package": str(MISBEHAVE), "clients": clients, "rounds": 4, **values})


def configs(path: Path, baseline: Baseline, cache: Path, *overrides: str) -> list[tuple[dict[str, Any], Any]]:
    return list(baseline_configs(load(path, overrides).config, baseline, cache=cache))


def test_centralised_baseline_has_all_data_and_sees_as_many_examples(tmp_path: Path) -> None:
    path = write(tmp_path)
    ((choices, config),) = configs(
        path, "centralised", tmp_path, "sampler.fraction_train=0.5", "strategy.name=fedadam", "round.required=2"
    )
    assert choices == {} and config.rounds == 2, "half of the clients in 4 rounds: all data in 2"
    assert (config.clients.count, config.clients.data.partition["name"], config.round.required) == (1, "iid", 1)
    assert config.strategy["name"] == "fedavg" and config.sampler["fraction_train"] == 1.0


def test_centralised_baseline_needs_a_split_by_fedpkg(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'centralised' needs data that fedpkg splits"):
        configs(write_run_yaml(tmp_path), "centralised", tmp_path)
    with pytest.raises(ConfigError, match=r"would train on the data of the clients in 'sampler.held_out'"):
        configs(write(tmp_path), "centralised", tmp_path, "sampler.held_out=1")


def test_baselines_have_no_tree_and_refuse_data_of_combiners(tmp_path: Path) -> None:
    south: dict[str, Any] = {"name": "south", "clients": ["client-[2-3]"]}
    tree = {"children": [{"name": "north", "clients": ["client-[0-1]"]}, south]}
    ((_, config),) = configs(write(tmp_path, topology=tree), "centralised", tmp_path)
    assert config.topology is None
    south["data"] = str(tmp_path / "south.npz")
    with pytest.raises(ConfigError, match="combiners of the topology have data of their own"):
        configs(write(tmp_path, topology=tree), "local", tmp_path)


def test_local_baseline_has_a_session_for_each_client_that_all_evaluate(tmp_path: Path, home: Home) -> None:
    path = write(tmp_path, rounds=2)
    sweep(home, path, "seed=1,2", baselines=("local", "centralised"), parallel=2)
    found = points_with_sessions(home, "try")
    points = [point for point, _ in found]
    assert statuses(points) == ["finished"] * 12
    assert [point.baseline for point in points] == [""] * 2 + ["local"] * 8 + ["centralised"] * 2
    assert points[3].choices == {"seed": 1, "client": "client-1"}
    with open_store(home, read_only=True) as store:
        alone = store.list_rounds(points[3].session_id)
        validated = {row.client_id for row in store.list_validations(points[3].session_id or "", round_number=2)}
        (pooled,) = store.list_clients(points[10].session_id or "")
    assert [row.cohort for row in alone] == [["client-1"]] * 2
    assert validated == {f"client-{k}" for k in range(4)}, "all clients evaluate its last model"
    assert pooled.num_examples == 24


def test_configurations_with_the_same_baseline_share_it(tmp_path: Path, home: Home) -> None:
    path = write(tmp_path, rounds=1)
    sweep(home, path, "strategy.name=fedavg,fedavgm", ALPHA, baselines=("centralised",))
    points = points_of(home)
    assert [(point.baseline, point.choices) for point in points] == [
        ("", {"strategy.name": "fedavg", "clients.data.partition.alpha": 0.5}),
        ("", {"strategy.name": "fedavgm", "clients.data.partition.alpha": 0.5}),
        ("centralised", {"clients.data.partition.alpha": 0.5}),
    ], "its choices are those that are the same in both"


def test_client_ids_with_signs_of_patterns_are_meant_as_they_are(tmp_path: Path) -> None:
    for name in ("a[1]", "a1"):
        (tmp_path / "clients" / name).mkdir(parents=True)
    path = write_run_yaml(tmp_path, clients={"folders": str(tmp_path / "clients")})
    found = configs(path, "local", tmp_path)
    assert [choices["client"] for choices, _ in found] == ["a1", "a[1]"]
    assert json.loads(json.dumps(found[1][1].clients.groups)) == {"alone": ["a[[]1]"]}
