"""Resume a session.

PyTorch is imported inside the functions, after the warm interpreter was started, so that both imports run in parallel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpkg.config import RunConfig, dump_config
from fedpkg.config_reading import config_from_json
from fedpkg.config_shape import Places
from fedpkg.controller.events import Preparing
from fedpkg.errors import ConfigError, DataError
from fedpkg.files import sha256_file
from fedpkg.log import event
from fedpkg.registry import OF_FILE
from fedpkg.reporting.provenance import note_origins
from fedpkg.session.admission import package_again, put_on_disk
from fedpkg.session.context import Running, context_of, running
from fedpkg.session.control import Control, heeding_requests
from fedpkg.session.former_rules import by_its_rules, check_former_shares, check_former_sums, check_rules
from fedpkg.session.local_data import with_local_data
from fedpkg.session.workshop import Workshop
from fedpkg.stores.base import ClientRow, ModelRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.leftovers import of_rounds
from fedpkg.stores.prune import remove
from fedpkg.stores.sql import StateStore

if TYPE_CHECKING:
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import Watcher
    from fedpkg.dispatch.site import PackageOnDisk
    from fedpkg.types import Json
    from fedpkg.waist.executor import Executor


logger = logging.getLogger("fedpkg.session")


def resume(
    ref: str,
    home: Home,
    watch: Watcher,
    control: Control | None = None,
    workshop: Workshop | None = None,
    *,
    rounds: int | None = None,
    tracking: Sequence[Json] | None = None,
    clock: Callable[[], float] = time.time,
) -> SessionRow:
    """Resume a session that was killed, interrupted, stopped or failed.

    Args:
        rounds: a new total number of rounds.
        tracking: other trackers, as in a run.yaml. They get the rounds that are finished already, too.

    Raises:
        NotFound: no such session.
        FedpkgError: the session failed again.
    """
    with running(home, watch, control, workshop, clock, advice=f"fedpkg session resume {ref}") as here:
        store, control, workshop = here.store, here.control, here.workshop
        with control.holding(workshop.preparing):
            session = store.get_session(ref)
            store.withdraw_stop(session.session_id)
            remove(of_rounds(home, store, session))  # only its own: other sessions may be running
            here.held.enter_context(workshop.on_record(session.session_id))
            here.held.enter_context(heeding_requests(home, session.session_id, control))
            config = config_from_json(by_its_rules(session))
            check_rules(session, config)
            unpacked = package_again(config, home, session)
            warn_of_other_files(config)
            if rounds is not None or tracking is not None:
                config = _changed(config, session, home, store, rounds, tracking)
            watch(Preparing(what="the package's Python environment"))
            package = put_on_disk(unpacked, config.python_env, only_wheels=config.isolate.enabled, check=control.check)
            check_data(home, store.list_clients(session.session_id), config)
            _, config = with_local_data(config, home)
            executor = here.held.enter_context(
                workshop.executor(config, package, session.session_id, control, is_on_record=True)
            )
            from fedpkg.controller.session import run_session

            ctx = _context(here, session, config, package, executor)
        return run_session(ctx)


def _context(
    here: Running, session: SessionRow, config: RunConfig, package: PackageOnDisk, executor: Executor
) -> SessionContext:
    from fedpkg.formats.base import WITHOUT_MODEL, ModelForm
    from fedpkg.session.clustering import combined

    seed = next((row for row in here.store.list_models(session.session_id, limit=1) if row.round_number == 0), None)
    form = WITHOUT_MODEL if seed is None else ModelForm(seed.suffix, seed.keys)  # type: ignore[arg-type]
    clients = here.store.list_clients(session.session_id)
    data = [None if client.data_path is None else here.home.root / client.data_path for client in clients]
    tree = combined(config, [client.client_id for client in clients], data)
    ctx = context_of(here, session, config, package, form, executor, tree)
    _check_still_without(ctx, seed)
    if session.rules < 2 and seed is not None:
        check_former_shares(ctx, seed)
    if session.rules < 3:
        check_former_sums(ctx)
    return ctx


def _changed(
    config: RunConfig,
    session: SessionRow,
    home: Home,
    store: StateStore,
    rounds: int | None,
    tracking: Sequence[Json] | None,
) -> RunConfig:
    """Record the total number of rounds, and the trackers, in the session's row; the configuration with them."""
    rounds = config.rounds if rounds is None else rounds
    if rounds is not None and rounds < (begun := store.count_rounds(session.session_id)):
        raise ConfigError(f"session {session.session_id} has started {begun} rounds; it cannot end after {rounds}")
    changes: dict[str, Json] = {"rounds": rounds}
    if tracking is not None:
        from fedpkg.tracking.registry import check_libraries, resolve_tracking

        found = resolve_tracking(tracking, Places("on the command line"))
        check_libraries(found)
        changes["tracking"] = list(found)
    before = dump_config(config)
    note_origins(
        home.session_folder(session.session_id),
        {key: "resume" for key, value in changes.items() if value != before[key]},
    )
    config = config_from_json({**before, **changes})
    store.extend_session(session.session_id, dump_config(config), rounds or session.num_rounds)
    return config


def _check_still_without(ctx: SessionContext, seed: ModelRow | None) -> None:
    """Raises ConfigError: the session has a model and its strategy now has none, or vice versa."""
    if ctx.traits.has_model != (seed is not None):
        raise ConfigError(
            f"session {ctx.session.session_id} started with{'out' * (seed is None)} a model, and its strategy now has "
            f"{'one' if ctx.traits.has_model else 'none'}",
            hint="revert the change of the strategy, or start a new run",
        )


def check_data(home: Home, clients: list[ClientRow], config: RunConfig) -> None:
    """Raise DataError if a client's data is gone, or the dataset or its split is not that of the beginning."""
    for client in clients:
        if client.data_path is not None and not (home.root / client.data_path).exists():
            raise DataError(
                f"the data of {client.client_id} does not exist any more: {home.root / client.data_path}",
                hint="put it back, or start a new run",
                client_id=client.client_id,
            )
    divided = []
    if config.topology is not None:
        from fedpkg.topology.building import shares_of

        divided = [(share.data, share.clients[0]) for share in shares_of(config)]
    paths = {client.client_id: client.data_path for client in clients}
    if not divided and config.clients.data is not None and clients:
        divided = [(config.clients.data, clients[0].client_id)]
    for data, name in divided:
        if (path := paths[name]) is not None:
            from fedpkg.data.split import check_split

            check_split(data, (home.root / path).parent)


def warn_of_other_files(config: RunConfig) -> None:
    for kind, section in (("strategy", config.strategy), ("sampler", config.sampler)):
        file, digest = (section.get(key) for key in OF_FILE)
        if isinstance(file, str) and digest is not None and Path(file).is_file() and sha256_file(Path(file)) != digest:
            about = f"{file} has changed; the session continues with the new file. To use one version in all rounds, "
            event(logger, logging.WARNING, f"{kind}.changed", about=about + "start a new run")
