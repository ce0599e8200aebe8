"""Prepares what a task finds at its start: folder, private working copy, task.json, arguments and environment."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from fedpkg.compute_package import arguments as calls
from fedpkg.devices import THREAD_VARIABLES, Slot
from fedpkg.dispatch.inputs import copy_input, is_big
from fedpkg.dispatch.package_files import inventory, is_in_place
from fedpkg.dispatch.site import Job
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.fedn.containers import name_the_host
from fedpkg.fedn.names import DATA_PATHS
from fedpkg.files import remove_tree
from fedpkg.formats.base import SEED_SUFFIXES
from fedpkg.interpreters import folders_of, naming
from fedpkg.replies.reading import Reading
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.order import ReplySpec
from fedpkg.waist.place import STARTUP

RUNTIME_PATH = Path(__file__).resolve().parent.parent / "runtime" / "path"
# Variables that a run cannot change: how modules are found, and that tasks write no bytecode.
_OURS = ("PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class StagedTask:
    """A task whose files exist."""

    cwd: Path
    command: str  # without placeholders
    appended: tuple[str, ...]  # words after the entry point's command: paths, then flags
    environ: Mapping[str, str]
    out: Path
    stdout: Path
    stderr: Path


def base_environ(
    extra: Mapping[str, str], *, threads: int, python: Path | None = Path(sys.executable)
) -> dict[str, str]:
    """The environment that every task of a run shares, with ``python`` (unless it is None) first on PATH.

    By default that is the interpreter that runs fedpkg, whose virtual environment need not be activated. Any other
    interpreter does not get the user's PYTHONPATH, which is made for another one. Commands may use the names ``python``
    and ``python3`` even if the interpreter's file has another name.
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
    environ["PYTHONHASHSEED"] = extra.get("PYTHONHASHSEED", "0")
    name_the_host(environ)
    environ["PYTHONUNBUFFERED"] = "1"  # the log contains what a task printed before it was killed
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # bytecode is not a client's state
    for name in THREAD_VARIABLES:
        environ[name] = extra.get(name, str(threads))
    return environ


class Environs:
    """Caches the common part of tasks' environments, as reading ``os.environ`` takes 0.2 ms."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], dict[str, str]] = {}

    def of(self, job: Job) -> Mapping[str, str]:
        order, python = job.order, job.package.python
        key = (order.threads, python, *order.environment.items())
        if key not in self._made:
            self._made[key] = base_environ(order.environment, threads=order.threads, python=python)
        return self._made[key]


def shared_files(job: Job) -> list[Path]:
    """Files of a staged task to which other tasks have hard links.

    After `startup` has run, symbolic links may lead from the package to files of the machine; these do not count.
    """
    place = job.place
    big = [name for name in inventory(job.package.root).big if is_in_place(place.version, name)]
    return [path for path in (place.input, *(place.package / name for name in big)) if _is_shared(path)]


def _is_shared(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:  # it does not exist
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1


def stage(job: Job, slot: Slot, copies: WorkingCopies, environs: Environs, *, private: bool = False) -> StagedTask:
    """Make the files of a task for ``slot``, except a big input: see `SlotInput`.

    With ``private`` the task shares no files of the package. The folders of its place must not exist yet.
    """
    order, place = job.order, job.place
    place.folder.mkdir(parents=True, mode=0o700)
    place.version.parent.mkdir(parents=True, exist_ok=True)
    copies.put(job, private=private)
    appends = calls.takes_paths(job.command)
    paths = [str(place.out)] if appends and _takes_a_path(job) else []
    if job.model is not None:
        if not is_big(job):
            copy_input(job)
        place.input_metadata.write_text(json.dumps({**order.run_config, **order.parameters}))
        if appends:
            paths.insert(0, str(place.input))
    place.task_json.write_text(json.dumps(task_record(job, slot)))
    arguments = calls.fill_arguments(order.arguments, _names(job))
    return StagedTask(
        cwd=job.working_folder,
        command=_command(job, arguments),
        appended=(*paths, *_words(job, arguments)),
        environ=_environ(job, slot, environs.of(job)),
        out=place.out,
        stdout=place.log("stdout"),
        stderr=place.log("stderr"),
    )


def _words(job: Job, arguments: Mapping[str, Json]) -> list[str]:
    """The words that the arguments add to the command: none if it gets them in a file, unless a style is given."""
    style = job.order.argument_style or job.entry_point.argument_style
    if not style and calls.CONFIG in calls.placeholders_in(job.command):
        return []
    return calls.format_arguments(arguments, style or calls.FLAGS)


def _command(job: Job, arguments: Mapping[str, Json]) -> str:
    """The command with its placeholders filled in; writes the file that ``{config}`` stands for."""
    found = calls.placeholders_in(job.command)
    if not found:
        return job.command
    place = job.place
    if calls.CONFIG in found:
        merged = {**job.order.run_config, **arguments}
        place.config.write_text(yaml.safe_dump(merged, sort_keys=False, allow_unicode=True), encoding="utf-8")
    files = {calls.IN_MODEL: place.input, calls.OUT_MODEL: place.out, calls.CONFIG: place.config}
    return calls.fill_command(job.command, {**_names(job), **{name: str(path) for name, path in files.items()}})


def _environ(job: Job, slot: Slot, base: Mapping[str, str]) -> dict[str, str]:
    order = job.order
    environ = {
        **base,
        "FEDPKG_TASK": str(job.place.task_json),
        "FEDPKG_STATE_DIR": str(job.place.state),
        "FEDPKG_SEED": str(order.seed),
    }
    if job.data_path is not None:
        environ.update(dict.fromkeys(DATA_PATHS, str(job.data_path)))
    names = _names(job)
    for name in order.environment:
        environ[name] = environ[name] if name in _OURS else calls.fill(order.environment[name], names)
    environ.update(slot.environment)
    if slot.gpus:
        environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS results are not deterministic
    return environ


def startup(job: Job, staged: StagedTask) -> tuple[Job, StagedTask]:
    """The call of ``startup`` before a client's first task, in the same folders, with separate logs."""
    stdout, stderr = (job.place.log(stream, of_startup=True) for stream in ("stdout", "stderr"))
    order = msgspec.structs.replace(job.order, entry_point=STARTUP, arguments={})
    call = dataclasses.replace(job, order=order, reading=_NOTHING)
    command = _command(call, {})
    return call, dataclasses.replace(staged, command=command, appended=(), stdout=stdout, stderr=stderr)


_NOTHING = Reading(ReplySpec(kind=ReplyKind.NOTHING))


def _takes_a_path(job: Job) -> bool:
    """Whether the path of the reply is appended: not without a reply, or if the command of `build` has a model file.

    FEDn's packages used ``command: python entrypoint.py init_seed ../seed.npz``. A file that the package contains is
    not written.
    """
    if job.spec.kind is ReplyKind.SEED:
        return not named_seeds(job)
    return job.spec.kind is not ReplyKind.NOTHING


def named_seeds(job: Job) -> list[str]:
    """Model files that the command of `build` names and that the package does not contain: `build` writes them."""
    return [word for word in model_words(job) if not (job.package.folder / word).exists()]


def model_words(job: Job) -> list[str]:
    """The words of a task's command that look like the name of a model file."""
    command = job.command
    try:
        words = shlex.split(command)
    except ValueError:  # shell syntax that shlex cannot split
        words = [word.strip("\"'") for word in command.split()]
    return [word for word in words if word.endswith(SEED_SUFFIXES)]


def own_environ(job: Job) -> dict[str, str]:
    """The variables of a task that depend on the run configuration or on the client."""
    names = _names(job)
    data = {} if job.data_path is None else dict.fromkeys(DATA_PATHS, str(job.data_path))
    return {**data, **{name: calls.fill(value, names) for name, value in job.order.environment.items()}}


def _names(job: Job) -> dict[str, str]:
    values: dict[str, object] = {name: getattr(job.order, name) for name in calls.OF_THE_ORDER}
    values["data_path"] = job.data_path
    values["client_number"] = job.order.partition_id + 1
    return {name: "" if value is None else str(value) for name, value in values.items()}


def of_clients(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that differ between clients or rounds."""
    differ = (name for name, value in environment.items() if calls.has_placeholder(value) or "{attributes." in value)
    return [*DATA_PATHS, *differ]


def task_record(job: Job, slot: Slot) -> dict[str, Json]:
    """The content of task.json: fields of the order and of the reply's specification that a program may need.

    It also has values of this machine: the device, the path of the data, the interpreter.
    """
    order, spec = job.order, job.spec
    record = {name: getattr(order, name) for name in _OF_THE_ORDER}
    return {
        **record,
        "device": slot.device,
        "gpus": [gpu.visible_as for gpu in slot.gpus],
        "data_path": None if job.data_path is None else str(job.data_path),
        "reply_kind": spec.kind.value,
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
    *("attributes", "run_config", "parameters", "environment", "argument_style"),
)


def remove_leftovers(job: Job) -> None:
    """Remove files that the task has made in its folder, which would fill the disk round after round.

    Its given files and its logs stay, so that the task can be repeated by hand.
    """
    for path in job.place.folder.iterdir():
        if path.name not in job.place.given:
            remove_tree(path)
