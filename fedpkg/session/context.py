"""The context that the rounds of a session need, and the errors before the first round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.analytics.node import Node
from fedpkg.analytics.policy import Policy, policy_of
from fedpkg.config import RunConfig
from fedpkg.errors import StoreError
from fedpkg.files import NO_SPACE
from fedpkg.reporting.provenance import note_start
from fedpkg.session.control import Control
from fedpkg.session.limits import isolation_of, limits_of
from fedpkg.session.node_data import nodes_of
from fedpkg.session.policed import policed
from fedpkg.session.workshop import Workshop
from fedpkg.stores.base import ClientRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore
from fedpkg.waist.executor import Executor
from fedpkg.waist.place import STATES_ELSEWHERE

if TYPE_CHECKING:
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import Watcher
    from fedpkg.dispatch.site import PackageOnDisk
    from fedpkg.formats.base import ModelForm
    from fedpkg.session.clustering import Combined


@dataclass(frozen=True)
class Running:
    """The resources of a running session. When it ends, ``held`` is closed, and with it everything started for it."""

    home: Home
    store: StateStore
    workshop: Workshop
    control: Control
    held: ExitStack
    watch: Watcher
    clock: Callable[[], float]


@contextmanager
def running(
    home: Home,
    watch: Watcher,
    control: Control | None,
    workshop: Workshop | None,
    clock: Callable[[], float],
    *,
    advice: str,
) -> Iterator[Running]:
    """Run a session in the block. If the disk is full before its first round, the error's hint ends with ``advice``."""
    control, workshop = control or Control(), workshop or Workshop(home)
    with (
        naming_a_full_disk(home, advice),
        workshop.joined(),
        open_store(home) as store,
        ExitStack() as held,
    ):
        yield Running(home, store, workshop, control, held, watch, clock)


def context_of(
    here: Running,
    session: SessionRow,
    config: RunConfig,
    package: PackageOnDisk,
    form: ModelForm,
    executor: Executor,
    tree: Combined | None,
) -> SessionContext:
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import RoundsAnnounced
    from fedpkg.samplers import make_sampler
    from fedpkg.session.coordinator import give_workplace
    from fedpkg.session.tracking import tracked
    from fedpkg.strategies import make_strategy
    from fedpkg.strategies.master import with_master

    folder = here.home.session_folder(session.session_id)
    nodes = nodes_of(config, folder)
    executor = policed(executor, nodes, here.home.root)
    # What nodes with a policy have admitted is the package, and not what the person's folder has by now.
    of_package = {"folder": str(package.folder)} if any(node.is_guarded for node in nodes.values()) else {}
    strategy = make_strategy({**config.strategy, **of_package})
    watch = here.held.enter_context(tracked(session, config, home=here.home, store=here.store, watch=here.watch))

    def announce(num_rounds: int) -> None:
        if config.rounds is None:
            here.store.announce_rounds(session.session_id, num_rounds)
            watch(RoundsAnnounced(num_rounds=num_rounds))

    def clients() -> Sequence[ClientRow]:
        return here.store.list_clients(session.session_id)

    give_workplace(
        strategy,
        session,
        config,
        here.home,
        executor,
        form,
        here.control,
        here.held,
        announce,
        clients,
        policy=_policy_of_host(nodes),
    )
    here.held.callback(note_start(here.home.session_folder(session.session_id)))
    if not executor.is_ours:
        (here.home.session_folder(session.session_id) / STATES_ELSEWHERE).touch()
    return SessionContext(
        session=session,
        config=config,
        folder=folder,
        home=here.home.root,
        spec=package.spec,
        limits=limits_of(config.limits),
        isolation=isolation_of(config),
        form=form,
        store=here.store,
        models=ModelStore(here.home.models),
        executor=executor,
        strategy=tree or (with_master(strategy) if session.rules >= 2 else strategy),
        sampler=make_sampler(config.sampler),
        clock=here.clock,
        watch=watch,
    )


def _policy_of_host(nodes: Mapping[str, Node]) -> Policy:
    """The policy of the node at which the central function of an algorithm runs."""
    host = next((nodes[name] for node in nodes.values() for name in node.initiator[:1] if name in nodes), Node())
    return policy_of(host.policy)


@contextmanager
def naming_a_full_disk(home: Home, advice: str) -> Iterator[None]:
    """Turn "no space left" into a StoreError while a session's package, data and seed model are written."""
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
