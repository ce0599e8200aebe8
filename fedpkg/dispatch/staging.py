"""What a task finds when it starts: its directory, its private working copy, task.json, arguments and environment."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import re
import shlex
import stat
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpkg.devices import Slot
from fedpkg.dispatch.base import Task, working_folder
from fedpkg.dispatch.command import COMMANDS, format_flags
from fedpkg.dispatch.package_files import inventory, is_in_place, package_folder
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, remove_tree, same_bytes, stage_file
from fedpkg.types import Json, ReplyKind

RUNTIME_PATH = Path(__file__).resolve().parent.parent / "runtime" / "path"
STARTUP = "startup"
SEED_SUFFIXES = (".npz", ".safetensors")  # of the files that build may name, or write of its own accord
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


def base_environ(
    extra: Mapping[str, str], *, threads: int, python: Path | None = Path(sys.executable)
) -> dict[str, str]:
    """The environment that every task of a run shares, with ``python`` (unless it is None) first on PATH.

    By default that is the interpreter that runs fedpkg: its virtual environment need not be activated. In one of the
    package's own, modules of the person's PYTHONPATH, made for another interpreter, are not found. Commands may call it
    ``python`` or ``python3``, also where its folder has it under another name alone.
    """
    environ = dict(os.environ)
    if python is not None and python != Path(sys.executable):
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environ.pop(name, None)
        environ["VIRTUAL_ENV"] = str(python.parent.parent)
    environ.update(extra)
    if python is not None:
        environ.update(naming(python))
    first = [] if python is None else folders_of(python)
    environ["PATH"] = os.pathsep.join(filter(None, [*first, environ.get("PATH", os.defpath)]))
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(RUNTIME_PATH), environ.get("PYTHONPATH", "")]))
    environ["PYTHONHASHSEED"] = "0"
    environ.setdefault("HOSTNAME", platform.node())  # as in the containers that FEDn's clients lived in
    environ["PYTHONUNBUFFERED"] = "1"  # what a task printed before it was killed is in its log
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # bytecode is no state of a client
    for name in THREAD_VARIABLES:
        environ[name] = str(threads)
    return environ


@functools.lru_cache(maxsize=64)
def folders_of(python: Path) -> tuple[str, ...]:
    """The folders that come first on PATH, so that ``python`` and ``python3`` are this interpreter."""
    same = (os.path.realpath(python.parent / name) == os.path.realpath(python) for name in ("python", "python3"))
    if all(same) or not all(os.access(COMMANDS / name, os.X_OK) for name in ("python", "python3")):
        return (str(python.parent),)
    return str(COMMANDS), str(python.parent)


def naming(python: Path) -> dict[str, str]:
    """What tells the commands of fedpkg's own, where they are used, which interpreter they are."""
    return {"FEDPKG_PYTHON": str(python)} if len(folders_of(python)) > 1 else {}


@dataclass
class _Input:
    """A file that tasks get as their input, under names of their own."""

    path: Path
    model: Path  # the stored model that it is a copy of
    facts: tuple[int, int, int]  # as they were when we last touched it
    spoilt: bool = False


class SharedModels:
    """Input models of running tasks. A big one is one file under many names, so whether a task wrote to it is checked.

    The file they share is a copy of the stored model: the store itself is never within reach of a task. As nothing
    says *which* of them wrote to it, all that had it at that time run again, each on a copy of its own (a reflink where
    there are such), and who writes to that is to blame. What is looked at is the time of the last change of the inode,
    which a program cannot set; as names that come and go change it too, the bytes have the last word.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._copies = 0
        self._shared: dict[Path, _Input] = {}  # by stored model: what tasks get now
        self._given: dict[str, _Input] = {}  # what a running task got

    def put(self, task: Task, *, private: bool = False) -> Path:
        """Put a task's input into its folder; with ``private`` nobody else has that file."""
        assert task.model is not None
        target = input_path(task)
        if private or task.model.stat().st_size <= LINK_ABOVE_BYTES:
            copy_file(task.model, target)
            target.chmod(0o444)
            if private:
                with self._lock:
                    self._given[task.task_id] = _Input(target, task.model, _facts(target))
            return target
        with self._lock:
            shared = self._shared.get(task.model)
            if shared is None or self._is_spoilt(shared):
                shared = self._copy(task.model)
            stage_file(shared.path, target)
            shared.facts = _facts(shared.path)  # our own name changed them
            self._given[task.task_id] = shared
        return target

    def is_as_given(self, task: Task) -> bool:
        """A task has ended: did nobody write to its input meanwhile?"""
        with self._lock:
            given = self._given.get(task.task_id)
            return given is None or not self._is_spoilt(given)

    def release(self, task: Task, *, remove: bool = False) -> None:
        """A task needs its input no more; with ``remove`` nor does anybody who would repeat the task by hand."""
        with self._lock:
            given = self._given.pop(task.task_id, None)
            spoilt = given is not None and self._is_spoilt(given)
            if remove:
                input_path(task).unlink(missing_ok=True)
                if given is not None and not spoilt:
                    given.facts = _facts(given.path)

    def clear(self) -> None:
        """Remove the copies; tasks that still have one keep theirs."""
        with self._lock:
            self._shared.clear()
            remove_tree(self._folder)

    def _is_spoilt(self, given: _Input) -> bool:
        now = _facts(given.path)
        if not given.spoilt and now != given.facts:
            given.spoilt = now[:2] != given.facts[:2] or not same_bytes(given.path, given.model)
            given.facts = now
            if given.spoilt and self._shared.get(given.model) is given:
                del self._shared[given.model]
                given.path.unlink(missing_ok=True)
        return given.spoilt

    def _copy(self, model: Path) -> _Input:
        in_use = {id(given) for given in self._given.values()}
        for old, shared in list(self._shared.items()):  # the model of an earlier round
            if id(shared) not in in_use:
                del self._shared[old]
                shared.path.unlink(missing_ok=True)
        self._copies += 1
        copy = self._folder / f"{self._copies}{model.suffix}"
        self._folder.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)  # left by a controller that was killed
        copy_file(model, copy)
        copy.chmod(0o444)
        shared = self._shared[model] = _Input(copy, model, _facts(copy))
        return shared


def _facts(path: Path) -> tuple[int, int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return (-1, -1, -1)
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def input_path(task: Task) -> Path:
    """Where a task finds its input model."""
    return task.folder / f"in{task.suffix}"


def shared_files(task: Task) -> list[Path]:
    """Files among those of a staged task that other tasks have under names of their own.

    Once `startup` has run, links may lead from the package's folders to files of the machine: those are none of them.
    """
    big = [name for name in inventory(task.package.root).big if is_in_place(task.next_state, name)]
    folder = package_folder(task.next_state)
    return [path for path in (input_path(task), *(folder / name for name in big)) if _is_shared(path)]


def _is_shared(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:  # absent
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1


def stage(task: Task, slot: Slot, models: SharedModels, copies: WorkingCopies, *, private: bool = False) -> StagedTask:
    """Lay out the files of a task for ``slot``; with ``private`` no other task has any of them.

    Its folders ``folder`` and ``next_state`` must not exist yet.
    """
    task.folder.mkdir(parents=True, mode=0o700)
    task.next_state.parent.mkdir(parents=True, exist_ok=True)
    copies.put(task, private=private)
    cwd = working_folder(task)
    out = task.folder / ("out.json" if task.reply_kind is ReplyKind.METRICS else f"out{task.suffix}")
    paths = [str(out)] if _takes_a_path(task) else []
    if task.model is not None:
        model = models.put(task, private=private)
        model.with_name(f"{model.name}-metadata").write_text(json.dumps({**task.run_config, **task.parameters}))
        paths.insert(0, str(model))
    task_json = task.folder / "task.json"
    task_json.write_text(json.dumps(task_record(task, slot)))
    environ = {
        **base_environ(task.environment, threads=task.threads, python=task.package.python),
        "FEDPKG_TASK": str(task_json),
        "FEDPKG_STATE_DIR": str(task.next_state / "state"),
        "FEDPKG_SEED": str(task.seed),
    }
    if task.data_path is not None:
        environ["FEDN_DATA_PATH"] = str(task.data_path)
    names = _names(task)
    for name in task.environment:
        environ[name] = fill(environ[name], names) if name not in ("PATH", "PYTHONPATH") else environ[name]
    environ.update(slot.environment)
    if slot.gpus:
        environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may give other bits each time
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


def startup(task: Task, staged: StagedTask) -> tuple[Task, StagedTask]:
    """The call of ``startup`` that comes before a client's first task, in the same place, with logs of its own."""
    stdout, stderr = (task.folder / f"{STARTUP}.{name}.log" for name in ("stdout", "stderr"))
    call = dataclasses.replace(task, entry_point=STARTUP, reply_kind=ReplyKind.NOTHING, arguments={})
    return call, dataclasses.replace(staged, appended=(), stdout=stdout, stderr=stderr)


def _takes_a_path(task: Task) -> bool:
    """Whether the path of the reply is appended: not where nothing is asked for, or `build` says itself what it writes.

    FEDn's packages have had ``command: python entrypoint.py init_seed ../seed.npz``. What the package has is not
    written.
    """
    if task.reply_kind is ReplyKind.SEED:
        return not named_seeds(task)
    return task.reply_kind is not ReplyKind.NOTHING


def named_seeds(task: Task) -> list[str]:
    """Model files that the command of `build` names, and that the package does not have: what it will write."""
    return [word for word in model_words(task) if not (task.package.folder / word).exists()]


def model_words(task: Task) -> list[str]:
    """The words of a task's command that are called like a model file."""
    command = task.package.spec.entry_point(task.entry_point).command
    try:
        words = shlex.split(command)
    except ValueError:  # a quote inside a word of the shell's own language
        words = [word.strip("\"'") for word in command.split()]
    return [word for word in words if word.endswith(SEED_SUFFIXES)]


def own_environ(task: Task) -> dict[str, str]:
    """Of a task's environment, what its run's configuration and its client decide."""
    names = _names(task)
    data = {} if task.data_path is None else {"FEDN_DATA_PATH": str(task.data_path)}
    return {**{name: fill(value, names) for name, value in task.environment.items()}, **data}


def _names(task: Task) -> dict[str, str]:
    values = {name: getattr(task, name) for name in PLACEHOLDERS}
    return {name: "" if value is None else str(value) for name, value in values.items()}


PLACEHOLDERS = ("client_id", "data_path", "partition_id", "num_partitions", "round_number", "session_id")
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")


def of_clients(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that are not the same for all clients, or rounds."""
    return ["FEDN_DATA_PATH", *(name for name, value in environment.items() if _PLACEHOLDER.search(value))]


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace ``{client_id}``, ``{data_path}`` … in an argument or variable; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: names[match.group(1)], text)


def task_record(task: Task, slot: Slot) -> dict[str, Json]:
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
        "device": slot.device,
        "gpus": [gpu.visible_as for gpu in slot.gpus],
        "data_path": None if task.data_path is None else str(task.data_path),
        "run_config": dict(task.run_config),
        "parameters": dict(task.parameters),
        "reply": task.content,
        "rest": has_rest(task),
        "input_sets": list(task.input_sets),
        "reply_sets": list(task.sets),
        "parameter_names": None if task.template is None else list(task.template.parameters),
        "weighted": task.weighted,
        "environment": dict(task.environment),
        "links": {name: str(target) for name, target in task.links.items()},
        "python": None if task.package.python is None else str(task.package.python),
    }


def has_rest(task: Task) -> bool:
    """Whether a delta comes with the tensors that are no parameters, as they are."""
    template = task.template
    return task.content == "delta" and template is not None and len(template.parameters) < len(template)


def remove_leftovers(task: Task) -> None:
    """Remove from a task's folder what the task itself put there, so that it cannot fill the disk, round after round.

    What it was given and its logs stay, to repeat it by hand.
    """
    given = input_path(task).name
    logs = {f"{call}{name}.log" for call in ("", f"{STARTUP}.") for name in ("stdout", "stderr")}
    for path in task.folder.iterdir():
        if path.name not in {given, f"{given}-metadata", "task.json", *logs}:
            remove_tree(path)
