"""Sessions that an older version of fedpkg began go on by the rules they began with, or are refused with the reason."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.client import open_data
from fedpkg.config import ClientsConfig, DataConfig, RunConfig
from fedpkg.data.clients import prepare_clients
from fedpkg.errors import ConfigError
from fedpkg.files import sha256_file
from fedpkg.rules import CURRENT, refusal
from fedpkg.session import former_rules, resuming
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

HOMES = Path(__file__).resolve().parents[2] / "homes"
REFUSED = {
    "fedexp": "fedexp has changed since: the model of a round is now the mean of the last two"
}  # by rules 2: session → words of the reason
KEPT = ["mean", "momentum", "half", "trimmed", "killed"]


def unpacked(name: str, folder: Path) -> Home:
    with tarfile.open(HOMES / name) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return Home.open(folder / "home", create=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return unpacked("rules-1.tar.gz", tmp_path_factory.mktemp("old home"))


def ref(name: str) -> str:
    return next(session for session in expected() if session.startswith(f"{name}-"))


def expected() -> dict[str, dict[str, list[object]]]:
    found: dict[str, dict[str, list[object]]] = json.loads((HOMES / "rules-1.json").read_text())
    return found


@pytest.mark.parametrize("name", KEPT)
def test_session_of_older_rules_resumes_to_the_bits_and_metrics_of_its_own_version(home: Home, name: str) -> None:
    resuming.resume(ref(name), home, watch=lambda _: None, rounds=4)
    with open_store(home) as store:
        assert store.get_session(ref(name)).rules == 1
        models = [store.get_model(f"{ref(name)}.{number}").digest for number in range(5)]
        metrics = [row.metrics for row in store.list_rounds(ref(name))]
    assert models == expected()[ref(name)]["models"]
    assert metrics == expected()[ref(name)]["metrics"]


@pytest.mark.parametrize("name", REFUSED)
def test_session_whose_strategy_has_changed_is_refused_with_the_reason(home: Home, name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]) as caught:
        resuming.resume(ref(name), home, watch=lambda _: None, rounds=4)
    assert "--seed-model" in str(caught.value)


def test_older_session_with_means_that_are_added_in_another_order_now_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(former_rules, "SAME_SUMS", 2)
    with pytest.raises(ConfigError, match=r"added the updates of more than 2 clients \(3 here\) in another order"):
        resuming.resume(ref("momentum"), home, watch=lambda _: None, rounds=5)
    for name in ("mean", "trimmed"):  # one client in each cohort; no mean
        resuming.resume(ref(name), home, watch=lambda _: None, rounds=4)


def test_session_of_a_newer_version_is_refused() -> None:
    assert refusal(CURRENT, "fedavg") is None
    assert "newer version" in str(refusal(CURRENT + 1, "fedavg"))


def test_session_of_older_rules_goes_on_with_variables_as_fedpkg_set_them(home: Home) -> None:
    with open_store(home) as store:
        session = store.get_session(ref("mean"))
    given = {"FEDN_DATA_PATH": "/elsewhere", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7", "LR": "1"}
    session = dataclasses.replace(session, config={**session.config, "environment": dict(given)})
    assert former_rules.by_its_rules(dataclasses.replace(session, rules=4))["environment"] == given
    assert former_rules.by_its_rules(session)["environment"] == {"LR": "1"}


# The training examples of each client in the home of rules 4, as NumPy's own draws divided them.
FORMER: dict[str, tuple[dict[str, Any], list[list[int]]]] = {
    "personal": ({"name": "iid"}, [[5, 6, 9], [2, 10, 11], [0, 7, 8], [1, 3, 4]]),
    "skewed": ({"name": "dirichlet", "alpha": 1.0}, [[2, 6, 9, 10], [0, 1, 3, 5, 11], [4, 8], [7]]),
}


@pytest.fixture(scope="module")
def home_4(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = unpacked("rules-4.tar.gz", tmp_path_factory.mktemp("home of rules 4"))
    rows = np.arange(24.0, dtype="f4").reshape(12, 2)
    labels = np.arange(12) % 3
    np.savez(home.root / "data.npz", x_train=rows, y_train=labels, x_test=rows, y_test=labels)
    return home


def examples_of(paths: Iterable[Path]) -> list[list[int]]:
    return [(open_data(path)["x_train"][:, 0] / 2).astype(int).tolist() for path in paths]


@pytest.mark.parametrize("name", FORMER)
def test_session_goes_on_with_the_split_that_numpy_drew(home_4: Home, name: str) -> None:
    told = json.loads((HOMES / "rules-4.json").read_text())["outcomes"][name]
    with open_store(home_4) as store:
        (session,) = (row for row in store.list_sessions() if row.name == name)
        paths = [home_4.root / str(row.data_path) for row in store.list_clients(session.session_id)]
    assert session.rules == 4 and examples_of(paths) == FORMER[name][1]
    resuming.resume(session.session_id, home_4, watch=lambda _: None)
    with open_store(home_4) as store:
        models = [store.get_model(f"{session.session_id}.{number}").digest for number in range(4)]
    assert models == told["models"]
    assert examples_of(paths) == FORMER[name][1]


@pytest.mark.parametrize("name", FORMER)
def test_a_new_session_does_not_take_a_split_that_numpy_drew(home_4: Home, name: str) -> None:
    """The dataset, the section and the seed are those of the session."""
    partition, former = FORMER[name]
    dataset = home_4.root / "data.npz"
    settings = [json.loads(path.read_text())["settings"] for path in home_4.data.glob("*/partition.json")]
    assert f"sha256:{sha256_file(dataset)}.npz" in {str(each["dataset"]) for each in settings}
    data = DataConfig(dataset=str(dataset), partition=partition)
    clients = prepare_clients(ClientsConfig(count=4, data=data), cache=home_4.data, seed=0)
    assert examples_of(client.path for client in clients if client.path) != former


def test_a_session_whose_data_numpy_divided_cannot_be_repeated(home_4: Home) -> None:
    config = RunConfig(package="client", rounds=1, clients=ClientsConfig(count=4, data=DataConfig(dataset="data.npz")))
    with open_store(home_4) as store:
        session = store.list_sessions()[0]
    with pytest.raises(ConfigError, match="whose data was split by an older version"):
        former_rules.check_repeated_split(session, config)
    former_rules.check_repeated_split(dataclasses.replace(session, rules=5), config)
    former_rules.check_repeated_split(session, RunConfig(package="client", rounds=1, clients=ClientsConfig(count=4)))
