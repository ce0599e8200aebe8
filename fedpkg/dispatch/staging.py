"""What a task finds when it starts: its directory, its private working copy, task.json, arguments and environment."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpkg.dispatch.base import Task
from fedpkg.dispatch.command import format_flags
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, copy_tree, remove_tree, stage_file
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
    """Input models of running tasks. A big one is one file under many names, so whether a task wrote to it is checked.

    The file they share is a copy of the stored model: the store itself is never within reach of a task.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._copies = 0
        self._current: dict[Path, Path] = {}  # from a stored model to the copy that tasks share now
        self._facts: dict[Path, tuple[int, int]] = {}  # of each copy: size, time of its last change
        self._given: dict[str, Path] = {}  # the copy that a running task got

    def put(self, task: Task, target: Path) -> None:
        assert task.model is not None
        if task.model.stat().st_size <= LINK_ABOVE_BYTES:
            stage_file(task.model, target)
            return
        with self._lock:
            copy = self._current.get(task.model)
            if copy is None:
                copy = self._copy(task.model)
            stage_file(copy, target)
            self._given[task.task_id] = copy

    def take_back(self, task: Task) -> bool:
        """A task has ended: is its input as it was? If not, that copy is given to nobody any more."""
        with self._lock:
            copy = self._given.pop(task.task_id, None)
            if copy is None or _facts(copy) == self._facts[copy]:
                return True
            self._current = {model: shared for model, shared in self._current.items() if shared != copy}
            copy.unlink(missing_ok=True)  # others who got it will find that it is not as it was
            return False

    def clear(self) -> None:
        """Remove the copies; tasks that still have one keep theirs."""
        with self._lock:
            self._current.clear()
            remove_tree(self._folder)

    def _copy(self, model: Path) -> Path:
        for old, copy in list(self._current.items()):  # the model of an earlier round
            if copy not in self._given.values():
                del self._current[old]
                copy.unlink(missing_ok=True)
        self._copies += 1
        copy = self._folder / f"{self._copies}{model.suffix}"
        self._folder.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)  # left by a controller that was killed
        copy_file(model, copy)
        copy.chmod(0o444)
        self._current[model] = copy
        self._facts[copy] = _facts(copy)
        return copy


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
    flags = format_flags(
        {key: fill(value, names) if isinstance(value, str) else value for key, value in task.arguments.items()}
    )
    return StagedTask(
        cwd=cwd,
        appended=(*paths, *flags),
        environ=environ,
        out=out,
        stdout=task.folder / "stdout.log",
        stderr=task.folder / "stderr.log",
    )


PLACEHOLDERS = ("client_id", "data_path", "partition_id", "num_partitions", "round_number", "session_id")
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace ``{client_id}``, ``{data_path}`` … in an argument or variable; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: names[match.group(1)], text)


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
