"""Packages run in environments of their own, where neither fedpkg nor NumPy nor PyTorch is installed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from warm import warm_python
from wheelhouse import write_package

from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.config import RunConfig
from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event, RoundFinished
from fedpkg.devices import cpu_slots
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.forkserver import forkserver_executor
from fedpkg.dispatch.process import process_executor
from fedpkg.dispatch.resident import resident_executor
from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.dispatch.staging import base_environ
from fedpkg.errors import SessionFailed
from fedpkg.formats.model_file import read_model
from fedpkg.means import means
from fedpkg.session import beginning, resuming
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Isolation, Limits, Order, ReplySpec, digest_of

Choose = Callable[..., "Path | None"]
EXECUTORS = ["process", "forkserver", "resident"]


@pytest.fixture(autouse=True)
def nothing_runs_cold(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What should be warm is: an executor that cannot be says so."""
    yield
    assert "executor.cold" not in caplog.text


@pytest.fixture(scope="module")
def python(shared_root: Path, tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Path:
    """An environment with tiny 1.0, in which NUMBER is 1."""
    from fedpkg.environments.choose import choose_python

    folder = write_package(tmp_path_factory.mktemp("p") / "wants tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPKG_ENVIRONMENTS", str(shared_root))
        patch.setenv("UV_CACHE_DIR", str(uv_cache))
        python = choose_python(folder, "auto", package="probe", python_env="python_env.yaml")
    assert python is not None
    return python


def executor_of(name: str, folder: Path, package: PackageOnDisk, *, isolated: bool = False) -> LocalExecutor:
    site, slots = Site(folder.parent, package), cpu_slots(1)
    if name == "process":
        return process_executor(site, slots=slots, environment={}, log_folder=folder, isolated=isolated)
    if isolated:
        return forkserver_executor(site, slots=slots, environment={}, log_folder=folder, package=package, isolated=True)
    warm = resident_executor if name == "resident" else forkserver_executor
    return warm(site, slots=slots, environment={}, log_folder=folder, package=package)


def on_disk(folder: Path, code: str, python: Path | None) -> PackageOnDisk:
    """A package of one script; what it gives to ``tell`` are its metrics."""
    client = folder / "root ü" / "client"
    client.mkdir(parents=True)
    prelude = "import json, os, sys\ndef tell(**values): json.dump(values, open(sys.argv[1], 'w'))\n"
    (client / "entrypoint.py").write_text(prelude + code)
    spec = PackageSpec({"validate": EntryPoint("validate", "python entrypoint.py")})
    return PackageOnDisk("inline", client.parent, client, spec, python)


def call(
    name: str, folder: Path, package: PackageOnDisk, *, times: int = 1, isolated: bool = False, **fields: Any
) -> Answer:
    executor = executor_of(name, folder / "executor", package, isolated=isolated)
    spec = ReplySpec(kind=ReplyKind.METRICS)
    executor.know(spec, digest_of(spec))
    try:
        for number in range(times):
            order = Order(
                task_id=f"task-{number}",
                session_id="s",
                round_number=number,
                client_id="client ä",
                entry_point="validate",
                package=package.digest,
                reply_spec=digest_of(spec),
                timeout_s=60,
                **fields,
            )
            answer = executor.submit(order).result(90)
        return answer
    finally:
        executor.close()


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_task_finds_the_environment_and_nothing_else(
    python: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(beginning.__file__).parents[2]))  # made for another interpreter
    code = """
import importlib.util, random, shutil, subprocess, tiny
absent = [name for name in ("fedpkg.files", "numpy", "torch", "click") if importlib.util.find_spec(name) is None]
child = subprocess.run(["python3", "-c", "import tiny, sys; print(sys.prefix)"], capture_output=True, text=True)
tell(prefix=sys.prefix, absent=absent, number=tiny.NUMBER, child=child.stdout.strip(), draw=random.random(),
     virtual_env=os.environ["VIRTUAL_ENV"], which=shutil.which("python"))
"""
    result = call(name, tmp_path, on_disk(tmp_path, code, python), seed=7, times=3)
    assert result.status == "ok", (result.failure, result.log_tail)
    prefix = str(python.parent.parent)
    assert result.metrics == {
        "prefix": prefix,
        "absent": ["fedpkg.files", "numpy", "torch", "click"],
        "number": 1,
        "child": prefix,
        "draw": 0.32383276483316237,  # random.Random(7).random()
        "virtual_env": prefix,
        "which": str(python),
    }
    assert json.loads((tmp_path / result.folder / "task.json").read_text())["python"] == str(python)


HOG = """
hoard = []
while len(hoard) < 100:
    hoard.append(bytearray(b"x") * (10 << 20))
import time
time.sleep(100)
"""
FORKS = """
import time
for _ in range(64):
    os.fork() or (time.sleep(100), os._exit(0))
time.sleep(100)
"""


@pytest.mark.parametrize("name", ["process", "forkserver"])
@pytest.mark.parametrize(
    ("limits", "kind", "code"),
    [(Limits(memory_bytes=200 << 20), "memory", HOG), (Limits(processes=16), "processes", FORKS)],
    ids=["memory", "processes"],
)
@pytest.mark.every_push("forkserver")
def test_limits_hold_there(python: Path, tmp_path: Path, name: str, limits: Limits, kind: str, code: str) -> None:
    result = call(name, tmp_path, on_disk(tmp_path, code, python), limits=limits)
    assert result.failure is not None
    assert result.failure.kind == kind, (result.failure, result.log_tail)


def test_without_an_interpreter_python_is_what_path_says(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
    result = call("forkserver", tmp_path, on_disk(tmp_path, "tell(prefix=sys.prefix)", None))
    assert result.metrics == {"prefix": str(python.parent.parent)}


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.every_push("forkserver|process-True")
def test_interpreter_in_whose_folder_there_is_no_python_is_found_by_that_name(
    tmp_path: Path, name: str, isolated: bool
) -> None:
    """As Debian's /usr/bin/python3; here in a virtual environment, which is found by where its own link lies."""
    if isolated and (name == "resident" or means().cold is None):
        pytest.skip("nothing isolates here, or never")
    prefix = tmp_path / "nur python3 ü"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    (prefix / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    python = prefix / "bin" / "python3"
    code = """
import subprocess
ask = "import sys; print(sys.prefix, sys.executable)"
children = [subprocess.check_output([name, "-c", ask], text=True).strip() for name in ("python", "python3")]
tell(children=children, prefix=sys.prefix)
"""
    fields = {"isolation": Isolation(read=(prefix,))} if isolated else {}
    result = call(name, tmp_path, on_disk(tmp_path, code, python), isolated=isolated, **fields)
    assert result.status == "ok", (result.failure, result.log_tail)
    assert result.metrics == {"children": [f"{prefix} {python}"] * 2, "prefix": str(prefix)}


def test_variables_of_the_run_come_before_those_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("PYTHONHOME", "/home")
    other = base_environ({"PYTHONPATH": "/of the run"}, threads=1, python=Path("/e/bin/python"))
    assert other["PYTHONPATH"].endswith(":/of the run")
    assert "PYTHONHOME" not in other
    assert base_environ({}, threads=1)["PYTHONPATH"].endswith(":/mine")


# ---- whole runs


def config(package: Path, seed_model: Path, **changes: Any) -> RunConfig:
    data = {
        "package": str(package),
        "seed_model": str(seed_model),
        "rounds": 2,
        "clients": {"count": 2},
        "executor": {"name": "forkserver", "workers": 1},
        **changes,
    }
    return config_from_json(data)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    np.savez(tmp_path / "seed.npz", w=np.zeros(4, np.float32))
    return tmp_path / "seed.npz"


def steps(home: Home, session_id: str, round_number: int) -> list[float]:
    with open_store(home, read_only=True) as store:
        row = store.get_model(f"{session_id}.{round_number}")
    return [float(value) for value in read_model(ModelStore(home.models).path(row.digest, row.suffix))["w"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.every_push("process|resident")
def test_two_packages_with_two_versions_of_a_module_in_one_home(
    in_shared_root: Path, tmp_path: Path, seed: Path, name: str
) -> None:
    home = Home.open(tmp_path / "ein home")
    for number, version in ((1, "1.0"), (5, "2.0")):
        package = write_package(tmp_path / f"p {number}", number=number, version=version)
        executor = {"name": name, "workers": 1}
        session = beginning.run(config(package, seed, executor=executor), home, watch=lambda _event: None)
        assert session.status == "finished"
        assert steps(home, session.session_id, 2) == [2.0 * number] * 4


def test_a_session_resumes_in_its_environment_which_is_made_again(
    root: Path, tmp_path: Path, seed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fedpkg.environments")
    home = Home.open(tmp_path / "ein home")
    package = write_package(tmp_path / "p", number=3)

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, RoundFinished):
            raise Stop

    with pytest.raises((Stop, SessionFailed)):
        beginning.run(config(package, seed), home, watch=stop)
    (made,) = root.iterdir()
    shutil.rmtree(made)
    shutil.rmtree(package)
    with open_store(home, read_only=True) as store:
        (session,) = store.list_sessions()
    assert resuming.resume(session.session_id, home, watch=lambda _event: None).status == "finished"
    assert [path.name for path in root.iterdir()] == [made.name]
    assert caplog.text.count("environment.making") == 2
    assert steps(home, session.session_id, 2) == [6.0] * 4


# ---- the command line


@pytest.fixture
def fedpkg(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def fedpkg(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*warm_python(), "-m", "fedpkg", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, **options)

    return fedpkg


@pytest.mark.slow
def test_the_command_line_tells_lists_and_removes(
    root: Path, package: Path, tmp_path: Path, seed: Path, fedpkg: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = ("package", "call", package, "validate", "--input", seed)
    first = fedpkg(*words)
    assert first.returncode == 0, first.stderr
    assert "environment.making package=ein paket" in first.stderr.lower()
    assert "environment.made seconds=" in first.stderr
    second = fedpkg(*words, "--executor", "resident", "--json")
    assert "environment." not in second.stderr
    (made,) = root.iterdir()
    assert json.loads(second.stdout)["metrics"]["prefix"] == str(made)

    current = fedpkg(*words, "--env", "current")
    assert current.returncode == 8
    assert "environment.missing about=package ein Paket ä requires tiny==1.0" in current.stderr
    assert "ModuleNotFoundError: No module named 'tiny'" in current.stderr

    listed = json.loads(fedpkg("environment", "list", "--json").stdout)
    assert [(one["environment_id"], one["folder"]) for one in listed] == [(made.name, str(made))]
    doctor = {one["name"]: one for one in json.loads(fedpkg("doctor", "--json").stdout)}
    assert doctor["environments"]["found"].startswith("1 in ")
    assert fedpkg("environment", "remove").returncode == 2
    assert fedpkg("environment", "remove", "zzz").returncode == 7
    removed = fedpkg("environment", "remove", made.name[:8])
    assert removed.stdout.startswith("1 environments, ")
    assert list(root.iterdir()) == []


@pytest.mark.slow
def test_a_failed_call_shows_how_to_repeat_it_there(
    in_shared_root: Path, tmp_path: Path, seed: Path, fedpkg: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    package = write_package(tmp_path / "p")
    text = (package / "entrypoint.py").read_text()
    (package / "entrypoint.py").write_text(text + "import tiny\nsys.exit(f'the end {tiny.NUMBER}')\n")
    failed = fedpkg("package", "call", package, "validate", "--input", seed)
    assert failed.returncode == 8
    by_hand = failed.stderr.rpartition("try      ")[2].strip()
    assert "the end 1" in subprocess.run(["bash", "-c", by_hand], capture_output=True, text=True, cwd=tmp_path).stderr
