"""One package of each generation of FEDn's contract runs unmodified: the same models from every executor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.unpack import package_problems
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_from_json
from fedpkg.errors import ModelFileError, SessionFailed
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model, write_model
from fedpkg.means import means
from fedpkg.session import beginning, by_hand, resuming
from fedpkg.stores.base import SessionRow
from fedpkg.stores.check import check_home
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sqlite import SqliteStore

PACKAGES = Path(__file__).resolve().parents[2] / "packages" / "generations"
EXECUTORS = ("process", "forkserver", "resident")
EQUAL = {"round": {"weighting": "equal", "required": 2}}
OPTIONS = {"ENTRYPOINT_OPTS": "--data_path={data_path}"}


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def text(*rows: float) -> Callable[[Path], None]:
    return lambda path: np.savetxt(path, np.array(rows))


@dataclass(frozen=True)
class Generation:
    """How a package is run: its seed (None: it builds one), and what the run.yaml says beyond the usual."""

    seed: Callable[[Path], None] | None
    keys: list[str]  # of the global model
    validates: bool
    config: dict[str, Any] = field(default_factory=dict)


TWO = npz(**{"0": np.zeros(2), "1": np.zeros(())})
GENERATIONS = {
    "fedn-0.1-settings": Generation(text(0.0, 0.0), ["0"], True, {"helper": "numpyarrayhelper", **EQUAL}),
    "fedn-0.2-pytorch": Generation(
        npz(
            **{"fc1.weight": np.full((4, 2), 0.1, np.float32), "fc1.bias": np.zeros(4, np.float32)},
            **{"fc2.weight": np.full((1, 4), 0.1, np.float32), "fc2.bias": np.zeros(1, np.float32)},
        ),
        ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"],
        False,  # for want of time: each cold call imports PyTorch
        {**EQUAL, "validation": {"every": 0}},
    ),
    "fedn-0.2-numpyarray": Generation(text(1.0, -1.0, 1 / 3), ["0"], False, EQUAL),
    "fedn-0.4-entrypoint": Generation(
        TWO, ["0", "1"], True, {"environment": {"ENTRYPOINT_OPTS": "--epochs=2"}, **EQUAL}
    ),
    "fedn-0.5-get-helper": Generation(
        npz(**{"fc.weight": np.zeros((1, 2)), "fc.bias": np.zeros(1)}),
        ["fc.weight", "fc.bias"],
        True,
        {"environment": OPTIONS},
    ),
    "fedn-0.8-numpyhelper": Generation(TWO, ["0", "1"], True, {"environment": OPTIONS}),
    "fedn-0.8-android": Generation(None, ["0"], False),
    "fedn-0.9-python-env": Generation(None, ["0", "1"], True),
    "fedn-0.9-binary": Generation(None, ["0"], False),
    "fedn-0.9-raw-binary": Generation(None, ["0"], False),
    "fedn-0.20-client-settings": Generation(None, ["0", "1"], True, {"run_config": {"learning_rate": 0.1}}),
    "fedn-0.25-callbacks": Generation(npz(**{"0": np.zeros(2)}), ["0"], True, {"run_config": {"learning_rate": 0.05}}),
    "scaleout-1": Generation(None, ["0"], True),
    "scaleout-1-startup": Generation(None, ["0"], True),
    "bash": Generation(npz(w=np.arange(3.0)), ["w"], True),
    "module": Generation(None, ["w", "steps"], False),
}


@dataclass(frozen=True)
class Clients:
    """Two clients' files, and a home for each run."""

    folder: Path

    def config(self, name: str, executor: str, **changes: Any) -> RunConfig:
        generation = GENERATIONS[name]
        seed = self.folder / f"seed of {name}.npz"
        if generation.seed is not None and not seed.exists():
            generation.seed(seed)
        data = {
            "package": str(PACKAGES / name),
            "rounds": 2,
            "clients": {"folders": str(self.folder.parent / "clients" / "*" / "data.npz")},
            "seed_model": None if generation.seed is None else str(seed),
            "validation": {"every": 2},
            "round": {"required": 2},
            "executor": {"name": executor, "workers": 2, "timeout_s": 60},
            **generation.config,
            **changes,
        }
        return config_from_json(msgspec.to_builtins(msgspec.convert(data, RunConfig)))

    def run(self, name: str, executor: str, **changes: Any) -> tuple[SessionRow, Home]:
        home = Home.open(self.folder / f"Heim {executor}" / ".fedpkg")
        return beginning.run(self.config(name, executor, **changes), home, watch=lambda _: None), home


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    rng = np.random.default_rng(0)
    for number, count in ((1, 4), (2, 6)):
        folder = tmp_path / "clients" / str(number)  # no spaces: $ENTRYPOINT_OPTS would be split at them, as ever
        folder.mkdir(parents=True)
        x = rng.standard_normal((count, 2))
        np.savez(folder / "data.npz", x=x, y=x @ [1.0, 2.0] + 3)
    (tmp_path / "Läufe für zwei").mkdir()
    return Clients(tmp_path / "Läufe für zwei")


def test_table_has_every_package() -> None:
    assert set(GENERATIONS) == {path.name for path in PACKAGES.iterdir()}


# Every push runs these on all executors, as they differ most to them, and the others warm.
EVERYWHERE = {"bash", "fedn-0.4-entrypoint", "scaleout-1-startup"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.soak] * (one not in EVERYWHERE)) for one in GENERATIONS]
)
def test_package_gives_the_same_models_on_every_executor(
    clients: Clients, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_models(clients, name, EXECUTORS, caplog)


@pytest.mark.parametrize("name", sorted(GENERATIONS.keys() - EVERYWHERE))
def test_package_runs_warm(clients: Clients, name: str, caplog: pytest.LogCaptureFixture) -> None:
    check_models(clients, name, ["forkserver"], caplog)


def check_models(clients: Clients, name: str, executors: Sequence[str], caplog: pytest.LogCaptureFixture) -> None:
    """The models and metrics of each executor are the same, and as the table has them."""
    digests, metrics = [], []
    for executor in executors:
        session, home = clients.run(name, executor)
        with open_store(home, read_only=True) as store:
            assert [row.num_ok for row in store.list_rounds(session.session_id)] == [2, 2]
            models = store.list_models(session.session_id)
            path = ModelStore(home.models).path(models[-1].digest, models[-1].suffix)
            assert list(read_model(path)) == GENERATIONS[name].keys
            digests.append([model.digest for model in models])
            validations = store.list_validations(session.session_id)
            metrics.append([(row.client_id, row.metrics) for row in validations])
            assert len(validations) == (2 if GENERATIONS[name].validates else 0)
        assert check_home(home, package_problems=package_problems).findings == []
    assert all(one == digests[0] for one in digests)
    assert all(one == metrics[0] for one in metrics)
    assert len(set(digests[0])) == (1 if name == "bash" else 3)
    assert "executor.cold" not in caplog.text  # what looks like Python ran warm where it was to


@pytest.mark.parametrize("name", ["fedn-0.2-numpyarray", "fedn-0.4-entrypoint"])
def test_updates_of_a_package_that_never_says_num_examples_all_count_alike(
    name: str, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    session, home = clients.run(name, "forkserver", round={"required": 2})
    about = "the package's helper never writes num_examples, so all updates count equally (round.weighting=equal)"
    assert caplog.text.count(about) == 1
    assert session.config["round"]["weighting"] == "equal"
    with open_store(home, read_only=True) as store:
        assert {row.num_examples for row in store.list_rounds(session.session_id)} == {2.0}


@pytest.mark.parametrize(("name", "suffix"), [("fedn-0.8-android", ".f32"), ("fedn-0.9-binary", ".f64")])
@pytest.mark.every_push("android")
def test_bare_models_are_resumed_and_are_seeds_as_they_are_and_exported(
    clients: Clients, name: str, suffix: str
) -> None:
    once, home = clients.run(name, "forkserver", rounds=3)
    begun, _ = clients.run(name, "forkserver", rounds=1)
    resumed = resuming.resume(begun.session_id, home, watch=lambda _: None, rounds=3)
    with open_store(home, read_only=True) as store:
        models = store.list_models(once.session_id)
        assert [row.digest for row in store.list_models(resumed.session_id)] == [row.digest for row in models]
    assert {row.suffix for row in models} == {suffix}
    files = [ModelStore(home.models).path(row.digest, suffix) for row in models]
    assert files[0].stat().st_size == {".f32": 9 * 4, ".f64": 8 * 8}[suffix]  # nothing but the values

    shutil.copy(files[1], clients.folder / "weights of round 1.bin")
    write_model(clients.folder / "exported.npz", read_model(files[1]), ModelForm(".npz", "positions"))
    for seed in ("weights of round 1.bin", "exported.npz"):
        session, _ = clients.run(name, "forkserver", rounds=1, seed_model=str(clients.folder / seed))
        with open_store(home, read_only=True) as store:
            found = [row.digest for row in store.list_models(session.session_id)]
        assert found == [row.digest for row in models[1:3]]


def test_helper_of_the_train_script_counts_where_a_script_that_is_not_called_names_another(clients: Clients) -> None:
    package = clients.folder / "client"
    shutil.copytree(PACKAGES / "fedn-0.9-binary", package)
    (package / "convert.py").write_text("helper = get_helper('numpyhelper')\n")
    session, home = clients.run("fedn-0.9-binary", "forkserver", rounds=1, package=str(package))
    with open_store(home, read_only=True) as store:
        assert {row.suffix for row in store.list_models(session.session_id)} == {".f64"}
    model = clients.folder / "seed.npz"
    npz(**{"0": np.linspace(0, 1, 8)})(model)
    for entry_point in ("train", "build"):
        given = None if entry_point == "build" else model
        called = by_hand.call_entry_point(by_hand.Call(package, entry_point, clients.folder / entry_point, model=given))
        assert called.reply is not None and called.reply.suffix == ".f64", called.answer.log_tail


def test_bare_model_of_another_size_is_its_clients_failure(clients: Clients) -> None:
    package = clients.folder / "client"
    shutil.copytree(PACKAGES / "fedn-0.8-android", package)
    script = package / "entrypoint.py"
    script.write_text(script.read_text().replace("weights * 0.5", "weights[1:] * 0.5").replace("len(weights)", "8"))
    with pytest.raises(SessionFailed, match=r"tensor '0'.*\(8,\)"):
        clients.run("fedn-0.8-android", "forkserver", package=str(package))


def test_models_that_no_bare_form_holds_are_refused_before_anything_is_recorded(clients: Clients) -> None:
    np.savez(clients.folder / "two.npz", **{"0": np.zeros(2), "1": np.zeros(3)})
    with pytest.raises(ModelFileError, match=r"a \.f64 file holds one array of float64"):
        clients.run("bash", "process", seed_model=str(clients.folder / "two.npz"), helper="binaryhelper")
    with SqliteStore(clients.folder / "Heim process" / ".fedpkg" / "state.db", read_only=True) as store:
        assert store.list_sessions() == []


def test_infer_is_called_predict_now(clients: Clients, tmp_path: Path) -> None:
    npz(**{"fc.weight": np.ones((1, 2)), "fc.bias": np.ones(1)})(tmp_path / "model.npz")
    data = tmp_path / "clients" / "1" / "data.npz"
    called = by_hand.call_entry_point(
        by_hand.Call(
            PACKAGES / "fedn-0.5-get-helper",
            "predict",
            tmp_path / "call",
            model=tmp_path / "model.npz",
            data_path=data,
            record={"environment": {"ENTRYPOINT_OPTS": f"--data_path={data}"}},
        )
    )
    assert called.reply is not None, called.answer.log_tail
    assert np.array(json.loads(called.reply.read_text())).shape == (4, 1)


def test_scaleout_package_runs_from_its_archive(clients: Clients) -> None:
    archive = build_package(PACKAGES / "scaleout-1", clients.folder / "package.tgz")
    assert not any(entry.name.endswith("notes.txt") for entry in archive.files)
    session, home = clients.run("scaleout-1", "forkserver", package=str(archive.path))
    with open_store(home, read_only=True) as store:
        assert [row.num_ok for row in store.list_rounds(session.session_id)] == [2, 2]


@pytest.mark.skipif(means().warm is None, reason="no isolation here")
@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("fedn-0.4-entrypoint", "scaleout-1-startup") else pytest.mark.soak)
        for name in GENERATIONS
    ],
)
@pytest.mark.every_push("(process-fedn-0.4-entrypoint|scaleout-1-startup-forkserver|fedn-0.4-entrypoint-process)")
def test_package_gives_the_same_model_isolated(clients: Clients, name: str, executor: str) -> None:
    free, home = clients.run(name, executor, rounds=1)
    walled, _ = clients.run(name, executor, rounds=1, isolate={"enabled": True})
    with open_store(home, read_only=True) as store:
        models = [store.list_models(session.session_id)[-1].digest for session in (free, walled)]
    assert models[0] == models[1]
