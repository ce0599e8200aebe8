"""Start a new session from a configuration.

PyTorch is imported inside the functions, after the warm interpreter was started, so that both imports run in parallel.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from fedpkg.config import RunConfig, dump_config
from fedpkg.config_shape import Places
from fedpkg.controller.events import Estimated, Preparing
from fedpkg.errors import ConfigError, EntryPointFailed
from fedpkg.formats.base import WITHOUT_MODEL
from fedpkg.log import event
from fedpkg.preflight import (
    check_clients,
    check_combiners,
    check_entry_points,
    check_evaluation,
    check_rounds,
    check_seed_model,
    suggest_isolation,
    warn_of_level,
    warn_of_same_data,
    warn_of_unread_parameters,
    warn_of_unused,
    warn_of_whole_numbers,
    with_equal_weights,
)
from fedpkg.reporting.provenance import note_origins
from fedpkg.samplers import make_sampler
from fedpkg.session.admission import admit_package, put_on_disk
from fedpkg.session.configuration import resolved
from fedpkg.session.context import Running, context_of, running
from fedpkg.session.control import Control, heeding_requests
from fedpkg.session.estimate import LARGE_CLIENTS, Known, check_disk, estimate, known_of
from fedpkg.session.former_rules import check_repeated_split
from fedpkg.session.local_data import with_local_data
from fedpkg.session.node_data import with_nodes
from fedpkg.session.policed import FILE as CALLS
from fedpkg.session.policed import Calls
from fedpkg.session.seed_model import seed_model_of
from fedpkg.session.workshop import Workshop
from fedpkg.stores.base import ClientRow, PackageRow, SessionRow
from fedpkg.stores.home import Home, stored_path
from fedpkg.stores.leftovers import mark_beginning, of_build
from fedpkg.stores.prune import remove
from fedpkg.stores.sql import StateStore
from fedpkg.strategies import make_strategy
from fedpkg.strategies.traits import traits_of

if TYPE_CHECKING:
    from fedpkg.compute_package.signing import Signature
    from fedpkg.compute_package.unpack import UnpackedPackage
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import Watcher
    from fedpkg.data.base import ClientData
    from fedpkg.dispatch.site import PackageOnDisk
    from fedpkg.formats.base import ModelForm
    from fedpkg.preflight import AnyStrategy
    from fedpkg.samplers.cohort import CohortSampler
    from fedpkg.session.clustering import Combined
    from fedpkg.waist.executor import Executor
    from fedpkg.weights.weights import Weights


logger = logging.getLogger("fedpkg.session")
_REPEATED = ("strategy", "sampler", "clients", "arguments", "run_config", "clock")  # must be equal for `replay`


def run(
    config: RunConfig,
    home: Home,
    watch: Watcher,
    control: Control | None = None,
    workshop: Workshop | None = None,
    *,
    clock: Callable[[], float] = time.time,
    origins: Mapping[str, str] = MappingProxyType({}),
) -> SessionRow:
    """Run a new session to its end in this thread. ``watch`` runs in the thread of the event: it must return quickly.

    Raises:
        FedpkgError: the session failed. Once it is in the store it can be resumed.
    """
    config = resolved(config, Places("run configuration"))
    with running(home, watch, control, workshop, clock, advice="start it again") as here:
        with here.control.holding(here.workshop.preparing):
            ctx = _begun(here, config)
        from fedpkg.controller.session import run_session

        session_id = ctx.session.session_id
        note_origins(home.session_folder(session_id), origins)
        with here.workshop.on_record(session_id), heeding_requests(home, session_id, here.control):
            return run_session(ctx)


def _begun(here: Running, config: RunConfig) -> SessionContext:
    """Prepare all that a session needs, and store the session."""
    home, store, control, clock = here.home, here.store, here.control, here.clock
    config, package, signatures = admit_package(config, home, store)
    config = with_equal_weights(_replaying(config, package, store), package)
    strategy, sampler = make_strategy(config.strategy), make_sampler(config.sampler)
    _check(config, package, strategy)
    config, of_tasks = with_local_data(config, home)
    session = _row(config, package, home.new_session_id(config.name, store, clock=clock), signatures, clock())
    here.watch(Preparing(what="the package's Python environment"))
    on_disk = put_on_disk(package, config.python_env, only_wheels=config.isolate.enabled, check=control.check)
    config = of_tasks
    folder = home.session_folder(session.session_id)
    mark = mark_beginning(folder)
    executor = here.held.enter_context(here.workshop.executor(config, on_disk, session.session_id, control))
    clients = _clients(here, config, package, strategy, sampler)
    ids = [client.client_id for client in clients]
    tree = _combined(config, clients, package)
    clients = with_nodes(config, clients, folder, package, Calls(home.root / CALLS))
    from fedpkg.controller.session import begin_session

    weights, form = None, WITHOUT_MODEL
    if traits_of(strategy).has_model:
        weights, form = _seed(here, config, on_disk, executor, session, mark, strategy)
        warn_of_whole_numbers(config, weights, ids, strategy, sampler)
        _check_shared(tree, weights)
    _estimate(here, config, len(clients), 0 if weights is None else weights.num_bytes)
    now = clock()
    store.add_package(_package_row(config, package, now))
    session = dataclasses.replace(session, created_at=now, updated_at=now)
    ctx = context_of(here, session, config, on_disk, form, executor, tree)
    begin_session(ctx, [_client_row(session, client, home) for client in clients], weights)
    remove(of_build(folder))
    return ctx


def _clients(
    here: Running, config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy, sampler: CohortSampler
) -> Sequence[ClientData]:
    """The clients with their data. Raises an error or warns about problems that are visible before the run."""
    here.watch(Preparing(what="the clients' data"))
    from fedpkg.data.clients import prepare_clients
    from fedpkg.topology.building import facts_of, shares_of

    clients = prepare_clients(
        config.clients,
        cache=here.home.data,
        seed=config.seed,
        check=here.control.check,
        isolated=config.isolate.enabled,
        shares=shares_of(config),
        facts=facts_of(config),
    )
    check_clients(config, [client.client_id for client in clients], strategy, sampler)
    warn_of_level([client.path for client in clients])
    warn_of_same_data(config, package, [client.path for client in clients])
    return clients


def _combined(config: RunConfig, clients: Sequence[ClientData], package: UnpackedPackage) -> Combined | None:
    """The tree of combiners or clusters, if there is one. Raises an error: it is wrong, or the package lacks an entry
    point.
    """
    from fedpkg.session.clustering import combined
    from fedpkg.strategies.tree import TreeStrategy
    from fedpkg.topology.building import check_needs

    found = combined(config, [client.client_id for client in clients], [client.path for client in clients])
    if found is not None:
        check_combiners(found.root, package, found.traits.entry_points)
        if isinstance(found, TreeStrategy):
            check_needs(found)
    return found


def _check_shared(tree: Combined | None, seed_model: Weights) -> None:
    """Raises ConfigError: tensors that clusters are to share do not exist."""
    from fedpkg.clusters.strategy import ClusteredStrategy

    if isinstance(tree, ClusteredStrategy):
        tree.shared_names(seed_model)


def _estimate(here: Running, config: RunConfig, num_clients: int, model_bytes: int) -> None:
    """Tell what a large session needs. Raises StoreError: the disk cannot hold it."""
    needed = estimate(config, Known(model_bytes), num_clients=num_clients)
    if needed.is_large or num_clients >= LARGE_CLIENTS:
        known = dataclasses.replace(known_of(config, here.store), model_bytes=model_bytes)
        needed = estimate(config, known, num_clients=num_clients)
        here.watch(Estimated(disk_bytes=needed.disk_bytes, num_tasks=needed.num_tasks, seconds=needed.seconds))
    check_disk(here.home, needed, "the session")


def _replaying(config: RunConfig, package: UnpackedPackage, store: StateStore) -> RunConfig:
    """The configuration, with the full id of the session that it repeats.

    Raises:
        ConfigError: this session cannot repeat that one.
    """
    if config.replay is None:
        return config
    earlier, here = store.get_session(config.replay), dump_config(config)
    check_repeated_split(earlier, config)
    compared = {"package": (package.digest, earlier.package_digest), "seed": (config.seed, earlier.seed)}
    compared |= {name: (here[name], earlier.config.get(name, here[name])) for name in _REPEATED}
    compared["data.sources"] = (config.data.sources, earlier.config.get("data", {}).get("sources", {}))
    for name, (ours, theirs) in compared.items():
        if ours != theirs:
            raise ConfigError(
                f"'replay' names session {earlier.session_id}, which has another '{name}': {theirs!r:.200}, "
                f"here {ours!r:.200}",
                hint=f"give this run the same '{name}': its requests must ask the same of the same clients",
                key="replay",
            )
    if (done := store.count_rounds(earlier.session_id, status="finished")) < (config.rounds or 1):
        raise ConfigError(
            f"'replay' names session {earlier.session_id}, which has finished {done} rounds; "
            f"this run has {config.rounds or 'any number of them'}",
            hint="run at most as many rounds as that session has finished",
            key="replay",
        )
    return msgspec.structs.replace(config, replay=earlier.session_id)


def _check(config: RunConfig, package: UnpackedPackage, strategy: AnyStrategy) -> None:
    """Raise an error or warn about problems that are visible before the run."""
    if config.tracking:
        from fedpkg.tracking.registry import check_libraries

        check_libraries(config.tracking)  # type: ignore[arg-type]  # they are resolved
    check_rounds(config, strategy)
    check_entry_points(config, package, strategy)
    check_evaluation(config, package, strategy)
    for warning in package.warnings():
        event(logger, logging.WARNING, "package.warning", about=warning)
    warn_of_unread_parameters(config.strategy["name"], package, strategy)
    warn_of_unused(config, strategy)
    suggest_isolation(config)


def _seed(
    here: Running,
    config: RunConfig,
    package: PackageOnDisk,
    executor: Executor,
    session: SessionRow,
    mark: Path,
    strategy: AnyStrategy,
) -> tuple[Weights, ModelForm]:
    """The seed model, checked against the strategy; ``mark`` is removed if building it failed, which keeps the logs."""
    folder = here.home.session_folder(session.session_id)
    if config.seed_model is None:
        here.watch(Preparing(what="the package builds its seed model"))
    try:
        weights, form, told = seed_model_of(config, package, executor, folder, session.session_id)
    except EntryPointFailed:  # its logs are in the folder, which must be kept
        mark.unlink()
        raise
    check_seed_model(config, weights, strategy, told=told)
    return weights, form


def _row(
    config: RunConfig, package: UnpackedPackage, session_id: str, signatures: Sequence[Signature], now: float
) -> SessionRow:
    return SessionRow(
        session_id=session_id,
        name=config.name,
        config=dump_config(config),
        package_digest=package.digest,
        seed=config.seed,
        num_rounds=config.rounds or 0,
        created_at=now,
        updated_at=now,
        package_contents=package.contents,
        signatures=[signature.to_json() for signature in signatures],
    )


def _package_row(config: RunConfig, package: UnpackedPackage, now: float) -> PackageRow:
    return PackageRow(
        digest=package.digest,
        name=package.top or Path(config.package).name,
        size_bytes=package.size_bytes,
        entry_points={name: entry.command for name, entry in package.spec.entry_points.items()},
        created_at=now,
    )


def _client_row(session: SessionRow, client: ClientData, home: Home) -> ClientRow:
    return ClientRow(
        session_id=session.session_id,
        client_id=client.client_id,
        position=client.partition_id,
        data_path=None if client.path is None else stored_path(client.path, home.root),
        num_examples=client.num_examples,
    )
