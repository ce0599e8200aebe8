"""``fedpkg package call``: one entry point of a package, called by hand."""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fedpkg.cli import output
from fedpkg.cli.completing import entry_points
from fedpkg.cli.options import Settings, common_options, env_option
from fedpkg.errors import ConfigError, ModelFileError
from fedpkg.shown import shown, shown_lines
from fedpkg.waist.place import BUILD, STARTUP, TASK_JSON, log_of

if TYPE_CHECKING:
    from fedpkg.config import PythonEnv
    from fedpkg.session.by_hand import Call, Called

_PATH = click.Path(path_type=Path)
NEED_A_MODEL = ("train", "validate", "predict")


@click.command()
@click.argument(
    "words",
    metavar="[PACKAGE] ENTRY_POINT [-- --KEY=VALUE ...]",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=entry_points,
)
@click.option("-p", "--path", metavar="PACKAGE", type=_PATH, help="The package (FEDn's spelling of PACKAGE).")
@click.option("-i", "--input", "model", metavar="FILE", type=_PATH, help="Input model of the entry point.")
@click.option(
    "-o", "--output", "target", metavar="FILE", type=_PATH, help="File for its reply; metadata goes to FILE-metadata."
)
@click.option(
    "--data", "data_path", metavar="PATH", type=_PATH, help="The client's data, linked where the package expects it."
)
@click.option("--client-id", metavar="ID", help="Id of the client.  [default: client-0]")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the task.  [default: 0]")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End the task after this many seconds.",
)
@click.option(
    "--executor",
    type=click.Choice(["process", "forkserver", "resident"]),
    default="process",
    show_default=True,
    help="A new process, or a fork of a warm interpreter.",
)
@click.option(
    "--task",
    "task_folder",
    metavar="FOLDER",
    type=_PATH,
    help="Repeat this task of a session: same input, data, client, seed, parameters.",
)
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="Number of GPUs.  [default: that of --task, else 0]")
@click.option(
    "--isolate", is_flag=True, help="Isolate it: it sees only its package, --input and --data, and no network (Linux)."
)
@click.option(
    "--allow", metavar="WHO", multiple=True, help="Run it only if WHO is its digest or signer, as in trust.allow."
)
@env_option
@click.option("--keep", is_flag=True, help="Keep its working folder. After a failure, it is always kept.")
@common_options
@click.pass_obj
def call(settings: Settings, /, words: tuple[str, ...], **options: Any) -> None:
    """Call one entry point as a session would.

    \b
      fedpkg package call packages/digits build --output seed.npz
      fedpkg package call packages/digits train --input seed.npz --data digits.npz -- --lr=0.05

    FEDn's `fedn run train --path client --input seed.npz --output update.npz` is called as in the last example below;
    likewise build, startup, validate and predict.

    \b
      fedpkg package call train --path client --input seed.npz --output update.npz

    Relative paths start in the current folder. The reply is
    checked as in a session. The entry point runs in a temporary folder with a copy of the
    package. Of your files, it writes only --output.
    """
    from fedpkg.files import remove_tree

    given = _Options(**options)
    subject = _subject(given, words)
    folder = temporary_folder()
    try:
        called = call_and_show(_call(given, subject, folder))
        if given.target is not None:
            _copy_reply(called, given.target)
        if settings.json:
            output.document(_document(called, given.target, folder if given.keep else None))
        else:
            _show(called, given.target, folder if given.keep else None)
    finally:
        if not given.keep and not (folder / "failed").exists():
            remove_tree(folder)


@dataclass(frozen=True)
class _Options:
    """The options of the command."""

    path: Path | None
    model: Path | None
    target: Path | None
    data_path: Path | None
    client_id: str | None
    seed: int | None
    timeout_s: float | None
    executor: Literal["process", "forkserver", "resident"]
    task_folder: Path | None
    gpus: int | None
    isolate: bool
    allow: tuple[str, ...]
    env: PythonEnv | None
    keep: bool


@dataclass(frozen=True)
class _Subject:
    """What is called; ``record``: of the task that is repeated."""

    package: Path
    entry_point: str
    arguments: Mapping[str, str]
    record: Mapping[str, Any]
    model: Path | None
    data_path: Path | None


def _subject(given: _Options, words: tuple[str, ...]) -> _Subject:
    from fedpkg.fedn.names import FORMER_ENTRY_POINTS, INIT_SEED

    words = words if given.path is None else (str(given.path), *words)
    if len(words) < 2 or words[1].startswith("-"):
        raise click.UsageError("give a package and one of its entry points, such as: packages/digits build")
    arguments = parse_arguments(words[2:])
    entry_point = {**FORMER_ENTRY_POINTS, INIT_SEED: BUILD}.get(words[1], words[1])
    record, model = ({}, given.model) if given.task_folder is None else _task(given.task_folder, given.model)
    if given.task_folder is not None and entry_point == STARTUP:
        model = None  # it gets no paths
    data_path = given.data_path
    if data_path is None and record.get("data_path"):
        data_path = Path(record["data_path"])
    if data_path is not None and not data_path.exists():
        raise ConfigError(f"--data {data_path} does not exist", hint="name the client's folder or file")
    if data_path is not None:
        data_path = Path(os.path.abspath(data_path))  # an isolated task cannot go by folders that it does not see
    if model is None and entry_point in NEED_A_MODEL:
        make_one = f"fedpkg model seed {shlex.quote(words[0])} -o seed.npz"
        raise click.UsageError(f"'{entry_point}' needs a model: give --input FILE; `{make_one}` makes one")
    return _Subject(Path(words[0]), entry_point, arguments, record, model, data_path)


def _call(given: _Options, subject: _Subject, folder: Path) -> Call:
    """The call; says on the way what its package will not find."""
    from fedpkg.config import IsolateConfig
    from fedpkg.session.by_hand import Call
    from fedpkg.session.package_run import call_ways
    from fedpkg.session.started import started_before

    record, data_path, allow, task = subject.record, subject.data_path, given.allow or None, given.task_folder
    new_data = data_path if task is None else None  # else the record has its ways
    ways = call_ways(subject.package, new_data, cache=folder / "packages", allow=allow, isolated=given.isolate)
    for about in ways.missed:
        output.words(f"warning: {shown(about)}")
    return Call(
        subject.package,
        subject.entry_point,
        folder,
        executor=given.executor,
        model=None if subject.model is None else subject.model.absolute(),
        data_path=data_path,
        client_id=str(record.get("client_id", "client-0")) if given.client_id is None else given.client_id,
        seed=int(record.get("seed", 0)) if given.seed is None else given.seed,
        timeout_s=given.timeout_s,
        arguments={**ways.arguments().get(subject.entry_point, {}), **subject.arguments},
        environment=ways.section("environment"),
        links={} if data_path is None else {name: data_path / to for name, to in ways.section("links").items()},
        gpus=given.gpus,
        isolate=IsolateConfig(enabled=given.isolate or "isolation" in record),
        python_env=given.env or _python_env(record),
        record=record,
        allow=allow,
        started=None if task is None or subject.entry_point == STARTUP else started_before(task),
    )


def call_and_show(call: Call) -> Called:
    """Call an entry point with its output shown on standard error as it comes; what came of it, which is ok.

    Raises:
        EntryPointFailed: it failed. The call's folder then holds a file ``failed``: it has the logs, and shall stay.
        FedpkgError: the package or the input cannot be used.
    """
    from fedpkg.controller.failed_call import entry_point_failed
    from fedpkg.session import by_hand

    folder = call.folder / "task"
    with _Logs([log_of(folder, stream) for stream in ("stdout", "stderr")]):
        called = by_hand.call_entry_point(call)
    if called.answer.status == "ok":
        return called
    (call.folder / "failed").touch()
    order = called.job.order
    hint = f"cd {output.near_quoted(_root_of(call, called))} && {called.variables()}{called.answer.command}"
    if order.links:  # that command would not have them
        hint = f"look into {output.near(folder)}"
    if order.isolation is not None:  # nor be that
        hint = f"look into {output.near(folder)}; `fedpkg doctor` and docs/explanation/isolation.md say what it can see"
    # One line of its log: all of it was shown already.
    raise entry_point_failed(order.entry_point, called.answer, folder, hint=hint, tail_lines=1)


def _root_of(call: Call, called: Called) -> Path:
    return call.package if call.package.is_dir() else called.job.package.folder


def temporary_folder() -> Path:
    """A folder for one call."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="fedpkg-call-"))


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """``--lr=0.1 --epochs 3 --fast`` as arguments; a flag without a value is True. ``lr=0.1`` is one, too."""
    arguments: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not name or not (word.startswith("--") or equals):
            raise click.UsageError(f"'{word}': arguments after -- have the form --key=value, for example -- --lr=0.01")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "True"
        arguments[name] = value
    return arguments


def _python_env(record: Mapping[str, Any]) -> PythonEnv:
    """What a task that is repeated ran with; without one, or in an environment of its own, ``auto``."""
    python = record.get("python", "")
    return "none" if python is None else "current" if python == sys.executable else "auto"


def _task(folder: Path, model: Path | None) -> tuple[Mapping[str, Any], Path | None]:
    """The task.json of a task's folder, and the input that it was given. The task may have put anything there."""
    from fedpkg.formats.base import SUFFIXES
    from fedpkg.formats.metadata import metadata_path, read_metrics

    path = folder / TASK_JSON
    record: Any = None
    with suppress(ModelFileError):
        record = None if path.is_symlink() else read_metrics(path)
    if not _is_record(record):
        raise ConfigError(
            f"--task {folder} is not the folder of a task: it has no task.json that could be read",
            hint="`fedpkg session show --round N` lists the folders of a round's tasks",
        )
    if model is None:
        places = (folder / f"in{suffix}" for suffix in SUFFIXES)
        model = next((path for path in places if path.is_file() and not path.is_symlink()), None)
        if model is not None and metadata_path(model).is_symlink():
            raise ConfigError(
                f"--task {folder}: {metadata_path(model).name} is a link that the task made",
                hint="remove it, or give another model with --input",
            )
        if model is None and record.get("entry_point") in NEED_A_MODEL:
            raise ConfigError(
                f"--task {folder}: its input is gone (only failed tasks keep theirs)",
                hint="give it with --input; `fedpkg model export` writes a global model to a file",
            )
    return record, model


def _is_record(value: Any) -> bool:
    """Whether it has the form of a task.json, in what is used of it."""
    kinds: dict[type, tuple[str, ...]] = {
        dict: ("environment", "links", "parameters", "run_config"),
        list: ("gpus", "reply_sets", "input_sets"),
        int: ("seed", "round_number", "partition_id", "num_partitions"),
    }
    if not isinstance(value, dict):
        return False
    if not all(isinstance(value.get(key, kind()), kind) for kind, keys in kinds.items() for key in keys):
        return False
    paths = [value.get("data_path") or "", *value.get("links", {}).values()]
    return all(isinstance(path, str) for path in paths)


class _Logs(threading.Thread):
    """Passes on what a program writes into its log files, while it runs."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(daemon=True)
        self._offsets = dict.fromkeys(paths, 0)
        self._ended = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        for path, offset in self._offsets.items():
            try:  # the program may put something else there: a link to another's file, a pipe to wait at
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        continue
                    file.seek(offset)
                    data = file.read()
            except OSError:
                continue
            self._offsets[path] = offset + len(data)
            try:
                sys.stderr.write(shown_lines(data.decode(errors="replace")))
                sys.stderr.flush()
            except BrokenPipeError:
                output.silence(sys.stderr)


def _copy_reply(called: Called, target: Path) -> None:
    """The reply and its metadata; metadata of an earlier reply do not stay beside it."""
    from fedpkg.formats.metadata import metadata_path

    assert called.reply is not None
    copy_whole(called.reply, target)
    if metadata_path(called.reply).exists():
        copy_whole(metadata_path(called.reply), metadata_path(target))
    else:
        metadata_path(target).unlink(missing_ok=True)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file; ``target`` appears whole or not at all."""
    import shutil

    from fedpkg.files import atomic_write, open_regular

    if target.is_dir():
        raise ModelFileError(f"{target} is a folder", hint="name a file")
    try:
        with open_regular(source) as src, atomic_write(target, durable=False) as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
    except OSError as error:
        raise ModelFileError(f"{target}: cannot be written: {error.strerror}") from error


def _document(called: Called, target: Path | None, folder: Path | None) -> dict[str, Any]:
    from fedpkg.weights.weights import dtype_name

    result = called.answer
    return {
        "entry_point": called.job.order.entry_point,
        "status": result.status,
        "seconds": result.wall_s,
        "command": result.command,
        "num_examples": result.num_examples,
        "metadata": dict(result.metadata),
        "metrics": result.metrics,
        "tensors": [
            {"name": name, "shape": list(tensor.shape), "dtype": dtype_name(tensor)}
            for name, tensor in _tensors(called).items()
        ],
        **({} if called.records is None else {"sets": list(called.records.sets), "data": called.records.data}),
        "size_bytes": result.reply.size_bytes if result.reply else 0,
        "output": target,
        "folder": folder,
    }


def _show(called: Called, target: Path | None, folder: Path | None) -> None:
    result = called.answer
    pairs = [(called.job.order.entry_point, f"ok after {output.seconds(result.wall_s)}")]
    if result.num_examples is not None:
        pairs.append(("num_examples", output.number(result.num_examples)))
    is_told = result.num_examples is not None
    if further := {name: value for name, value in result.metadata.items() if name != "num_examples" or not is_told}:
        pairs.append(("metadata", json.dumps(further)))
    if (weights := called.sets.get("")) is not None:
        pairs.append(("model", f"{weights.num_parameters} parameters, {output.size(weights.num_bytes)}"))
    elif called.records is not None:
        named = ", ".join(map(repr, called.records.sets)) or "none"
        pairs.append(("records", f"sets: {named}; {output.size(called.records.num_bytes)} of tensors"))
    elif result.metrics is None:
        pairs.append(("reply", output.size(result.reply.size_bytes if result.reply else 0)))
    if target is not None:
        pairs.append(("output", str(target)))
    elif called.reply is not None and result.metrics is None:
        pairs.append(("output", "not kept; --output FILE keeps it"))
    if folder is not None:
        pairs.append(("folder", str(folder)))
    output.facts(pairs)
    if result.metrics is not None:
        output.document(result.metrics)
    if called.records is not None and called.records.data is not None:
        output.document(called.records.data)
    if tensors := _tensors(called):
        output.result()
        show_tensors(tensors)


def _tensors(called: Called) -> Mapping[str, Any]:
    """The tensors of a reply; those of named sets as they are called in its file."""
    records = called.records
    sets = (called.sets if records is None else records.sets).items()
    whole = {(name, key): tensor for name, weights in sets for key, tensor in weights.items()}
    return {key if not name and records is None else f"{name}/{key}": one for (name, key), one in whole.items()}


def show_tensors(weights: Mapping[str, Any]) -> None:
    """Names, shapes and dtypes."""
    from fedpkg.weights.weights import dtype_name

    output.table(
        ["tensor", "shape", "dtype"],
        [[name, str(tuple(tensor.shape)), dtype_name(tensor)] for name, tensor in weights.items()],
    )
