"""A fedn or docker that is installed in the package's interpreter is the one that the package gets.

So is fedpkg, but for fedpkg.client, .records and .apps: they belong to the fedpkg that runs, and its task.json.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import fedpkg
from fedpkg.session import by_hand

SERVED = ("client", "records", "apps")
EXECUTORS = ("process", "forkserver", "resident")
SCRIPT = """\
import json, sys
import docker, fedn.utils.helpers.helpers
import scaleoututil
import fedpkg.client, fedpkg.records, fedpkg.apps
from fedpkg.apps import identity
ours = (fedpkg.client, fedpkg.records, fedpkg.apps, identity)
files = {module.__name__: module.__file__ for module in (docker, fedn, scaleoututil, fedpkg, *ours)}
with open(sys.argv[-1], "w") as file:
    json.dump(files, file)
"""
EDITABLE = """\
import sys
from importlib.machinery import PathFinder
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{folder!r}]) if name == "docker" else None
sys.meta_path.append(Finder)
"""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a fedn in its site-packages, and an editable docker, which has a finder of its own."""
    folder = tmp_path_factory.mktemp("Umgebung") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder), "platbase": str(folder)}))
    (site / "fedn" / "utils" / "helpers").mkdir(parents=True)
    for module in ("fedn/__init__", "fedn/utils/__init__", "fedn/utils/helpers/__init__", "fedn/utils/helpers/helpers"):
        (site / f"{module}.py").touch()
    for module in ("fedpkg", "fedpkg/client", "fedpkg/apps"):
        (site / module).mkdir()
        (site / module / "__init__.py").touch()
    source = folder.parent / "docker source"
    (source / "docker").mkdir(parents=True)
    (source / "docker" / "__init__.py").touch()
    (site / "_editable_docker.py").write_text(EDITABLE.format(folder=str(source)))
    (site / "_editable_docker.pth").write_text("import _editable_docker\n")
    return folder / "bin" / "python"


def modules_of(package: Path, executor: str, folder: Path) -> dict[str, str]:
    called = by_hand.call_entry_point(by_hand.Call(package, "predict", folder, executor=executor))  # type: ignore[arg-type]
    assert called.reply is not None, (called.answer.failure, called.answer.log_tail)
    found: dict[str, str] = json.loads(called.reply.read_text())
    return found


def make_package(folder: Path, python: str) -> Path:
    package = folder / "client"
    (package / "docker").mkdir(parents=True)  # a mere folder is no module of that name
    (package / "docker" / "Dockerfile").touch()
    (package / "predict").write_text(SCRIPT)
    (package / "fedn.yaml").write_text(f"entry_points: {{predict: {{command: '\"{python}\" predict'}}}}\n")
    return package


@pytest.mark.parametrize("executor", EXECUTORS)
def test_installed_modules_win(
    interpreter: Path, executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/of-this-test.sock")
    found = modules_of(make_package(tmp_path, str(interpreter)), executor, tmp_path / "call")
    ours = str(Path(fedpkg.__file__).parent / "runtime" / "compat")
    assert found["fedn"].startswith(str(interpreter.parent.parent))
    assert found["docker"] == str(interpreter.parent.parent.parent / "docker source" / "docker" / "__init__.py")
    assert found["scaleoututil"].startswith(ours)  # nobody else has that
    assert found["fedpkg"].startswith(str(interpreter.parent.parent))
    for room in SERVED:
        assert found[f"fedpkg.{room}"] == str(Path(fedpkg.__file__).parent / room / "__init__.py")
    assert found["fedpkg.apps.identity"] == str(Path(fedpkg.__file__).parent / "apps" / "identity.py")


@pytest.mark.skipif(os.path.exists("/var/run/docker.sock"), reason="there is a Docker daemon")
def test_installed_docker_gives_way_where_it_could_reach_no_daemon(
    interpreter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow brings it, and the packages of FEDn before 0.6 would ask it for a container that does not exist."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    found = modules_of(make_package(tmp_path, str(interpreter)), "process", tmp_path / "call")
    assert found["docker"].startswith(str(Path(fedpkg.__file__).parent / "runtime" / "compat"))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_modules_are_there_where_none_is_installed(executor: str, tmp_path: Path) -> None:
    found = modules_of(make_package(tmp_path, sys.executable), executor, tmp_path / "call")
    here = os.path.dirname(fedpkg.__file__)
    ours = os.path.join(here, "runtime", "compat", "")
    for room in SERVED:
        assert found.pop(f"fedpkg.{room}") == os.path.join(here, room, "__init__.py")
    assert found.pop("fedpkg.apps.identity") == os.path.join(here, "apps", "identity.py")
    assert found.pop("fedpkg").endswith(os.path.join("fedpkg", "__init__.py"))  # the one that is installed here
    assert all(path.startswith(ours) for path in found.values())
