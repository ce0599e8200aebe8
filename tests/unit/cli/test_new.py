"""`fedpkg new`: each template is a project that runs, whatever its name."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import fedpkg

from fedpkg.cli.main import run_command
from fedpkg.cli.new import NAMES, TEMPLATES, module_of
from fedpkg.compute_package.app import read_app
from fedpkg.compute_package.unpack import open_package
from fedpkg.session.configuration import load
from fedpkg.toml_places import read_toml


@pytest.mark.parametrize("template", ["pytorch", "hydra", "shell"])
@pytest.mark.every_push("pytorch|shell")
def test_a_project_runs_at_once(tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["new", "my project", "--template", template]) == 0
    config = load(Path("my project/run.yaml")).config
    assert config.name == "my-project"
    ran = fedpkg("run", "my project/run.yaml", "rounds=1", "--home", tmp_path / "home")
    assert ran.code == 0 and " 0 failed" in ran.err, ran.err


@pytest.mark.soak
def test_a_message_app_is_read_and_has_tests_that_pass(tmp_path: Path) -> None:
    folder = tmp_path / "Digits 2"
    assert run_command(["new", str(folder)]) == 0
    app = read_app(folder / "pyproject.toml")
    assert (app.name, app.client, app.nodes) == ("Digits-2", "digits_2.client_app:app", 10)
    assert open_package(folder, tmp_path / "cache").warnings() == ()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_message_app_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["new", "my-app"]) == 0
    ran = fedpkg("run", "my-app", "num-server-rounds=1", "--nodes", "3", "--home", tmp_path / "home")
    assert ran.code == 0, ran.err


def test_an_algorithm_runs_at_once_and_has_tests_that_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = fedpkg("new", "my algorithm", "--template", "algorithm")
    [command] = re.findall(r"fedpkg (algorithm run .*\.csv'?)", made.out)
    ran = fedpkg(*shlex.split(command), "--home", tmp_path / "home")
    assert ran.code == 0 and json.loads(ran.out) == {"mean": pytest.approx(631 / 13), "count": 13}, ran.err
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd="my algorithm",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_no_file_of_a_template_has_its_placeholders_left(tmp_path: Path) -> None:
    for template in NAMES:
        folder = tmp_path / template
        assert run_command(["new", str(folder), "--template", template]) == 0
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files and all("template" not in path.name for path in files)
        assert not [path for path in files if "template-app" in path.read_text() or "template_app" in path.read_text()]


def test_the_shell_projects_own_test_passes(tmp_path: Path) -> None:
    assert run_command(["new", str(tmp_path / "w"), "--template", "shell"]) == 0
    done = subprocess.run(["bash", tmp_path / "w/tests/test.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run_command(["new", str(tmp_path)]) == 3
    assert "exists already, and is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("My-App", "my_app"),
        ("2-apps", "app_2_apps"),
        ("class", "class_app"),
        ("json", "json_app"),
        ("numpy", "numpy_app"),
    ],
)
def test_a_projects_package_hides_no_other_module(name: str, module: str) -> None:
    assert module_of(name) == module


def test_templates_are_data_of_the_package() -> None:
    root = TEMPLATES.parents[1]
    patterns = read_toml((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fedpkg"]
    found = {
        Path(path) for pattern in patterns for path in glob.glob(pattern, root_dir=root / "fedpkg", recursive=True)
    }
    walked = os.walk(TEMPLATES)
    inside = {Path(place, name) for place, _, names in walked for name in names}
    missing = {path.relative_to(root / "fedpkg") for path in inside} - found
    assert not {path for path in missing if "__pycache__" not in path.parts}
