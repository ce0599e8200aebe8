"""An experiment runs as a run.yaml does: by the command, and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fedpkg
from tests.unit.cli.cli_support import MISBEHAVE
from tests.unit.cli.cli_support import fedpkg as command
from tests.unit.experiments.experiment_files import write

FILES = {
    "experiment.yaml": f"""
defaults: [size: two, _self_]
package: {MISBEHAVE}
executor: {{workers: 2}}
rounds: 1
""",
    "size/two.yaml": "clients: {count: 2}",
    "size/three.yaml": "clients: {count: 3}",
}


@pytest.mark.slow
def test_the_command_runs_what_is_composed(tmp_path: Path) -> None:
    folder = write(tmp_path / "große Studie", FILES)
    ended = command("experiment", "run", folder, "size=three", "seed=5", "--home", tmp_path / "home", "--json")
    assert ended.code == 0, ended.err
    shown = command("session", "show", "--home", tmp_path / "home", "--json").json()
    assert shown["status"] == "finished"
    assert (shown["config"]["clients"]["count"], shown["config"]["seed"]) == (3, 5), "it resumes without the folder"


@pytest.mark.slow
def test_python_runs_what_is_composed(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", FILES)
    config = fedpkg.compose(folder, "size=three", "rounds=1")
    assert config.clients.count == 3
    assert fedpkg.run(config, tmp_path / "home", progress=False).status == "finished"


def test_the_composed_configuration_is_shown_with_its_origins(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", {**FILES, "experiment.yaml": FILES["experiment.yaml"] + "params: {lr: 0.1}"})
    ended = command("config", "show", folder, "size=three", "lr=2", "--json")
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(ended.out)}
    assert rows["params.lr"] == (2, "command line")
    assert rows["clients.count"] == (3, f"{folder}/size/three.yaml:1")
    assert rows["rounds"] == (1, f"{folder}/experiment.yaml:5")
    refused = command("config", "show", folder, "size=four", "--json")
    assert refused.code == 3
    assert "'size' has no option 'four'" in refused.err


def test_fedpkg_alone_in_the_folder_says_how_the_experiment_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path / "x", FILES))
    told = command().out
    assert "an experiment with the groups size" in told
    assert "fedpkg experiment run ." in told
