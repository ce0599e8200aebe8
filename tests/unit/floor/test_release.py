"""What is released: the contents of wheel and sdist, the version, and the pages for contributors."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import fedpkg

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def uv_of_the_tests() -> Iterator[None]:
    """The uv that `make test` installs is found, too, where the virtual environment is not activated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def built(release: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("uv") is None or not (ROOT / ".git").exists():
        pytest.skip("a release is built by uv, from the files that git tracks")
    wheel, sdist = release.build(tmp_path_factory.mktemp("eine Ausgabe"))
    return wheel, sdist


@pytest.mark.slow
def test_wheel_and_sdist_hold_fedpkg_whole_and_nothing_else(release: ModuleType, built: tuple[Path, Path]) -> None:
    assert list(release.content_problems(*built)) == []
    with zipfile.ZipFile(built[0]) as wheel:
        metadata = wheel.read(f"fedpkg-{fedpkg.__version__}.dist-info/METADATA").decode()
    assert f"Version: {fedpkg.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata and "Requires-Python: >=3.10\n" in metadata


@pytest.mark.slow
def test_a_wheel_with_a_test_in_it_or_without_a_migration_is_noticed(
    release: ModuleType, built: tuple[Path, Path], tmp_path: Path
) -> None:
    wheel = tmp_path / built[0].name
    with zipfile.ZipFile(built[0]) as source, zipfile.ZipFile(wheel, "w") as target:
        for info in source.infolist():
            if not info.filename.endswith("0001_first.sql"):
                target.writestr(info, source.read(info))
        target.writestr("tests/test_nothing.py", "")
    sdist = tmp_path / built[1].name
    with tarfile.open(sdist, "w:gz"):
        pass
    problems = "\n".join(release.content_problems(wheel, sdist))
    assert "fedpkg/stores/migrations/0001_first.sql is missing" in problems
    assert "tests/test_nothing.py is a test" in problems and "LICENSE is missing" in problems


def test_a_version_without_a_section_in_the_changelog_is_not_released(
    release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fedpkg").mkdir()
    (tmp_path / "fedpkg" / "__init__.py").write_text('__version__ = "0.7.0"\n')
    (tmp_path / "fedpkg" / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- New.\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    problems = "\n".join(release.unready(release.version()))
    assert "has no section '## 0.7.0'" in problems and "not committed" in problems
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "fedpkg" / "CHANGELOG.md").write_text("# Changelog\n\n## 0.7.0\n\n- New.\n")
    subprocess.run(["git", "-C", str(tmp_path), *author, "commit", "--quiet", "-am", "x"], check=True)
    assert list(release.unready("0.7.0")) == []


def test_a_python_that_cannot_be_had_is_named(release: ModuleType, tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    python, why = release.interpreter("3.99", tmp_path)
    assert python is None and "3.99" in why


def test_the_version_stands_in_one_place(release: ModuleType) -> None:
    assert release.version() == fedpkg.__version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_the_classifiers_name_the_versions_of_python_that_a_release_is_tried_on(release: ModuleType) -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert tuple(named) == release.PYTHONS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_paths_on_the_pages_for_contributors_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = {*re.findall(r"`((?:fedpkg|docs|tests|examples|packages|seed_models)/[^`<…]*)`", text)}
    named |= set(re.findall(r"\]\(([^)]+)\)", text))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    assert len(text) < 6500, "a page"


def test_before_a_commit_the_checks_of_make_lint_run() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = {" ".join(hook["entry"].removeprefix(".venv/bin/").split()[:2]) for hook in hooks}
    assert commands == {"ruff check", "ruff format", "mypy"}


@pytest.mark.parametrize("has_uv", [True, False])
def test_make_demo_says_what_it_installs_and_takes_uv_where_it_is_there(has_uv: bool, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    if has_uv:
        (tmp_path / "uv").write_text("#!/bin/sh\n")
        (tmp_path / "uv").chmod(0o755)
    words = ["make", "-n", "-C", str(ROOT), "demo", f"VENV={tmp_path / 'venv'}"]
    told = subprocess.run(
        words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"echo .*installing torch==\S+ with " + ("uv" if has_uv else "pip"), told)
    assert ("uv pip install" in told) is has_uv and ("-m pip install" in told) is not has_uv
    assert "--quiet" not in "".join(
        line for line in told.splitlines() if "pip install" in line and "upgrade" not in line
    )
