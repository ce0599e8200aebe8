"""What the tests of dispatch work with: executors around real packages, tasks for them, and looks at processes."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.compute_package.spec import EntryPoint, PackageSpec, read_spec
from fedpkg.devices import Slot, cpu_slots
from fedpkg.dispatch.base import PackageOnDisk, Task, TaskResult
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.forkserver import forkserver_executor
from fedpkg.dispatch.process import process_executor
from fedpkg.dispatch.resident import resident_executor
from fedpkg.types import ReplyKind

PACKAGES = Path(__file__).resolve().parents[2] / "packages"
PATIENCE_S = 100.0
MARK = "FEDPKG_TEST_MARK"


def wait_until(holds: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of ``holds``; looks again every few milliseconds, up to a deadline."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {within_s} s for: {what}"
        os.sched_yield()
        time.sleep(0.005)
    return value


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def marked(mark: str) -> list[int]:
    """Ids of the living processes whose environment carries ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"={mark}".encode() in (entry / "environ").read_bytes() and is_alive(int(entry.name)):
                    found.append(int(entry.name))
            except (OSError, ProcessLookupError):
                pass
    return found


class Bench:
    """An executor, and tasks for it: each call gets folders of its own below ``folder``."""

    def __init__(self, name: str, folder: Path, executor: LocalExecutor, environment: dict[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.executor = executor
        self.environment = environment
        self.mark = environment[MARK]
        self._numbers = itertools.count()

    def task(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Task:
        number = next(self._numbers)
        home = self.folder / f"Läufe und mehr {number}"
        fields.setdefault("reply_kind", ReplyKind.UPDATE if entry_point == "train" else ReplyKind.METRICS)
        fields.setdefault("timeout_s", PATIENCE_S)
        fields.setdefault("client_id", f"client {number} ü")
        return Task(
            task_id=fields.pop("task_id", f"task-{number}"),
            session_id="session-1",
            round_number=fields.pop("round_number", 1),
            entry_point=entry_point,
            environment={**self.environment, **fields.pop("environment", {})},
            package=package,
            folder=home / "task",
            next_state=home / "state",
            **fields,
        )

    def submit(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Future[TaskResult]:
        return self.executor.submit(self.task(package, entry_point, **fields))

    def run(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> TaskResult:
        return self.submit(package, entry_point, **fields).result(PATIENCE_S)

    def told(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Any:
        """The metrics of a task, which must be in order."""
        result = self.run(package, entry_point, **fields)
        assert result.status == "ok", (result.failure, log(result))
        return result.metrics


def log(result: TaskResult, stream: str = "stderr") -> str:
    return (result.task.folder / f"{stream}.log").read_text(errors="replace")


def make_bench(
    name: str,
    folder: Path,
    package: PackageOnDisk,
    *,
    slots: int | list[Slot] = 2,
    isolated: bool = False,
    **environment: str,
) -> Bench:
    slots = cpu_slots(slots) if isinstance(slots, int) else slots
    environment = {MARK: uuid.uuid4().hex, **environment}
    folder = folder / f"Werkbank {environment[MARK][:6]}"
    options: dict[str, Any] = {"slots": slots, "environment": environment, "log_folder": folder / "logs"}
    if name == "process":
        executor = process_executor(**options, isolated=isolated)
    elif name == "resident":
        executor = resident_executor(**options, package=package)
    else:
        executor = forkserver_executor(**options, package=package, isolated=isolated)
    return Bench(name, folder, executor, environment)


def unpacked(name: str, folder: Path) -> PackageOnDisk:
    """A package of tests/packages, as it lies in the cache: its folder inside a root of its own."""
    root = folder / f"Pakete für λ {name}"
    if not root.exists():
        shutil.copytree(PACKAGES / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return PackageOnDisk(name, root, root / name, read_spec(root / name / "fedn.yaml"))


def inline(folder: Path, code: str, command: str = "python entrypoint.py", **files: str) -> PackageOnDisk:
    """A package of one script (and more ``files``) that needs the standard library only; all share one zygote.

    Its entry point ``validate`` gets only an output path: what the script tells there as JSON are its metrics.
    """
    root = folder / f"Skripte {uuid.uuid4().hex[:8]} ñ"
    (root / "client").mkdir(parents=True)
    (root / "client" / "entrypoint.py").write_text(PRELUDE + textwrap.dedent(code))
    for name, text in files.items():
        path = root / "client" / name.replace("__", ".")
        path.write_text(textwrap.dedent(text))
    spec = PackageSpec({"validate": EntryPoint("validate", command)})
    return PackageOnDisk("inline", root, root / "client", spec)


PRELUDE = """\
import json, os, sys
def tell(**values):
    with open([word for word in sys.argv if word.startswith("/")][-1], "w") as file:
        json.dump(values, file)
"""


def write_model(path: Path, size: int = 0) -> Path:
    """A model of the shape that tests/packages/misbehave makes, with ``size`` further numbers."""
    rng = np.random.default_rng(0)
    extra = {"big": np.zeros(size, np.float32)} if size else {}
    w = rng.standard_normal((10, 32), dtype=np.float32)
    np.savez(path, w=w, b=np.zeros(10, np.float32), steps=np.array(0, np.int64), **extra)  # type: ignore[arg-type]
    return path


# ---- as somebody who is not root

NOBODY = 65534


def run_tests_as_nobody(which: str, *places: Path) -> None:
    """Run the tests of this folder that ``which`` selects as user nobody; skips where that may not run Python."""
    with tempfile.TemporaryDirectory(prefix="ein gewöhnlicher Mensch ") as folder:  # others may not enter tmp_path
        os.chown(folder, NOBODY, NOBODY)
        python = python_of_nobody(Path(folder))
        if python is None:
            pytest.skip("an ordinary user can read neither this Python nor fedpkg")
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", "-k", which]
        done = run_as_nobody([python, "-m", "pytest", *options, *map(str, places)], Path(folder))
        assert done is not None
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert " passed" in done.stdout


def python_of_nobody(folder: Path) -> str | None:
    """A Python that user nobody may run with this one's modules: this one itself, or the system's of its version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if other := shutil.which(version, path="/usr/local/bin:/usr/bin"):
        (folder / "python").symlink_to(other)
    for python in (sys.executable, str(folder / "python")):
        done = run_as_nobody([python, "-c", "import fedpkg, numpy, pytest"], folder)
        if done is not None and done.returncode == 0:
            return python
    return None


def run_as_nobody(command: list[str], folder: Path) -> subprocess.CompletedProcess[str] | None:
    """Run a command as user nobody; None if that may not run the program at all."""
    environ = {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": sysconfig.get_path("purelib")}
    try:
        return subprocess.run(
            command,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={**os.environ, **environ},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=250,
        )
    except (PermissionError, FileNotFoundError):
        return None
