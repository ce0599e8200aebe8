"""One entry point, called as a session would call it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedpkg.compute_package.trust import gate
from fedpkg.compute_package.unpack import open_package
from fedpkg.config import ClientsConfig, ExecutorConfig, IsolateConfig, LimitsConfig, NeedsConfig, PythonEnv, RunConfig
from fedpkg.dispatch.base import Failure, Task, TaskResult
from fedpkg.dispatch.isolation import isolation_of
from fedpkg.dispatch.limits import limits_of
from fedpkg.errors import ModelFileError
from fedpkg.session.admission import put_on_disk
from fedpkg.session.executors import make_executor, slots_of
from fedpkg.session.seed_model import bare_form, non_finite
from fedpkg.types import Json, ReplyKind

if TYPE_CHECKING:
    from fedpkg.formats.base import Suffix
    from fedpkg.weights.weights import Weights


def call_entry_point(
    package: Path,
    entry_point: str,
    *,
    folder: Path,
    executor: Literal["process", "forkserver", "resident"] = "process",
    model: Path | None = None,
    data_path: Path | None = None,
    client_id: str = "client-0",
    seed: int = 0,
    timeout_s: float | None = None,
    arguments: Mapping[str, Json] | None = None,
    environment: Mapping[str, str] | None = None,
    links: Mapping[str, Path] | None = None,
    gpus: int | None = None,
    isolate: IsolateConfig | None = None,
    python_env: PythonEnv = "auto",
    record: Mapping[str, Any] | None = None,
    allow: Sequence[str] | None = None,
    seed_suffix: Suffix = ".npz",
) -> TaskResult:
    """Call one entry point just as a session would, and check its reply. Nothing outside ``folder`` is written.

    Its files are in ``folder / "task"`` (logs, task.json, what it was given); the package is unpacked beside it.

    Args:
        model: the input, in any form that a seed model can have.
        environment, links: as of a run's clients; those of ``record`` go before them.
        gpus: so many of this machine's GPUs; None: as many as ``record`` had, else none.
        record: a task.json; round, partition, parameters, names of sets, run config, environment and links of the
            call are taken from it.
        allow: digests and signers, as in a run's ``trust.allow``; None: every package.

    Raises:
        FedpkgError: the package or the input cannot be used. How the entry point itself fails is in the result.
    """
    facts = record or {}
    environment = {
        **(environment or {}),
        **{str(name): str(value) for name, value in facts.get("environment", {}).items()},
    }
    links = {**(links or {}), **{str(name): Path(target) for name, target in facts.get("links", {}).items()}}
    limits = LimitsConfig()
    gpus = len(facts.get("gpus", ())) if gpus is None else gpus
    unpacked = open_package(
        package,
        folder / "packages",
        max_bytes=limits.package_bytes,
        max_members=limits.package_members,
        admit=gate(package, allow),
    )
    unpacked.spec.entry_point(entry_point)
    on_disk = put_on_disk(unpacked, python_env, only_wheels=isolate is not None and isolate.enabled)
    config = RunConfig(
        package=str(package),
        rounds=1,
        clients=ClientsConfig(count=1),
        executor=ExecutorConfig(name=executor, workers=1, needs=NeedsConfig(gpus=gpus)),
        environment=environment,
        isolate=isolate or IsolateConfig(),
    )
    runner = make_executor(config, on_disk, folder / "executor", slots=slots_of(config))
    try:
        bare = bare_form(config, on_disk)
        staged, template, suffix = None, None, bare or seed_suffix
        if model is not None:
            staged, template, suffix = _input_model(model, folder, bare)
        content = str(facts.get("reply", "gradient" if entry_point == "gradient" else "weights"))
        if template is not None and content != "weights" and not facts.get("rest"):
            template = template.filter(frozenset(template.parameters).__contains__)
        sets = dict.fromkeys(map(str, facts.get("reply_sets", ())))
        input_sets = tuple(map(str, facts.get("input_sets", ())))
        task = Task(
            task_id=f"by-hand/{entry_point}",
            session_id=str(facts.get("session_id", "by-hand")),
            round_number=int(facts.get("round_number", 1)),
            client_id=client_id,
            entry_point=entry_point,
            package=on_disk,
            reply_kind=ReplyKind.SETS if sets else _REPLY_KINDS.get(entry_point, ReplyKind.RESULT),
            folder=folder / "task",
            next_state=folder / "work",
            partition_id=int(facts.get("partition_id", 0)),
            num_partitions=int(facts.get("num_partitions", 1)),
            model=staged,
            suffix=suffix,
            weighted=bool(facts.get("weighted", True)),
            template=None if sets or input_sets else template,  # what sets must fit is on no record
            content=content,
            input_sets=input_sets,
            sets=sets,
            data_path=data_path,
            seed=seed,
            arguments=arguments or {},
            parameters=facts.get("parameters", {}),
            run_config=facts.get("run_config", {}),
            environment=environment,
            links=links,
            timeout_s=timeout_s,
            limits=limits_of(limits),
            isolation=isolation_of(config),
        )
        result = runner.submit(task).result()
        return _checked_seed(result) if task.reply_kind is ReplyKind.SEED else result
    finally:
        runner.close()


_REPLY_KINDS = {
    "train": ReplyKind.UPDATE,
    "gradient": ReplyKind.UPDATE,
    "prox": ReplyKind.UPDATE,
    "validate": ReplyKind.METRICS,
    "build": ReplyKind.SEED,
    "startup": ReplyKind.NOTHING,
}


def _input_model(path: Path, folder: Path, bare: Suffix | None) -> tuple[Path, Weights, Suffix]:
    """The file to stage for a model that the person gave, its tensors, and its suffix."""
    from fedpkg.formats.model_file import TORCH_SUFFIXES, read_seed_model, write_model

    weights, form = read_seed_model(path, bare=bare)
    if path.suffix in TORCH_SUFFIXES or bare is not None:
        path = folder / f"model{form.suffix}"
        write_model(path, weights, form)
    return path, weights, form.suffix


def _checked_seed(result: TaskResult) -> TaskResult:
    from fedpkg.formats.model_file import read_seed_model

    if result.reply is None:
        return result
    try:
        weights, _form = read_seed_model(result.reply)
    except ModelFileError as error:
        return dataclasses.replace(result, status="failed", failure=Failure("bad_file", error.message), reply=None)
    if bad := non_finite(weights):
        failure = Failure("not_finite", f"tensor '{bad}' has NaN or infinite values")
        return dataclasses.replace(result, status="failed", failure=failure, reply=None)
    return dataclasses.replace(result, weights=weights)
