"""Experiments are composed as hydra composes them; every value says where it came from."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpkg.config import dump_config
from fedpkg.experiments.axes import Axis, split_overrides
from fedpkg.experiments.composing import ComposedConfig, compose
from fedpkg.experiments.folders import ExperimentFolder
from tests.unit.experiments.experiment_files import FILES, ROOT, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "paper ü", FILES)


@pytest.fixture
def composed(folder: Path) -> Callable[..., ComposedConfig]:
    return lambda *overrides, **options: compose(folder, overrides, resolve=None, **options)


def flat(loaded: ComposedConfig) -> dict[str, Any]:
    def leaves(tree: Any, path: str) -> dict[str, Any]:
        if not isinstance(tree, dict) or not tree:
            return {path: tree}
        return {
            name: value
            for key, part in tree.items()
            for name, value in leaves(part, f"{path}.{key}"[not path :]).items()
        }

    return leaves(dump_config(loaded.config), "")


def test_options_of_the_groups_are_merged_with_the_root(composed: Callable[..., ComposedConfig]) -> None:
    found = composed()
    assert flat(found)["clients.count"] == 4
    assert flat(found)["clients.data.dataset"] == "sklearn/digits"
    assert flat(found)["arguments.train.lr"] == 0.1
    assert found.choices == {"data": "iid", "method": "fedavg"}


def test_an_override_chooses_another_option(composed: Callable[..., ComposedConfig]) -> None:
    found = composed("method=fedprox", "data=dirichlet", "mu=0.5")
    assert found.config.strategy == {"name": "fedprox", "proximal_mu": 0.5}
    assert flat(found)["clients.data.partition.alpha"] == 0.3
    assert found.choices == {"data": "dirichlet", "method": "fedprox"}
    assert found.params == {"lr": 0.1, "mu": 0.5}


def test_each_value_says_the_file_and_line_or_the_command_line(
    folder: Path, composed: Callable[..., ComposedConfig]
) -> None:
    found = composed("method=fedprox", "mu=0.5", "seed=7", "+arguments.train.epochs=2")
    origins = found.origins
    assert origins["rounds"] == f"{folder}/experiment.yaml:4"
    assert origins["strategy.name"] == f"{folder}/method/fedprox.yaml:2"
    assert origins["strategy.proximal_mu"] == f"{folder}/method/fedprox.yaml:3"
    assert origins["clients.data.dataset"] == f"{folder}/data/iid.yaml:1"
    assert origins["seed"] == origins["arguments.train.epochs"] == "command line"
    assert origins["executor.workers"] == "default"
    assert found.param_origins == {"lr": f"{folder}/experiment.yaml:6", "mu": "command line"}


@pytest.mark.parametrize(
    ("defaults", "rounds"),
    [("[_self_, method: scaffold]", 5), ("[method: scaffold, _self_]", 3), ("[method: scaffold]", 3)],
)
def test_self_says_when_the_roots_own_keys_are_merged(folder: Path, defaults: str, rounds: int) -> None:
    (folder / "experiment.yaml").write_text(ROOT.replace("[data: iid, method: fedavg, _self_]", defaults))
    assert compose(folder, resolve=None).config.rounds == rounds


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        (["rounds=9"], "rounds", 9),
        (["++rounds=9"], "rounds", 9),
        (["seed=3"], "seed", 3),  # no file sets it, but fedpkg knows it
        (["clock.spread=0.1"], "clock.spread", 0.1),
        (["executor.workers=2"], "executor.workers", 2),
        (["strategy.server_lr=0.5"], "strategy.server_lr", 0.5),  # the strategy checks it
        (["+run_config.a.b=1"], "run_config.a.b", 1),
        (["++arguments.train.lr=1e-3"], "arguments.train.lr", 1e-3),
        (["~arguments.train.batch"], "arguments.train.batch", None),
        (["~arguments.train.batch=8"], "arguments.train.batch", None),
        (["~data"], "clients.data", None),
        (
            ["+executor=one"],
            "executor.name",
            "process",
        ),  # a group named as a section has the keys of the section
        (["name='a-b'"], "name", "a-b"),
        (["strategy={name: krum, attackers: 1}", "strategy={name: median}"], "strategy", None),  # it has no more keys
        (["buffers=[a,'b.*']"], "buffers", ["a", "b.*"]),
        (["+params.new=4", "arguments.train.lr=${new}"], "arguments.train.lr", 4),
        (["+opt={rate: 4}", "++opt.rate=5", "arguments.train.lr=${opt.rate}"], "arguments.train.lr", 5),
        (["lr=2", "lr=3"], "arguments.train.lr", 3),
        (["seed=1", "seed_model='/ö/a b.npz'"], "seed_model", "/ö/a b.npz"),
        (["+new=4", "arguments.train.lr=${params.new}"], "arguments.train.lr", 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_overrides_follow_hydras_grammar(
    composed: Callable[..., ComposedConfig], overrides: list[str], key: str, value: Any
) -> None:
    assert flat(composed(*overrides)).get(key) == value


def test_a_path_starts_at_the_folder_of_the_file_that_sets_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        folder, {"model/small.yaml": "seed_model: small.npz", "experiment.yaml": ROOT.replace("_self_", "model: small")}
    )
    assert compose(folder, resolve=None).config.package == str(folder / "client")
    assert compose(folder, resolve=None).config.seed_model == str(folder / "model" / "small.npz")
    monkeypatch.chdir(folder.parent)
    assert compose(folder.name, ["seed_model=x.npz"], resolve=None).config.seed_model == str(folder.parent / "x.npz")
    assert compose(folder.name, resolve=None).config.package == str(folder / "client")


def test_experiments_share_groups_and_files_through_a_search_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"method/mine.yaml": "strategy: {name: mine, file: ../parts/mine.py}", "parts/mine.py": ""}
    shared = write(tmp_path / "shared", {**mine, "method/fedavg.yaml": "rounds: 99"})
    wanted = str(shared / "parts" / "mine.py")
    found = compose(folder, ["method=mine"], search_path=[shared], resolve=None)
    assert found.config.strategy["file"] == wanted
    assert compose(folder, search_path=[shared], resolve=None).config.rounds == 3  # the folder's own options come first
    monkeypatch.setenv("FEDPKG_SEARCH_PATH", str(shared))
    assert compose(folder, ["method=mine"], resolve=None).config.strategy["file"] == wanted
    monkeypatch.delenv("FEDPKG_SEARCH_PATH")
    (folder / "experiment.yaml").write_text(f"search_path: [../shared]\n{ROOT}")
    assert compose(folder, ["method=mine"], resolve=None).config.strategy["file"] == wanted
    (folder / "method" / "own.yaml").write_text("strategy: {name: mine, file: parts/mine.py}")  # not beside it
    assert compose(folder, ["method=own"], resolve=None).config.strategy["file"] == wanted


def test_a_header_says_the_section_of_a_file(folder: Path) -> None:
    write(
        folder,
        {"speed/slow.yaml": "# written by hand\n# @package arguments.train\nlr: 0.001", "speed/fast.yaml": "lr: 1"},
    )
    found = compose(folder, ["+speed=slow"], resolve=None)
    assert flat(found)["arguments.train.lr"] == 0.001  # what is added comes last
    (folder / "experiment.yaml").write_text(ROOT.replace("method: fedavg, _self_", "speed: slow, _self_"))
    assert flat(compose(folder, resolve=None))["arguments.train.lr"] == 0.1
    (folder / "experiment.yaml").write_text(ROOT.replace("method: fedavg, _self_", "_self_, speed: slow"))
    found = compose(folder, resolve=None)
    assert flat(found)["arguments.train.lr"] == 0.001
    assert found.origins["arguments.train.lr"] == f"{folder}/speed/slow.yaml:3"
    (folder / "experiment.yaml").write_text(ROOT.replace("method: fedavg, _self_", "_self_, speed@arguments.all: fast"))
    assert flat(compose(folder, resolve=None))["arguments.all.lr"] == 1


def test_an_optional_option_may_be_missing_and_null_chooses_none(folder: Path) -> None:
    (folder / "experiment.yaml").write_text(ROOT.replace("method: fedavg", "optional method: gone, executor: null"))
    found = compose(folder, resolve=None)
    assert found.choices["executor"] is None
    assert compose(folder, ["executor=one"], resolve=None).config.executor.workers == 1


def test_an_option_has_defaults_of_its_own(folder: Path) -> None:
    write(
        folder,
        {
            "method/both.yaml": "defaults: [fedprox, /executor: one, override /data: dirichlet]\n"
            "strategy: {server_lr: 2}",
            "base.yaml": "validation: {every: 4}",
            "experiment.yaml": ROOT.replace("data: iid", "base, data: iid"),
        },
    )
    found = compose(folder, ["method=both"], resolve=None)
    assert found.config.strategy == {"name": "fedprox", "proximal_mu": 0.01, "server_lr": 2}
    assert found.config.executor.name == "process"
    assert found.config.validation.every == 4
    assert flat(found)["clients.data.partition.name"] == "dirichlet"


def test_a_pattern_finds_options_of_the_whole_search_path(folder: Path, tmp_path: Path) -> None:
    shared = write(tmp_path / "shared", {"method/fedadam.yaml": "strategy: {name: fedadam}"})
    for word, found in (
        ("method=glob(fed*)", ["fedadam", "fedavg", "fedprox"]),
        ("method=glob(*,exclude=fed*)", ["scaffold"]),
    ):
        (axis,) = split_overrides([word], ExperimentFolder(folder, [shared]))[1]
        assert isinstance(axis, Axis)
        assert axis.choices == found


def test_a_plain_run_yaml_is_an_experiment_without_groups(tmp_path: Path) -> None:
    write(tmp_path, {"run.yaml": "package: client\nrounds: 3\nclients: {count: 2}", "other/settings.yaml": "a: 1"})
    assert compose(tmp_path, ["rounds=5"], resolve=None).config.rounds == 5
    assert compose(tmp_path / "run.yaml", resolve=None).config.rounds == 3


def test_threads_compose_side_by_side_and_leave_hydras_state_alone(folder: Path) -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    found: dict[int, float] = {}

    def one(number: int) -> None:
        found[number] = flat(compose(folder, [f"lr={number}"], resolve=None))["arguments.train.lr"]

    with initialize_config_dir(str(folder), version_base="1.3"):
        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert GlobalHydra.instance().is_initialized()
    assert found == {number: number for number in range(8)}


def test_a_plain_run_yaml_never_imports_hydra(tmp_path: Path) -> None:
    write(tmp_path, {"run.yaml": "package: client\nrounds: 3\nclients: {count: 2}"})
    code = (
        "import sys, fedpkg.library, fedpkg.cli.experiment, fedpkg.cli.run\n"
        "from fedpkg.session.configuration import load\nfrom pathlib import Path\n"
        f"load(Path({str(tmp_path / 'run.yaml')!r}))\n"
        "assert 'hydra' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
