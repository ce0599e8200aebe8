"""Split learning: FEDn's form of package and one on records learn from vertical data, and resume to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federation import PACKAGES, Federation

from fedpkg.config import RunConfig
from fedpkg.errors import ConfigError, FedpkgError
from fedpkg.session import resuming
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 6)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5, 1.5, -1.0, 2.0] > 0).astype(np.float32)
    for number, columns in ((1, slice(0, 4)), (2, slice(4, 6))):
        np.savez(tmp_path / f"spalten {number}.npz", X_train=x[:60, columns], X_test=x[60:, columns])
    np.savez(tmp_path / "labels.npz", y_train=y[:60], y_test=y[60:])
    torch.save({"y_train": torch.tensor(y[:60]), "y_test": torch.tensor(y[60:])}, tmp_path / "labels.pt")
    return Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))


def config(federation: Federation, package: str | Path, *, labels: str = "labels.npz", **changes: Any) -> RunConfig:
    here = federation.home.root.parents[1]
    strategy = {"name": "split", "labels": str(here / labels), "validate": True, "learning_rate": 0.05}
    return federation.config(
        **{
            "package": str(PACKAGES / package),
            "clients": {"folders": str(here / "spalten *.npz")},
            "rounds": 6,
            "executor": {"workers": 1},
            "strategy": {**strategy, **changes.pop("strategy", {})},
            **changes,
        }
    )


def metrics(federation: Federation, session: SessionRow) -> list[Any]:
    return [row.strategy_metrics for row in federation.store.list_rounds(session.session_id)]


@pytest.mark.slow
@pytest.mark.parametrize("package", ["split-fedn", "split-records"])
def test_loss_falls_and_a_resumed_session_has_the_same_bits(federation: Federation, package: str) -> None:
    whole = metrics(federation, federation.run(config(federation, package)))
    assert whole[-1]["loss"] < 0.75 * whole[0]["loss"]
    assert whole[-1]["test_loss"] < whole[0]["test_loss"]
    assert whole[-1]["accuracy"] > whole[0]["accuracy"]
    assert 0 < whole[-1]["test_accuracy"] <= 1
    begun = federation.run(config(federation, package, rounds=3, labels="labels.pt"))
    resumed = resuming.resume(begun.session_id, federation.home, watch=lambda _: None, rounds=6)
    assert metrics(federation, resumed) == whole
    assert federation.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["process", "resident"])
def test_every_executor_gives_the_same_bits(federation: Federation, executor: str) -> None:
    found = [
        metrics(federation, federation.run(config(federation, "split-fedn", rounds=2, executor={"name": name})))
        for name in ("forkserver", executor)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("x @ np.load(PATH)}", "x[0] @ np.load(PATH)}"), "sent no embedding: records with the set 'embedding'"),
        (('{"embedding": {', '{"other": {'), "sent no embedding: records with the set 'embedding'"),
        (("x @ np.load(PATH)}", "x[:9 + x.shape[1]] @ np.load(PATH)}"), "not of the same examples: .*13, .*11"),
        (("x @ np.load(PATH)}", "x[:9] @ np.load(PATH)}"), "60 labels 'y_train', and embeddings of 9 examples"),
    ],
)
def test_embeddings_that_cannot_be_used_end_the_session(
    federation: Federation, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    package = tmp_path / "paket"
    package.mkdir()
    for path in (PACKAGES / "split-records").iterdir():
        text = path.read_text()
        assert path.name == "fedn.yaml" or change[0] in text
        (package / path.name).write_text(text.replace(*change))
    with pytest.raises(FedpkgError, match=message):
        federation.run(config(federation, package, rounds=1))


def test_labels_must_be_there(federation: Federation) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere.npz"):
        federation.run(config(federation, "split-records", labels="nowhere.npz"))
    np.savez(federation.home.root.parents[1] / "other.npz", y=np.zeros(3))
    with pytest.raises(ConfigError, match=r"strategy.labels: .*other.npz has no 'y_train'"):
        federation.run(config(federation, "split-records", labels="other.npz", rounds=1))


def test_run_of_such_a_package_with_another_strategy_names_this_one(federation: Federation) -> None:
    with pytest.raises(FedpkgError) as caught:
        federation.run(federation.config(package=str(PACKAGES / "split-fedn"), clients=2, rounds=1))
    assert caught.value.message.startswith("the package has no entry point 'train'")
    assert caught.value.hint is not None
    assert "strategy={name: split, labels: FILE}" in caught.value.hint
