"""From a configuration to a running session.

PyTorch is imported inside the functions, after the warm interpreter was started: the two imports then run side by side.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.compute_package.inspect import package_warnings
from fedpkg.config import RunConfig, dump_config
from fedpkg.config_shape import Places
from fedpkg.controller.events import Preparing
from fedpkg.errors import EntryPointFailed
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
from fedpkg.session.admission import admit_package, put_on_disk
from fedpkg.session.configuration import resolved
from fedpkg.session.context import context_of, naming_a_full_disk
from fedpkg.session.control import Control, heeding_requests
from fedpkg.session.executors import running_executor
from fedpkg.session.seed_model import seed_model_of
from fedpkg.stores.base import ClientRow, PackageRow, SessionRow
from fedpkg.stores.home import Home, stored_path
from fedpkg.stores.leftovers import mark_beginning, of_build, sweep
from fedpkg.stores.opening import open_store
from fedpkg.stores.prune import remove

if TYPE_CHECKING:
    from fedpkg.controller.events import Watcher


logger = logging.getLogger("fedpkg.session")


def run(
    config: RunConfig,
    home: Home,
    watch: Watcher,
    control: Control | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> SessionRow:
    """Run a new session to its end, in this thread. ``watch`` is called where an event happens, and must not linger.

    Raises:
        FedpkgError: what stopped it. From the moment the session is in the store it can be resumed.
    """
    from fedpkg.samplers import make_sampler
    from fedpkg.strategies import make_strategy

    config = resolved(config, Places("run configuration"))
    control = control or Control()
    with home.lock() as note_session, open_store(home) as store, naming_a_full_disk(home, "start it again"):
        sweep(home, store)
        config, package, signatures = admit_package(config, home, store)
        strategy, sampler = make_strategy(config.strategy), make_sampler(config.sampler)
        check_entry_points(config, package, strategy)
        for warning in package_warnings(package):
            event(logger, logging.WARNING, "package.warning", about=warning)
        warn_of_unread_parameters(config, package, strategy)
        warn_of_unused(config, strategy)
        suggest_isolation(config)
        session_id = home.new_session_id(config.name, store, clock=clock)
        folder = home.session_folder(session_id)
        watch(Preparing(what="the package's Python environment"))
        on_disk = put_on_disk(package, config.python_env, only_wheels=config.isolate.enabled)
        mark = mark_beginning(folder)
        with running_executor(config, home.root, on_disk, folder, control) as executor:
            watch(Preparing(what="the clients' data"))
            from fedpkg.controller.session import begin_session, run_session
            from fedpkg.data.clients import prepare_clients

            clients = prepare_clients(config.clients, cache=home.data, seed=config.seed)
            check_clients(config, [client.client_id for client in clients], strategy, sampler)
            if config.seed_model is None:
                watch(Preparing(what="the package builds its seed model"))
            try:
                weights, form, told = seed_model_of(config, on_disk, executor, folder, session_id)
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
                    data_path=None if client.path is None else stored_path(client.path, home.root),
                    num_examples=client.num_examples,
                )
                for client in clients
            ]
            ctx = context_of(session, config, home, store, on_disk.spec, form, executor, watch=watch, clock=clock)
            begin_session(ctx, rows, weights)
            note_session(session_id)
            remove(of_build(folder))
            with heeding_requests(home, session_id, control):
                return run_session(ctx)
