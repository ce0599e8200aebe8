"""What the rounds of a session need, put together; and what goes wrong before there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fedpkg.config import RunConfig
from fedpkg.errors import StoreError
from fedpkg.files import NO_SPACE
from fedpkg.session.control import Control
from fedpkg.session.limits import isolation_of, limits_of
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.sql import StateStore
from fedpkg.waist.executor import Executor
from fedpkg.waist.place import STATES_ELSEWHERE

if TYPE_CHECKING:
    from fedpkg.compute_package.spec import PackageSpec
    from fedpkg.controller.context import SessionContext
    from fedpkg.controller.events import Watcher
    from fedpkg.formats.base import ModelForm


def context_of(
    session: SessionRow,
    config: RunConfig,
    home: Home,
    store: StateStore,
    spec: PackageSpec,
    form: ModelForm,
    executor: Executor,
    *,
    control: Control,
    held: ExitStack,
    watch: Watcher,
    clock: Callable[[], float],
) -> SessionContext:
    """``held`` is left when the session ends, and with it what only runs for it."""
    from fedpkg.controller.context import SessionContext
    from fedpkg.samplers import make_sampler
    from fedpkg.session.coordinator import give_workplace
    from fedpkg.strategies import make_strategy
    from fedpkg.strategies.master import with_master

    strategy = make_strategy(config.strategy)
    give_workplace(strategy, session, config, home, form, control, held)
    if not executor.is_ours:
        (home.session_folder(session.session_id) / STATES_ELSEWHERE).touch()
    return SessionContext(
        session=session,
        config=config,
        folder=home.session_folder(session.session_id),
        home=home.root,
        spec=spec,
        limits=limits_of(config.limits),
        isolation=isolation_of(config),
        form=form,
        store=store,
        models=ModelStore(home.models),
        executor=executor,
        strategy=with_master(strategy) if session.rules >= 2 else strategy,
        sampler=make_sampler(config.sampler),
        clock=clock,
        watch=watch,
    )


@contextmanager
def naming_a_full_disk(home: Home, advice: str) -> Iterator[None]:
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
