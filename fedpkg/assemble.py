"""From a configuration to a running session. The one place that knows every layer.

PyTorch is imported inside the functions, after the warm interpreter was started: the two imports then run side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fedpkg.compute_package.inspect import package_warnings
from fedpkg.compute_package.review import script_of
from fedpkg.compute_package.signing import Signature
from fedpkg.compute_package.trust import admit_again, gate, resolve_allowed
from fedpkg.compute_package.unpack import UnpackedPackage, find_package, open_package
from fedpkg.config import (
    ClientsConfig,
    ExecutorConfig,
    IsolateConfig,
    LimitsConfig,
    LoadedConfig,
    NeedsConfig,
    PythonEnv,
    RunConfig,
    config_from_json,
    dump_config,
    load_config,
)
from fedpkg.config_shape import Places
from fedpkg.controller.events import ExecutorStarted, Preparing
from fedpkg.devices import VISIBLE, Needs, Slot, plan_slots, this_machine
from fedpkg.dispatch.base import Executor, Failure, PackageOnDisk, Task, TaskResult, told_in
from fedpkg.dispatch.command import without_container
from fedpkg.dispatch.isolation import isolation_of
from fedpkg.dispatch.limits import limits_of
from fedpkg.errors import (
    ConfigError,
    DataError,
    EntryPointFailed,
    Interrupted,
    ModelFileError,
    PackageError,
    StoreError,
)
from fedpkg.files import NO_SPACE, sha256_file
from fedpkg.log import event
from fedpkg.preflight import (
    check_clients,
    check_entry_points,
    check_seed_model,
    suggest_isolation,
    warn_of_unread_parameters,
    warn_of_unused,
    warn_of_whole_numbers,
)
from fedpkg.rules import refusal
from fedpkg.shares import Rounding, share_of
from fedpkg.stores.base import ClientRow, ModelRow, PackageRow, SessionRow, StateStore
from fedpkg.stores.home import Home
from fedpkg.stores.leftovers import mark_beginning, of_build, sweep
from fedpkg.stores.models import ModelStore
from fedpkg.stores.prune import remove
from fedpkg.stores.sqlite import SqliteStore
from fedpkg.types import Json, ReplyKind

if TYPE_CHECKING:
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import Watcher
    from fedpkg.formats.base import ModelForm, Suffix
    from fedpkg.weights.weights import Weights

logger = logging.getLogger("fedpkg.assemble")


def load(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """A run.yaml with everything in it checked, also what a strategy's name lets its section hold.

    Raises:
        ConfigError: see `fedpkg.config.load_config`.
    """
    return load_config(path, overrides, resolve=resolved)


def resolved(config: RunConfig, places: Places) -> RunConfig:
    """A configuration with the sections checked and completed whose keys depend on a name in them.

    Raises:
        ConfigError: there is no such name, parameter or value.
    """
    from fedpkg.samplers import resolve_sampler
    from fedpkg.strategies import resolve_strategy

    strategy, sampler = resolve_strategy(config.strategy, places), resolve_sampler(config.sampler, places)
    return msgspec.structs.replace(config, strategy=strategy, sampler=sampler)


def run(config: RunConfig, home: Home, *, watch: Watcher, clock: Callable[[], float] = time.time) -> SessionRow:
    """Run a new session to its end.

    Raises:
        FedpkgError: what stopped it. From the moment the session is in the store it can be resumed.
    """
    from fedpkg.samplers import make_sampler
    from fedpkg.strategies import make_strategy

    config = resolved(config, Places("run configuration"))
    with home.lock() as note_session, SqliteStore(home.state_db) as store, _naming_a_full_disk(home, "start it again"):
        sweep(home, store)
        config, package, signatures = _admit_package(config, home, store)
        strategy, sampler = make_strategy(config.strategy), make_sampler(config.sampler)
        check_entry_points(config, package, strategy)
        for warning in package_warnings(package):
            event(logger, logging.WARNING, "package.warning", about=warning)
        warn_of_unread_parameters(config, package, strategy)
        warn_of_unused(config, strategy)
        suggest_isolation(config)
        session_id = home.new_session_id(config.name, store, clock=clock)
        folder = home.session_folder(session_id)
        watch(Preparing("the package's Python environment"))
        on_disk = _on_disk(package, config.python_env, only_wheels=config.isolate.enabled)
        mark = mark_beginning(folder)
        with _executor(config, on_disk, folder) as executor:
            watch(ExecutorStarted(lambda: executor.is_warming))
            watch(Preparing("the clients' data"))
            from fedpkg.controller.session import begin_session
            from fedpkg.data.clients import prepare_clients

            clients = prepare_clients(config.clients, cache=home.data, seed=config.seed)
            check_clients(config, [client.client_id for client in clients], strategy, sampler)
            if config.seed_model is None:
                watch(Preparing("the package builds its seed model"))
            try:
                weights, form, told = _seed_model(config, on_disk, executor, folder, session_id)
            except EntryPointFailed:  # its logs are in the folder, which must stay
                mark.unlink()
                raise
            check_seed_model(config, weights, strategy, told=told)
            warn_of_whole_numbers(config, weights, [client.client_id for client in clients], strategy, sampler)
            now = clock()
            entry_points = {name: entry.command for name, entry in package.spec.entry_points.items()}
            store.add_package(
                PackageRow(
                    digest=package.digest,
                    name=package.top or Path(config.package).name,
                    size_bytes=package.size_bytes,
                    entry_points=entry_points,
                    created_at=now,
                )
            )
            session = SessionRow(
                session_id=session_id,
                name=config.name,
                config=dump_config(config),
                package_digest=package.digest,
                seed=config.seed,
                num_rounds=config.rounds,
                created_at=now,
                updated_at=now,
                package_contents=package.contents,
                signatures=[signature.to_json() for signature in signatures],
            )
            rows = [
                ClientRow(
                    session_id=session_id,
                    client_id=client.client_id,
                    position=client.partition_id,
                    data_path=None if client.path is None else _below(home, client.path),
                    num_examples=client.num_examples,
                )
                for client in clients
            ]
            ctx = _context(session, config, home, store, on_disk, form, executor, watch=watch, clock=clock)
            begin_session(ctx, rows, weights)
            note_session(session_id)
            remove(of_build(folder))
            return _run(ctx)


def resume(
    ref: str, home: Home, *, watch: Watcher, rounds: int | None = None, clock: Callable[[], float] = time.time
) -> SessionRow:
    """Go on with a session that was killed, interrupted, stopped or failed; with ``rounds``, up to so many in all.

    Raises:
        NotFound: no such session.
        FedpkgError: what stopped it again.
    """
    advice = f"fedpkg session resume {ref}"
    with home.lock() as note_session, SqliteStore(home.state_db) as store, _naming_a_full_disk(home, advice):
        sweep(home, store)
        session = store.get_session(ref)
        note_session(session.session_id)
        config = config_from_json(_by_its_rules(session))
        _check_rules(session, config)
        unpacked = _package_again(config, home, session)
        _warn_of_other_files(config)
        if rounds is not None:
            if rounds < (begun := len(store.list_rounds(session.session_id))):
                raise ConfigError(
                    f"session {session.session_id} has begun {begun} rounds; it cannot end after {rounds}"
                )
            config = config_from_json({**dump_config(config), "rounds": rounds})
            store.extend_session(session.session_id, dump_config(config), rounds)
        watch(Preparing("the package's Python environment"))
        package = _on_disk(unpacked, config.python_env, only_wheels=config.isolate.enabled)
        _check_data(home, store.list_clients(session.session_id))
        with _executor(config, package, home.session_folder(session.session_id), session.session_id) as executor:
            watch(ExecutorStarted(lambda: executor.is_warming))
            from fedpkg.formats.base import ModelForm

            seed = store.get_model(f"{session.session_id}.0")
            form = ModelForm(seed.suffix, seed.keys)  # type: ignore[arg-type]  # written by ourselves
            ctx = _context(session, config, home, store, package, form, executor, watch=watch, clock=clock)
            if session.rules < 2:
                _check_former_shares(ctx, seed)
            return _run(ctx)


@contextmanager
def _naming_a_full_disk(home: Home, advice: str) -> Iterator[None]:
    """For what is written before a session runs: its package, its data, its seed."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise StoreError(
            f"the disk of the home {home.root} is full: {error}",
            hint=f"free space (`fedpkg home prune` helps), then {advice}",
            path=str(home.root),
        ) from error


def _admit_package(
    config: RunConfig, home: Home, store: StateStore
) -> tuple[RunConfig, UnpackedPackage, tuple[Signature, ...]]:
    """The run's package, if its ``trust`` allows it; the configuration with signers instead of the files of their keys.

    Its digest decides before anything of it is parsed.
    """
    trust = config.trust
    signatures: list[Signature] = []
    if trust.allow is not None:
        trust = msgspec.structs.replace(trust, allow=resolve_allowed(trust.allow))
        config = msgspec.structs.replace(config, trust=trust)
    check = gate(Path(config.package), trust.allow, signature=trust.signature)
    package = open_package(
        Path(config.package),
        home.packages,
        max_bytes=config.limits.package_bytes,
        max_members=config.limits.package_members,
        admit=lambda digest: signatures.extend(check(digest)),
        on_record={row.package_digest: row.package_contents for row in store.list_sessions() if row.package_contents},
    )
    return config, package, tuple(signatures)


def _package_again(config: RunConfig, home: Home, session: SessionRow) -> UnpackedPackage:
    """The package that a session began with: the archive mends the cache if it is still the same one."""
    admit_again(session.package_digest, config.trust.allow, session.signatures)
    digests: list[str] = []  # of what lies where the package was

    def is_same(digest: str) -> None:
        digests.append(digest)
        if digest != session.package_digest:
            raise PackageError("another package")

    with contextlib.suppress(PackageError):  # moved away, changed, or just being edited
        return open_package(
            Path(config.package),
            home.packages,
            max_bytes=config.limits.package_bytes,
            max_members=config.limits.package_members,
            admit=is_same,
            on_record={session.package_digest: session.package_contents},
        )
    if digests and digests != [session.package_digest]:
        event(
            logger,
            logging.WARNING,
            "package.changed",
            about=f"{config.package} has changed; the session goes on with the package as it was. For the changed one, "
            "start a new run",
        )
    return find_package(session.package_digest, home.packages, contents=session.package_contents)


def _check_rules(session: SessionRow, config: RunConfig) -> None:
    """Refuse a session whose results this version would compute in another way."""
    if reason := refusal(session.rules, str(config.strategy["name"])):
        raise _cannot_resume(session, reason)


def _cannot_resume(session: SessionRow, reason: str) -> ConfigError:
    return ConfigError(
        f"session {session.session_id} cannot be resumed: {reason}",
        hint=f"start a new session from its last model: fedpkg model export {session.session_id} -o seed.npz, then "
        "fedpkg run … --seed-model seed.npz; or resume it with the version that began it",
        key="strategy",
    )


def _by_its_rules(session: SessionRow) -> dict[str, Json]:
    """A session's configuration, with what sections of former rules must say to mean what they did."""
    if session.rules < 2:
        for section in _sections(session.config["strategy"]):
            if section.get("name") in ("trimmed_mean", "fedtrimmedavg"):
                section.setdefault("leeway", 0.0)
    return session.config


def _check_former_shares(ctx: SessionContext, seed: ModelRow) -> None:
    """Refuse a session of rules below 2 that counted a share of clients or tensors in another way than now."""
    from fedpkg.controller.session import read_stored_model

    sizes = (ctx.sampler.size, *ctx.sampler.groups.values())
    counts = range(len(ctx.store.list_clients(ctx.session.session_id)) + 1)
    of_clients: list[tuple[float, Rounding]] = [(size.fraction or 0.0, "nearest") for size in sizes]
    of_clients += [(size.over_selection, "up") for size in sizes]
    changed = [
        share
        for share, how in of_clients
        for n in counts
        if share_of(share, n, how) != share_of(share, n, how, leeway=0)
    ]
    sections = [one for one in _sections(ctx.config.strategy) if one.get("name") in ("top_k", "random_k")]
    if sections:
        model = read_stored_model(ctx, seed)
        n = sum(model[name].numel() * (2 if model[name].is_complex() else 1) for name in model.parameters)
        changed += [one["share"] for one in sections if round(one["share"] * n) != share_of(one["share"], n)]
    if changed:
        raise _cannot_resume(
            ctx.session, f"it was begun by an older version of fedpkg, which rounded the share {changed[0]} otherwise"
        )


def _sections(value: Any) -> Iterator[dict[str, Any]]:
    """All sections of a configuration, also those in others."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from _sections(part)


def _warn_of_other_files(config: RunConfig) -> None:
    for kind, section in (("strategy", config.strategy), ("sampler", config.sampler)):
        file, digest = section.get("file"), section.get("file_sha256")
        if isinstance(file, str) and digest is not None and Path(file).is_file() and sha256_file(Path(file)) != digest:
            about = f"{file} has changed; the session goes on with it as it is now. For rounds of one kind, "
            event(logger, logging.WARNING, f"{kind}.changed", about=about + "start a new run")


def _below(home: Home, path: Path) -> str:
    """A path as it is stored: relative to the home where it lies below it, so that a home may be moved."""
    return str(path.relative_to(home.root)) if path.is_relative_to(home.root) else str(path)


def _check_data(home: Home, clients: list[ClientRow]) -> None:
    for client in clients:
        if client.data_path is not None and not (home.root / client.data_path).exists():
            raise DataError(
                f"the data of {client.client_id} is gone: {home.root / client.data_path}",
                hint="put it back, or start a new run",
                client_id=client.client_id,
            )


def _run(ctx: SessionContext) -> SessionRow:
    from fedpkg.controller.session import run_session

    return run_session(ctx)


def make_executor(config: RunConfig, package: PackageOnDisk, log_folder: Path, *, slots: Sequence[Slot]) -> Executor:
    """The executor that a configuration names."""
    options: dict[str, Any] = {"slots": slots, "environment": config.environment, "log_folder": log_folder}
    isolated = isolation_of(config) is not None
    if config.executor.name == "process":
        from fedpkg.dispatch.process import process_executor

        return process_executor(**options, isolated=isolated)
    if config.executor.name == "resident":
        from fedpkg.dispatch.resident import resident_executor

        return resident_executor(**options, package=package)
    from fedpkg.dispatch.forkserver import forkserver_executor

    return forkserver_executor(**options, package=package, isolated=isolated)


@contextmanager
def _executor(
    config: RunConfig, package: PackageOnDisk, folder: Path, session_id: str | None = None
) -> Iterator[Executor]:
    """The run's executor, closed in the end. ``session_id``: of a session that is on record already."""
    slots = _slots(config, or_fewer=session_id is not None)
    executor = make_executor(config, package, folder / "executor", slots=slots)
    try:
        yield executor
    except KeyboardInterrupt:
        if session_id is not None:
            raise Interrupted(
                f"interrupted before session {session_id} went on", hint=f"fedpkg session resume {session_id}"
            ) from None
        raise Interrupted("interrupted before the session began; nothing was recorded") from None
    finally:
        executor.close()


def _slots(config: RunConfig, *, or_fewer: bool = False) -> list[Slot]:
    """The run's slots on this machine. ``or_fewer``: for want of GPUs a session goes on more slowly; its bits stay."""
    wanted, asked = config.executor.needs, config.executor.workers
    needs = Needs(config.executor.threads, wanted.gpus, wanted.memory_bytes, wanted.gpu_memory_bytes)
    machine = this_machine(with_gpus=wanted.gpus > 0)
    slots = plan_slots(machine, needs, asked, or_fewer=or_fewer)
    if asked != "auto" and len(slots) < asked:
        reason = f"executor.workers is {asked}; the GPUs that are free hold {len(slots)} tasks"
        event(logger, logging.WARNING, "executor.fewer", reason=reason)
    if (needs.memory_bytes or 0) * len(slots) > machine.free_bytes:
        reason = "executor.workers times executor.needs.memory_bytes is more memory than is free"
        event(logger, logging.WARNING, "executor.memory", reason=reason)
    if wanted.gpus:
        where = " ".join(f"{slot.number}:{slot.environment[VISIBLE]}" for slot in slots)
        event(logger, logging.INFO, "executor.gpus", slots=where)
    return slots


def _context(
    session: SessionRow,
    config: RunConfig,
    home: Home,
    store: StateStore,
    package: PackageOnDisk,
    form: ModelForm,
    executor: Executor,
    *,
    watch: Watcher,
    clock: Callable[[], float],
) -> SessionContext:
    from fedpkg.controller.context import SessionContext
    from fedpkg.samplers import make_sampler
    from fedpkg.strategies import make_strategy
    from fedpkg.strategies.master import with_master

    strategy = make_strategy(config.strategy)
    return SessionContext(
        session=session,
        config=config,
        folder=home.session_folder(session.session_id),
        home=home.root,
        package=package,
        form=form,
        store=store,
        models=ModelStore(home.models),
        executor=executor,
        strategy=with_master(strategy) if session.rules >= 2 else strategy,
        sampler=make_sampler(config.sampler),
        clock=clock,
        watch=watch,
    )


def _on_disk(package: UnpackedPackage, python_env: PythonEnv, *, only_wheels: bool) -> PackageOnDisk:
    """The package as it is run, with its interpreter; making an environment for it may take minutes."""
    from fedpkg.environments.choose import choose_python

    entry_points = {
        name: dataclasses.replace(entry_point, command=without_container(entry_point.command))
        for name, entry_point in package.spec.entry_points.items()
    }
    spec = dataclasses.replace(package.spec, entry_points=entry_points)
    scripts = [script_of(entry_point.command) for entry_point in entry_points.values()]
    python = choose_python(
        package.folder,
        python_env,
        package=package.top or package.digest[:12],
        python_env=spec.python_env,
        scripts=[script for script in scripts if script is not None],
        only_wheels=only_wheels,
    )
    return PackageOnDisk(package.digest, package.root, package.folder, spec, python)


def _seed_model(
    config: RunConfig, package: PackageOnDisk, executor: Executor, folder: Path, session_id: str
) -> tuple[Weights, ModelForm, bool]:
    """The configured seed model, or the one that the package's build entry point makes; are its buffers told?"""
    from fedpkg.formats.buffers import are_told
    from fedpkg.formats.model_file import read_seed_model

    path = (
        Path(config.seed_model)
        if config.seed_model is not None
        else build_seed(config, package, executor, folder, session_id)
    )
    weights, form = read_seed_model(path, buffers=config.buffers, bare=_bare_form(config, package))
    if bad := _non_finite(weights):
        raise ConfigError(
            f"seed model {path}: tensor '{bad}' has NaN or infinite values",
            hint="if it is a constant of the module (a causal mask), keep it out of the file by register_buffer(…, "
            f'persistent=False), or say that it is a buffer: buffers: ["{bad}"] in the run.yaml',
        )
    return weights, form, are_told(weights, path, patterns=config.buffers)


def _non_finite(seed_model: Weights) -> str | None:
    """The first tensor that is not finite; constant buffers may be (a causal mask), running statistics may not."""
    from fedpkg.formats.buffers import usual_buffers
    from fedpkg.weights.weights import Weights

    statistics = frozenset(usual_buffers(seed_model))
    return seed_model.first_non_finite(Weights(seed_model, buffers=seed_model.buffers - statistics))


def _bare_form(config: RunConfig, package: PackageOnDisk) -> Suffix | None:
    """The suffix of model files that do not say themselves what they are, if the run or the package asks for such."""
    from fedpkg.dispatch.forkserver import scripts_of
    from fedpkg.dispatch.imports import helper_named
    from fedpkg.formats.base import BARE

    return BARE.get(config.helper or helper_named(package.folder, scripts_of(package)) or "")


def build_seed(config: RunConfig, package: PackageOnDisk, executor: Executor, folder: Path, session_id: str) -> Path:
    """Run the build entry point; the model file that it wrote.

    Raises:
        EntryPointFailed: it failed; with the end of its log.
        StoreError: … because the disk is full.
    """
    task = Task(
        task_id=f"{session_id}/build",
        session_id=session_id,
        round_number=0,
        client_id="",
        entry_point="build",
        package=package,
        reply_kind=ReplyKind.SEED,
        folder=folder / "build",
        next_state=folder / "build.work",
        suffix=_bare_form(config, package) or ".npz",
        seed=config.seed,
        arguments=config.arguments.get("build", {}),
        run_config=config.run_config,
        environment=config.environment,
        threads=config.executor.threads,
        timeout_s=config.executor.timeout_s,
        limits=limits_of(config.limits),
        isolation=isolation_of(config),
        log_bytes=config.limits.log_bytes,
    )
    result = executor.submit(task).result()
    if result.failure is not None and result.failure.kind == "no_space":
        raise StoreError(
            f"the disk of {folder} is full: build failed ({result.failure.message}); nothing was recorded",
            hint="free space (`fedpkg home prune` helps), then start it again",
            path=str(folder),
        )
    if result.reply is None:
        raise entry_point_failed(result, hint=_build_by_hand(config, f"seed{task.suffix}"))
    return result.reply


def _build_by_hand(config: RunConfig, output: str) -> str:
    gpus = f" --gpus {math.ceil(config.executor.needs.gpus)}" if config.executor.needs.gpus else ""
    isolate = " --isolate" if config.isolate.enabled else ""
    env = "" if config.python_env == "auto" else f" --env {config.python_env}"
    return f"fedpkg package call {shlex.quote(config.package)} build --output {output}{gpus}{env}{isolate}"


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
    on_disk = _on_disk(unpacked, python_env, only_wheels=isolate is not None and isolate.enabled)
    config = RunConfig(
        package=str(package),
        rounds=1,
        clients=ClientsConfig(count=1),
        executor=ExecutorConfig(name=executor, workers=1, needs=NeedsConfig(gpus=gpus)),
        environment=environment,
        isolate=isolate or IsolateConfig(),
    )
    runner = make_executor(config, on_disk, folder / "executor", slots=_slots(config))
    try:
        bare = _bare_form(config, on_disk)
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
    if bad := _non_finite(weights):
        failure = Failure("not_finite", f"tensor '{bad}' has NaN or infinite values")
        return dataclasses.replace(result, status="failed", failure=failure, reply=None)
    return dataclasses.replace(result, weights=weights)


def entry_point_failed(result: TaskResult, *, hint: str | None, tail_lines: int = 8) -> EntryPointFailed:
    """The error for a call that failed: what, its command, and the end of its log."""
    message = result.failure.message if result.failure else result.status
    lines = [message, f"    command  {result.command}"]
    tail = result.log_tail.splitlines()[-tail_lines:]
    log = told_in(result.task.folder, message)
    stream = log.name.split(".")[-2]
    if tail:
        lines += [f"    {stream}   {log}, last lines:", *(f"             {line}" for line in tail)]
    elif log.exists():
        lines.append(f"    {stream}   {log} (nothing was written)")
    return EntryPointFailed(
        "\n".join(lines),
        hint=hint,
        entry_point=result.task.entry_point,
        failure=result.failure.kind if result.failure else None,
        exit_status=result.exit_code,
        command=result.command,
        folder=str(result.task.folder),
        log_tail=result.log_tail,
    )
