"""Every lesson runs as it is written: its ```bash blocks, one after the other, in a copy of the repository."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from lessons import ROOT, SHORTER, bash, copy_of_repository, shortened

from fedpkg.formats.model_file import read_model

LESSONS = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("examples/*/README.md")))]
pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return copy_of_repository(tmp_path)


def script_of(lesson: str) -> str:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / lesson).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks, "a lesson shows commands"
    return "\n".join(blocks)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("lesson", [pytest.param(one, marks=[pytest.mark.soak] * (one in SHORTER)) for one in LESSONS])
@pytest.mark.every_push("^(?!examples/federated-pytorch)")  # whose algorithms have tests of their own
def test_lesson_runs_as_written(repository: Path, lesson: str) -> None:
    assert "Traceback" not in bash(script_of(lesson), (repository / lesson).parent, warm=True)


@pytest.mark.parametrize("lesson", [one for one in LESSONS if one in SHORTER])
def test_lesson_runs_with_less_data_and_fewer_rounds(repository: Path, lesson: str) -> None:
    script = shortened(script_of(lesson), SHORTER[lesson])
    assert "Traceback" not in bash(script, (repository / lesson).parent, warm=True)


def test_lesson_shows_the_files_that_are_there() -> None:
    folder = ROOT / "examples" / "first-package"
    text = (folder / "README.md").read_text()
    for name in ("client/entrypoint.py", "client/fedn.yaml", "run.yaml"):
        assert (folder / name).read_text().strip() in text, name


def test_lesson_shows_a_policy_that_is_there() -> None:
    folder = ROOT / "examples" / "hospitals"
    assert (folder / "nodes" / "coast.yaml").read_text().strip() in (folder / "README.md").read_text()


def test_lesson_shows_functions_that_are_there() -> None:
    folder = ROOT / "examples" / "personalised"
    shown = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    assert all(function in (folder / "client" / "entrypoint.py").read_text() for function in shown)


@pytest.mark.parametrize("fewer", [pytest.param("", marks=pytest.mark.soak), "clients.count=3"])
@pytest.mark.every_push("^(?!digits)")  # which README.md runs
@pytest.mark.parametrize("example", sorted(path.parent.name for path in ROOT.glob("examples/*/run.yaml")))
def test_example_without_a_lesson_runs(repository: Path, example: str, fewer: str) -> None:
    if (ROOT / "examples" / example / "README.md").exists():
        pytest.skip("its lesson is run")
    output = bash(f"fedpkg run examples/{example}/run.yaml rounds=1 {fewer}", repository)
    assert "failed" in output and "Look further" in output


@pytest.mark.soak
@pytest.mark.skipif(not version("torch").startswith("2.13"), reason="the seed models were made with PyTorch 2.13")
def test_seed_models_are_remade_as_they_say(repository: Path, tmp_path: Path) -> None:
    text = (ROOT / "seed_models" / "README.md").read_text()
    script = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[0]
    for path in (repository / "seed_models").iterdir():
        if path.suffix in (".npz", ".safetensors"):
            path.unlink()
    bash(script, repository)
    for path in (ROOT / "seed_models").iterdir():
        if path.suffix in (".npz", ".safetensors"):
            again = repository / "seed_models" / path.name
            made, kept = read_model(again), read_model(path)
            assert list(made) == list(kept) and all(made[name].equal(kept[name]) for name in kept), path.name
            if sys.version_info >= (3, 11):  # an older one writes other zip headers
                assert again.read_bytes() == path.read_bytes(), path.name
