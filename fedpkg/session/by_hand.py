"""Call one entry point outside a session, in the same way as a session calls it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fedpkg.analytics.node import keeps_policy
from fedpkg.compute_package.algorithm import ENTRY_POINT
from fedpkg.compute_package.trust import gate
from fedpkg.compute_package.unpack import open_package
from fedpkg.config import ClientsConfig, ExecutorConfig, IsolateConfig, LimitsConfig, NeedsConfig, PythonEnv, RunConfig
from fedpkg.dispatch.site import Job, PackageOnDisk, Site
from fedpkg.dispatch.staging import own_environ
from fedpkg.errors import DispatchError, ModelFileError
from fedpkg.interpreters import folders_of, naming
from fedpkg.replies.reading import tensors_of
from fedpkg.session.admission import made_for, put_on_disk
from fedpkg.session.executors import make_executor, slots_of
from fedpkg.session.limits import isolation_of, limits_of
from fedpkg.session.local_data import with_files
from fedpkg.session.seed_model import bare_form, non_finite
from fedpkg.session.started import Started, with_started
from fedpkg.types import Json, ReplyKind
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Input, Order, ReplySpec, digest_of
from fedpkg.waist.place import Place

if TYPE_CHECKING:
    from fedpkg.formats.base import Suffix
    from fedpkg.weights.records import Records
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class Call:
    """An entry point to call, its input, and the client whose call it is.

    Args:
        folder: the only folder that is written. The task's files (logs, task.json, inputs) are in ``folder / "task"``;
            the package is unpacked beside it.
        model: the input, in any form that a seed model can have.
        environment, links: as for a run's clients; those of ``record`` take precedence.
        gpus: number of this machine's GPUs; None: the number in ``record``, else none.
        record: a task.json, which provides round, partition, parameters, names of sets, run config, environment and
            links of the call.
        started: what ``startup: once`` left for the clients of the session whose task is repeated.
        allow: allowed digests and signers, as in a run's ``trust.allow``; None: every package.
    """

    package: Path
    entry_point: str
    folder: Path
    executor: Literal["process", "forkserver", "resident"] = "process"
    model: Path | None = None
    data_path: Path | None = None
    client_id: str = "client-0"
    seed: int = 0
    timeout_s: float | None = None
    arguments: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Path] = field(default_factory=dict)
    gpus: int | None = None
    isolate: IsolateConfig = field(default_factory=IsolateConfig)
    python_env: PythonEnv = "auto"
    record: Mapping[str, Any] = field(default_factory=dict)
    allow: Sequence[str] | None = None
    seed_suffix: Suffix = ".npz"
    started: Started | None = None

    def config(self) -> RunConfig:
        """The configuration of a run that would make the same call."""
        told = {str(name): str(value) for name, value in self.record.get("environment", {}).items()}
        gpus = len(self.record.get("gpus", ())) if self.gpus is None else self.gpus
        isolate = with_files(self.isolate, told) if self.isolate.enabled else self.isolate
        return RunConfig(
            package=str(self.package),
            rounds=1,
            clients=ClientsConfig(count=1),
            executor=ExecutorConfig(name=self.executor, workers=1, needs=NeedsConfig(gpus=gpus)),
            environment={**self.environment, **told},
            isolate=isolate,
        )


@dataclass(frozen=True)
class Called:
    """The result of a call by hand.

    Args:
        reply: the file of the reply; None: there is none.
        sets: the sets of tensors in it, memory-mapped; a model is one set without a name.
        records: its contents, if it is a file of records.
    """

    job: Job
    answer: Answer
    reply: Path | None = None
    sets: Mapping[str, Weights] = field(default_factory=dict)
    records: Records | None = None

    def variables(self) -> str:
        """The assignments with which the call can be repeated in a shell."""
        found = "".join(f"{name}={shlex.quote(value)} " for name, value in own_environ(self.job).items())
        if (python := self.job.package.python) is not None:
            found += "".join(f"{name}={shlex.quote(value)} " for name, value in naming(python).items())
            if python != Path(sys.executable) or naming(python):
                found += f'PATH={":".join(map(shlex.quote, folders_of(python)))}:"$PATH" '
        return found


class _Bench(Site):
    """A site for one task, whose folders are visible to the user."""

    def place(self, order: Order, spec: ReplySpec) -> Place:
        place = super().place(order, spec)
        return Place(self.home / "task", self.home / "work", place.suffix, place.out_name)


def call_entry_point(call: Call) -> Called:
    """Call one entry point as a session would, and check its reply.

    Raises:
        FedpkgError: the package or the input cannot be used. A failure of the entry point itself is in the answer.
    """
    config = call.config()
    made = made_for(call.package) if call.entry_point == ENTRY_POINT else None
    if call.data_path is not None and keeps_policy(call.data_path):
        raise DispatchError(
            f"{call.data_path}: the node has a policy, which a call by hand does not keep: it is not counted, and may "
            "be of another algorithm",
            hint="fedpkg algorithm run",
        )
    admit = gate(call.package, call.allow)
    unpacked = open_package(call.package, call.folder / "packages", admit=admit, made=made)
    unpacked.spec.entry_point(call.entry_point)
    package = put_on_disk(unpacked, call.python_env, only_wheels=call.isolate.enabled)
    if call.started is not None:
        package = with_started(package, call.started, call.folder)
    site = _Bench(call.folder, package)
    runner = make_executor(config, site, package, call.folder / "executor", slots=slots_of(config))
    try:
        order, spec = _order(call, config, package)
        site.know(spec, order.reply_spec)
        answer = runner.submit(order).result()
        return _called(site.job(order), answer)
    finally:
        runner.close()


def _order(call: Call, config: RunConfig, package: PackageOnDisk) -> tuple[Order, ReplySpec]:
    from fedpkg.formats.records_file import is_records

    facts, bare = call.record, bare_form(config, package, call.entry_point)
    staged, template, suffix = None, None, bare or call.seed_suffix
    if call.model is not None:
        staged, template, suffix = _input_model(call.model, call.folder, bare)
    spec = _spec(call, template, suffix)
    links = {**call.links, **{str(name): target for name, target in facts.get("links", {}).items()}}
    given = None
    if staged is not None:
        names = tuple(map(str, facts.get("input_sets", ())))
        size_bytes, holds_records = staged.stat().st_size, is_records(staged)
        given = Input(reference=str(staged), size_bytes=size_bytes, sets=names, records=holds_records)
        template = None if holds_records else template
    order = Order(
        task_id=f"by-hand/{call.entry_point}",
        session_id=str(facts.get("session_id", "by-hand")),
        round_number=int(facts.get("round_number", 1)),
        client_id=call.client_id,
        entry_point=call.entry_point,
        package=package.digest,
        reply_spec=digest_of(spec),
        partition_id=int(facts.get("partition_id", 0)),
        num_partitions=int(facts.get("num_partitions", 1)),
        attributes=facts.get("attributes", {}),
        input=given,
        arguments=dict(call.arguments),
        argument_style=str(facts.get("argument_style", "")),
        parameters=facts.get("parameters", {}),
        run_config=facts.get("run_config", {}),
        environment=config.environment,
        seed=call.seed,
        data=None if call.data_path is None else str(call.data_path),
        links={name: str(target) for name, target in links.items()},
        timeout_s=call.timeout_s,
        limits=limits_of(LimitsConfig()),
        isolation=isolation_of(config),
    )
    return order, spec


def _spec(call: Call, template: Weights | None, suffix: str) -> ReplySpec:
    facts, entry_point = call.record, call.entry_point
    reply = facts.get("reply", "gradient" if entry_point == "gradient" else "weights")
    if template is not None and reply != "weights" and not facts.get("rest"):
        template = template.filter(frozenset(template.parameters).__contains__)
    sets = dict.fromkeys(map(str, facts.get("reply_sets", ())))
    recorded = facts.get("reply_kind") if facts.get("entry_point") == entry_point else None
    is_known = template is not None and not (sets or facts.get("input_sets"))  # task.json has no templates of sets
    return ReplySpec(
        kind=_kind(recorded, ReplyKind.SETS if sets else _REPLY_KINDS.get(entry_point)),
        tensors=tensors_of(template) if is_known and template is not None else None,
        reply=reply,
        sets=sets,
        weighted=bool(facts.get("weighted", True)),
        suffix=suffix,
    )


def _kind(recorded: Any, usual: ReplyKind | None) -> ReplyKind:
    """The kind of reply that the task was asked for; without a record, the usual kind of its entry point."""
    known = next((kind for kind in ReplyKind if kind.value == recorded), usual)
    return ReplyKind.RESULT if known is None else known


_REPLY_KINDS = {
    "train": ReplyKind.UPDATE,
    "gradient": ReplyKind.UPDATE,
    "prox": ReplyKind.UPDATE,
    "validate": ReplyKind.METRICS,
    "build": ReplyKind.SEED,
    "startup": ReplyKind.NOTHING,
}


def _input_model(path: Path, folder: Path, bare: Suffix | None) -> tuple[Path, Weights, Suffix]:
    """The file to stage for the model that the user gave, its tensors, and its suffix."""
    from fedpkg.formats.model_file import is_state_dict, read_seed_model, write_model

    weights, form = read_seed_model(path, bare=bare)
    if is_state_dict(path) or bare is not None:
        path = folder / f"model{form.suffix}"
        write_model(path, weights, form)
    return path, weights, form.suffix


def _called(job: Job, answer: Answer) -> Called:
    from fedpkg.formats.model_file import read_seed_model

    if answer.reply is None:
        return Called(job, answer)
    reply = job.place.reply / answer.reply.name
    if job.spec.kind in (ReplyKind.UPDATE, ReplyKind.SETS):
        return Called(job, answer, reply, job.reading.open(reply, job.sent).sets)
    if job.spec.kind is ReplyKind.RECORDS:
        return Called(job, answer, reply, records=job.reading.records(reply))
    if job.spec.kind is not ReplyKind.SEED:
        return Called(job, answer, reply, records=_records_in(reply))
    try:
        weights, _form = read_seed_model(reply)
    except ModelFileError as error:
        return Called(job, _failed(answer, Failure("bad_file", error.message)))
    if bad := non_finite(weights):
        return Called(job, _failed(answer, Failure("not_finite", f"tensor '{bad}' has NaN or infinite values")))
    return Called(job, answer, reply, {"": weights})


def _records_in(reply: Path) -> Records | None:
    """The contents of an opaque file, if it is a file of records."""
    from fedpkg.formats.records_file import is_records, read_records

    try:
        return read_records(reply) if is_records(reply) else None
    except ModelFileError:
        return None


def _failed(answer: Answer, failure: Failure) -> Answer:
    return msgspec.structs.replace(answer, status="failed", failure=failure, reply=None)
