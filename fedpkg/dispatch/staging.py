"""What a task finds when it starts: its directory, its private working copy, task.json, arguments and environment."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpkg.dispatch.base import Task
from fedpkg.dispatch.command import format_flags
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, copy_tree, stage_file
from fedpkg.types import Json, ReplyKind

RUNTIME_PATH = Path(__file__).resolve().parent.parent / "runtime" / "path"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class StagedTask:
    """A task whose files are in place."""

    cwd: Path
    appended: tuple[str, ...]  # words after the entry point's command: paths, then flags
    environ: Mapping[str, str]
    out: Path
    stdout: Path
    stderr: Path


def base_environ(extra: Mapping[str, str], *, threads: int) -> dict[str, str]:
    """The environment that every task of a run shares.

    ``python`` on PATH is the interpreter that runs fedpkg, so that a virtual environment need not be activated.
    """
    environ = {**os.environ, **extra}
    environ["PATH"] = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]))
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(RUNTIME_PATH), environ.get("PYTHONPATH", "")]))
    environ["PYTHONHASHSEED"] = "0"
    environ["PYTHONUNBUFFERED"] = "1"  # what a task printed before it was killed is in its log
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # bytecode is no state of a client
    for name in THREAD_VARIABLES:
        environ[name] = str(threads)
    return environ


class SharedModels:
    """Input models of running tasks. Big ones are one file under many names, so whether a task wrote to it is checked.

    The file they share is a copy of the stored model, one per model and round: the store itself is never within reach.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[Path, tuple[int, int]] = {}  # of each shared file: size, time of its last change

    def put(self, task: Task, target: Path) -> None:
        assert task.model is not None
        if task.model.stat().st_size <= LINK_ABOVE_BYTES:
            stage_file(task.model, target)
            return
        with self._lock:
            shared = self._shared(task)
            if shared not in self._facts:
                shared.unlink(missing_ok=True)
                copy_file(task.model, shared)
                shared.chmod(0o444)
                self._facts[shared] = _facts(shared)
            stage_file(shared, target)

    def is_intact(self, task: Task) -> bool:
        """Whether the input of a task is as it was; if not, the next task gets a new copy."""
        if task.model is None:
            return True
        with self._lock:
            shared = self._shared(task)
            if shared in self._facts and self._facts[shared] != _facts(shared):
                del self._facts[shared]
                return False
        return True

    def _shared(self, task: Task) -> Path:
        assert task.model is not None
        return task.folder.parent / f".{task.model.name}"


def _facts(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (-1, -1)
    return (facts.st_size, facts.st_mtime_ns)


def stage(task: Task, models: SharedModels) -> StagedTask:
    """Lay out a task's files. The folders ``task.folder`` and ``task.next_state`` must not exist yet."""
    task.folder.mkdir(parents=True)
    task.next_state.parent.mkdir(parents=True, exist_ok=True)
    if task.state is None:
        task.next_state.mkdir()
        copy_tree(task.package.root, task.next_state / "package")
        (task.next_state / "state").mkdir()
    else:
        copy_tree(task.state, task.next_state)
    cwd = task.next_state / "package" / task.package.folder.relative_to(task.package.root)
    out = task.folder / ("out.json" if task.reply_kind is ReplyKind.METRICS else f"out{task.suffix}")
    paths = [str(out)]
    record = task_record(task)
    if task.model is not None:
        model = task.folder / f"in{task.suffix}"
        models.put(task, model)
        model.with_name(f"{model.name}-metadata").write_text(json.dumps(dict(task.parameters)))
        paths.insert(0, str(model))
    task_json = task.folder / "task.json"
    task_json.write_text(json.dumps(record))
    environ = {
        **base_environ(task.environment, threads=task.threads),
        "FEDPKG_TASK": str(task_json),
        "FEDPKG_STATE_DIR": str(task.next_state / "state"),
        "FEDPKG_SEED": str(task.seed),
    }
    if task.data_path is not None:
        environ["FEDN_DATA_PATH"] = str(task.data_path)
    names = {name: "" if value is None else str(value) for name, value in record.items() if name in PLACEHOLDERS}
    for name in task.environment:
        environ[name] = fill(environ[name], names) if name not in ("PATH", "PYTHONPATH") else environ[name]
    flags = format_flags({key: fill(value, names) if isinstance(value, str) else value for key, value in task.arguments.items()})
    return StagedTask(
        cwd=cwd,
        appended=(*paths, *flags),
        environ=environ,
        out=out,
        stdout=task.folder / "stdout.log",
        stderr=task.folder / "stderr.log",
    )


PLACEHOLDERS = ("client_id", "data_path", "partition_id", "num_partitions", "round_number", "session_id")


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace ``{client_id}``, ``{data_path}`` … in an argument or variable; other braces stay as they are."""
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def task_record(task: Task) -> dict[str, Json]:
    """The content of task.json."""
    return {
        "session_id": task.session_id,
        "round_number": task.round_number,
        "client_id": task.client_id,
        "partition_id": task.partition_id,
        "num_partitions": task.num_partitions,
        "entry_point": task.entry_point,
        "attempt": task.attempt,
        "seed": task.seed,
        "device": "cpu",
        "data_path": None if task.data_path is None else str(task.data_path),
        "run_config": dict(task.run_config),
        "parameters": dict(task.parameters),
    }
