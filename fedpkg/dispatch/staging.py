"""What a task finds when it starts: its directory, its private working copy, task.json, arguments and environment."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import stat
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedpkg.compute_package.command import format_flags
from fedpkg.devices import Slot
from fedpkg.dispatch.package_files import inventory, is_in_place
from fedpkg.dispatch.site import Job
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.fedn.containers import name_the_host
from fedpkg.fedn.names import DATA_PATH
from fedpkg.files import LINK_ABOVE_BYTES, copy_file, remove_tree, same_bytes, stage_file
from fedpkg.formats.base import SEED_SUFFIXES
from fedpkg.interpreters import folders_of, naming
from fedpkg.replies.reading import Reading
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.order import ReplySpec
from fedpkg.waist.place import STARTUP

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
    name_the_host(environ)
    environ["PYTHONUNBUFFERED"] = "1"  # what a task printed before it was killed is in its log
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # bytecode is no state of a client
    for name in THREAD_VARIABLES:
        environ[name] = str(threads)
    return environ


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

    def put(self, job: Job, *, private: bool = False) -> Path:
        """Put a task's input into its folder; with ``private`` nobody else has that file."""
        assert job.model is not None
        target = job.place.input
        if private or job.model.stat().st_size <= LINK_ABOVE_BYTES:
            copy_file(job.model, target)
            target.chmod(0o444)
            if private:
                with self._lock:
                    self._given[job.task_id] = _Input(target, job.model, _facts(target))
            return target
        with self._lock:
            shared = self._shared.get(job.model)
            if shared is None or self._is_spoilt(shared):
                shared = self._copy(job.model)
            stage_file(shared.path, target)
            shared.facts = _facts(shared.path)  # our own name changed them
            self._given[job.task_id] = shared
        return target

    def is_as_given(self, job: Job) -> bool:
        """A task has ended: did nobody write to its input meanwhile?"""
        with self._lock:
            given = self._given.get(job.task_id)
            return given is None or not self._is_spoilt(given)

    def release(self, job: Job, *, remove: bool = False) -> None:
        """A task needs its input no more; with ``remove`` nor does anybody who would repeat the task by hand."""
        with self._lock:
            given = self._given.pop(job.task_id, None)
            spoilt = given is not None and self._is_spoilt(given)
            if remove:
                job.place.input.unlink(missing_ok=True)
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


def shared_files(job: Job) -> list[Path]:
    """Files among those of a staged task that other tasks have under names of their own.

    Once `startup` has run, links may lead from the package's folders to files of the machine: those are none of them.
    """
    place = job.place
    big = [name for name in inventory(job.package.root).big if is_in_place(place.version, name)]
    return [path for path in (place.input, *(place.package / name for name in big)) if _is_shared(path)]


def _is_shared(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:  # absent
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1


def stage(job: Job, slot: Slot, models: SharedModels, copies: WorkingCopies, *, private: bool = False) -> StagedTask:
    """Lay out the files of a task for ``slot``; with ``private`` no other task has any of them.

    The folders of its place must not exist yet.
    """
    order, place = job.order, job.place
    place.folder.mkdir(parents=True, mode=0o700)
    place.version.parent.mkdir(parents=True, exist_ok=True)
    copies.put(job, private=private)
    paths = [str(place.out)] if _takes_a_path(job) else []
    if job.model is not None:
        models.put(job, private=private)
        place.input_metadata.write_text(json.dumps({**order.run_config, **order.parameters}))
        paths.insert(0, str(place.input))
    place.task_json.write_text(json.dumps(task_record(job, slot)))
    names = _names(job)
    flags = format_flags(
        {key: fill(value, names) if isinstance(value, str) else value for key, value in order.arguments.items()}
    )
    return StagedTask(
        cwd=job.working_folder,
        appended=(*paths, *flags),
        environ=_environ(job, slot),
        out=place.out,
        stdout=place.log("stdout"),
        stderr=place.log("stderr"),
    )


def _environ(job: Job, slot: Slot) -> dict[str, str]:
    order = job.order
    environ = {
        **base_environ(order.environment, threads=order.threads, python=job.package.python),
        "FEDPKG_TASK": str(job.place.task_json),
        "FEDPKG_STATE_DIR": str(job.place.state),
        "FEDPKG_SEED": str(order.seed),
    }
    if job.data_path is not None:
        environ[DATA_PATH] = str(job.data_path)
    names = _names(job)
    for name in order.environment:
        environ[name] = fill(environ[name], names) if name not in ("PATH", "PYTHONPATH") else environ[name]
    environ.update(slot.environment)
    if slot.gpus:
        environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may give other bits each time
    return environ


def startup(job: Job, staged: StagedTask) -> tuple[Job, StagedTask]:
    """The call of ``startup`` that comes before a client's first task, in the same place, with logs of its own."""
    stdout, stderr = (job.place.log(stream, of_startup=True) for stream in ("stdout", "stderr"))
    order = msgspec.structs.replace(job.order, entry_point=STARTUP, arguments={})
    call = dataclasses.replace(job, order=order, reading=_NOTHING)
    return call, dataclasses.replace(staged, appended=(), stdout=stdout, stderr=stderr)


_NOTHING = Reading(ReplySpec(kind=ReplyKind.NOTHING))


def _takes_a_path(job: Job) -> bool:
    """Whether the path of the reply is appended: not where nothing is asked for, or `build` says itself what it writes.

    FEDn's packages have had ``command: python entrypoint.py init_seed ../seed.npz``. What the package has is not
    written.
    """
    if job.spec.kind is ReplyKind.SEED:
        return not named_seeds(job)
    return job.spec.kind is not ReplyKind.NOTHING


def named_seeds(job: Job) -> list[str]:
    """Model files that the command of `build` names, and that the package does not have: what it will write."""
    return [word for word in model_words(job) if not (job.package.folder / word).exists()]


def model_words(job: Job) -> list[str]:
    """The words of a task's command that are called like a model file."""
    command = job.command
    try:
        words = shlex.split(command)
    except ValueError:  # a quote inside a word of the shell's own language
        words = [word.strip("\"'") for word in command.split()]
    return [word for word in words if word.endswith(SEED_SUFFIXES)]


def own_environ(job: Job) -> dict[str, str]:
    """Of a task's environment, what its run's configuration and its client decide."""
    names = _names(job)
    data = {} if job.data_path is None else {DATA_PATH: str(job.data_path)}
    return {**{name: fill(value, names) for name, value in job.order.environment.items()}, **data}


def _names(job: Job) -> dict[str, str]:
    values = {name: job.data_path if name == "data_path" else getattr(job.order, name) for name in PLACEHOLDERS}
    return {name: "" if value is None else str(value) for name, value in values.items()}


PLACEHOLDERS = ("client_id", "data_path", "partition_id", "num_partitions", "round_number", "session_id")
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")


def of_clients(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that are not the same for all clients, or rounds."""
    return [DATA_PATH, *(name for name, value in environment.items() if _PLACEHOLDER.search(value))]


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace ``{client_id}``, ``{data_path}`` … in an argument or variable; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: names[match.group(1)], text)


def task_record(job: Job, slot: Slot) -> dict[str, Json]:
    """The content of task.json: of the order and of what its reply must be, what a program may have a use for.

    Added are the places of this machine: the device, the data, the interpreter.
    """
    order, spec = job.order, job.spec
    record = {name: getattr(order, name) for name in _OF_THE_ORDER}
    return {
        **record,
        "device": slot.device,
        "gpus": [gpu.visible_as for gpu in slot.gpus],
        "data_path": None if job.data_path is None else str(job.data_path),
        "reply": spec.reply,
        "rest": spec.has_rest,
        "input_sets": [] if order.input is None else list(order.input.sets),
        "reply_sets": list(spec.sets),
        "parameter_names": spec.parameter_names,
        "weighted": spec.weighted,
        "links": {name: str(target) for name, target in job.links.items()},
        "python": None if job.package.python is None else str(job.package.python),
    }


_OF_THE_ORDER = (
    *("session_id", "round_number", "client_id", "partition_id", "num_partitions", "entry_point", "attempt", "seed"),
    *("run_config", "parameters", "environment"),
)


def remove_leftovers(job: Job) -> None:
    """Remove from a task's folder what the task itself put there, so that it cannot fill the disk, round after round.

    What it was given and its logs stay, to repeat it by hand.
    """
    for path in job.place.folder.iterdir():
        if path.name not in job.place.given:
            remove_tree(path)
