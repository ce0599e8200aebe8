"""Sessions that an older version of fedpkg began go on by the rules they began with, or are refused with the reason."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import pytest

from fedpkg.errors import ConfigError
from fedpkg.rules import CURRENT, refusal
from fedpkg.session import former_rules, resuming
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

HOMES = Path(__file__).resolve().parents[2] / "homes"
REFUSED = {
    "fedexp": "fedexp has changed since: the model of a round is now the mean of the last two"
}  # by rules 2: session → words of the reason
KEPT = ["mean", "momentum", "half", "trimmed", "killed"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("old home")
    with tarfile.open(HOMES / "rules-1.tar.gz") as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return Home.open(folder / "home", create=False)


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
