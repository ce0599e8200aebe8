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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpkg.compute_package.spec import EntryPoint, PackageSpec, read_spec
from fedpkg.devices import Slot, cpu_slots
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.forkserver import forkserver_executor
from fedpkg.dispatch.process import process_executor
from fedpkg.dispatch.resident import resident_executor
from fedpkg.dispatch.site import Job, PackageOnDisk, Site
from fedpkg.replies.reading import tensors_of
from fedpkg.transforms.sections import sections_of
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Input, Order, ReplySpec, digest_of
from fedpkg.waist.place import Place

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


@dataclass(frozen=True)
class Task:
    """An order, and where it runs."""

    order: Order
    place: Place

    @property
    def task_id(self) -> str:
        return self.order.task_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self.order, name)

    @property
    def folder(self) -> Path:
        return self.place.folder

    @property
    def next_state(self) -> Path:
        return self.place.version


class Ran:
    """What became of a task: its answer, with what a test asks of it."""

    def __init__(self, task: Task, answer: Answer, job: Job, home: Path) -> None:
        folder = home / answer.folder
        self.task = replace(task, place=replace(task.place, folder=folder)) if answer.folder else task
        self.answer = answer
        self.job = job
        self.keeps_state = answer.state is not None
        if answer.state is not None:
            version = task.next_state.parent / answer.state
            self.task = replace(self.task, place=replace(self.task.place, version=version))
        self.reply = None if answer.reply is None else self.task.place.reply / answer.reply.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.answer, name)

    @property
    def sets(self) -> Mapping[str, Any]:
        if self.reply is None or self.job.spec.kind not in (ReplyKind.UPDATE, ReplyKind.SETS):
            return {}
        return self.job.reading.open(self.reply, self.job.sent).sets

    @property
    def weights(self) -> Any:
        return self.sets.get("")


class BenchSite(Site):
    """Tasks have the places that they were given."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.places: dict[str, Place] = {}
        self.packages: dict[str, PackageOnDisk] = {}  # several of the tests have the same digest

    def job(self, order: Order) -> Job:
        self.add(self.packages[order.task_id])
        return super().job(order)

    def place(self, order: Order, spec: ReplySpec) -> Place:
        place = super().place(order, spec)
        return replace(place, folder=self.places[order.task_id].folder, version=self.places[order.task_id].version)

    def version(self, session_id: str, client_id: str, token: str) -> Path:
        return Path(token) if Path(token).is_absolute() else super().version(session_id, client_id, token)


class BenchExecutor:
    """An executor that is asked with tasks, and says what ran."""

    def __init__(self, site: BenchSite, executor: LocalExecutor) -> None:
        self.site = site
        self.inner = executor

    def submit(self, task: Task) -> Future[Ran]:
        ran: Future[Ran] = Future()
        job = self.site.job(task.order)

        def pass_on(done: Future[Answer]) -> None:
            if error := done.exception():
                ran.set_exception(error)
            else:
                ran.set_result(Ran(task, done.result(), job, self.site.home))

        self.inner.submit(task.order).add_done_callback(pass_on)
        return ran

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


_OF_THE_REPLY = ("weighted", "use", "suffix")


class Bench:
    """An executor, and tasks for it: each call gets folders of its own below ``folder``."""

    def __init__(self, name: str, site: BenchSite, executor: LocalExecutor, environment: dict[str, str]) -> None:
        self.name = name
        self.folder = site.home
        self.site = site
        self.executor = BenchExecutor(site, executor)
        self.environment = environment
        self.mark = environment[MARK]
        self._numbers = itertools.count()

    def task(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Task:
        number = next(self._numbers)
        home = self.folder / f"Läufe und mehr {number}"
        fields.setdefault("timeout_s", PATIENCE_S)
        fields.setdefault("client_id", f"client {number} ü")
        spec = reply_spec(entry_point, fields)
        self.site.know(spec, digest_of(spec))
        sets = fields.pop("input_sets", ())
        if (model := fields.pop("model", None)) is not None:
            fields["input"] = Input(reference=str(model), size_bytes=model.stat().st_size, sets=sets)
        if (data := fields.pop("data_path", None)) is not None:
            fields["data"] = str(data)
        fields["links"] = {name: str(target) for name, target in fields.pop("links", {}).items()}
        if (state := fields.pop("state", None)) is not None:
            fields["state"] = str(state)
        order = Order(
            task_id=fields.pop("task_id", f"task-{number}"),
            session_id="session-1",
            round_number=fields.pop("round_number", 1),
            entry_point=entry_point,
            environment={**self.environment, **fields.pop("environment", {})},
            package=package.digest,
            reply_spec=digest_of(spec),
            **fields,
        )
        place = Place(home / "task", home / "state", spec.suffix)
        self.site.places[order.task_id], self.site.packages[order.task_id] = place, package
        return Task(order, place)

    def submit(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Future[Ran]:
        return self.executor.submit(self.task(package, entry_point, **fields))

    def run(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Ran:
        return self.submit(package, entry_point, **fields).result(PATIENCE_S)

    def told(self, package: PackageOnDisk, entry_point: str = "validate", **fields: Any) -> Any:
        """The metrics of a task, which must be in order."""
        result = self.run(package, entry_point, **fields)
        assert result.status == "ok", (result.failure, log(result))
        return result.metrics


def reply_spec(entry_point: str, fields: dict[str, Any]) -> ReplySpec:
    """What is said of the reply in a task's fields, which are taken out."""
    template, chain, sets = fields.pop("template", None), fields.pop("transforms", None), fields.pop("sets", {})
    parameters = None if template is None else tensors_of(template.filter(frozenset(template.parameters).__contains__))
    return ReplySpec(
        kind=fields.pop("reply_kind", ReplyKind.UPDATE if entry_point == "train" else ReplyKind.METRICS),
        tensors=None if template is None else tensors_of(template),
        reply=fields.pop("content", "weights"),
        sets={name: parameters if one is None else tensors_of(one) for name, one in sets.items()},
        transforms=sections_of(chain),
        max_bytes=fields.pop("reply_bytes", None),
        **{name: fields.pop(name) for name in _OF_THE_REPLY if name in fields},
    )


def log(result: Ran, stream: str = "stderr") -> str:
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
    site = BenchSite(folder)
    if name == "process":
        executor = process_executor(site, **options, isolated=isolated)
    elif name == "resident":
        executor = resident_executor(site, **options, package=package)
    else:
        executor = forkserver_executor(site, **options, package=package, isolated=isolated)
    return Bench(name, site, executor, environment)


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
# For tasks that fill what the kernel counts by user: fork bombs of one would fail tasks of others at the same time.
NOBODY_ELSE = NOBODY - 1 - int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])


def run_tests_as_nobody(which: str, *places: Path, user: int = NOBODY, whole: bool = False) -> None:
    """Run the tests at ``places`` that ``which`` selects as ``user``; skips where that may not run Python.

    ``whole``: all of them, and not only the cases of every push.
    """
    with tempfile.TemporaryDirectory(prefix="ein gewöhnlicher Mensch ") as folder:  # others may not enter tmp_path
        os.chown(folder, user, user)
        python = python_of_nobody(Path(folder), user)
        if python is None:
            pytest.skip("an ordinary user can read neither this Python nor fedpkg")
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", "-k", which]
        options += [] if whole else ["-m", "not soak"]
        done = run_as_nobody([python, "-m", "pytest", *options, *map(str, places)], Path(folder), user)
        assert done is not None
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert " passed" in done.stdout


def python_of_nobody(folder: Path, user: int = NOBODY) -> str | None:
    """A Python that this user may run with this one's modules: this one itself, or the system's of its version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if other := shutil.which(version, path="/usr/local/bin:/usr/bin"):
        (folder / "python").symlink_to(other)
    for python in (sys.executable, str(folder / "python")):
        done = run_as_nobody([python, "-c", "import fedpkg, numpy, pytest"], folder, user)
        if done is not None and done.returncode == 0:
            return python
    return None


def run_as_nobody(command: list[str], folder: Path, user: int) -> subprocess.CompletedProcess[str] | None:
    """Run a command as this user; None if that may not run the program at all."""
    environ = {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": sysconfig.get_path("purelib")}
    try:
        return subprocess.run(
            command,
            user=user,
            group=user,
            extra_groups=[],
            env={**os.environ, **environ},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=250,
        )
    except (PermissionError, FileNotFoundError):
        return None
