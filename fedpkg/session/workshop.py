"""Sessions of one home that run at the same time: they hold its lock together and share one executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from fedpkg.config import RunConfig
from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.errors import ConfigError
from fedpkg.session import executors
from fedpkg.session.control import Control, Guarded, interrupted
from fedpkg.stores.home import Home
from fedpkg.stores.leftovers import sweep
from fedpkg.stores.opening import open_store
from fedpkg.waist.executor import Executor


class Workshop:
    """Sessions join it while they run. The first one takes the home's lock and creates the executor; when the last one
    has left, the executor is closed and the lock is released.

    Attributes:
        preparing: held by a session while it prepares: only one at a time may make ids and use the caches.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.preparing = threading.Lock()
        self._lock = threading.Lock()
        self._members = 0
        self._held = ExitStack()
        self._note: Callable[[str], None] = lambda sessions: None
        self._running: list[str] = []
        # Guards the executor. It is held until one has closed, because only then are its slots and folder free.
        self._turn = threading.Lock()
        self._executor: Executor | None = None
        self._num_users = 0  # number of sessions that use the executor
        self._site: Site
        self._made_for: RunConfig

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Join the workshop during the block.

        Raises:
            HomeLocked: another process or workshop holds this home's lock.
        """
        with self._lock:
            if not self._members:
                with ExitStack() as held:  # on an error, the lock is released at once
                    self._note = held.enter_context(self.home.lock())
                    with open_store(self.home) as store:
                        sweep(self.home, store)
                    self._held = held.pop_all()
            self._members += 1
        try:
            yield
        finally:
            with self._lock:
                self._members -= 1
                if not self._members:
                    self._held.close()

    @contextmanager
    def kept(self) -> Iterator[Callable[[], None]]:
        """Join the workshop during the block, and keep its executor from one session to the next.

        Yields a function that closes the executor if no session uses it, before one with another configuration of it.
        """
        with self.joined():
            with self._turn:
                self._num_users += 1
            try:
                yield lambda: self._close_executor(users=1)
            finally:
                with self._turn:
                    self._num_users -= 1
                self._close_executor(users=0)

    def _close_executor(self, *, users: int) -> None:
        with self._turn:
            if self._num_users == users and self._executor is not None:
                executor, self._executor = self._executor, None
                executor.close()

    @contextmanager
    def on_record(self, session_id: str) -> Iterator[None]:
        """Publish that the session is running, so that other processes see it."""
        with self._lock:
            self._note(" ".join([*self._running, session_id]))
            self._running.append(session_id)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(session_id)
                if self._running:
                    self._note(" ".join(self._running))

    @contextmanager
    def executor(
        self, config: RunConfig, package: PackageOnDisk, name: str, control: Control, *, is_on_record: bool = False
    ) -> Iterator[Executor]:
        """The executor, for the session ``name``; its tasks have ended when the block is left.

        Raises:
            ConfigError: it was created for a session with another configuration of it.
        """
        guarded = control.guard(self._join_executor(config, package, name, is_on_record=is_on_record))
        try:
            yield cast("Executor", guarded)
        except KeyboardInterrupt:
            raise interrupted(name if is_on_record else "") from None
        finally:
            self._leave_executor(guarded)

    def _join_executor(self, config: RunConfig, package: PackageOnDisk, name: str, *, is_on_record: bool) -> Executor:
        with self._turn:
            if self._executor is None:
                folder = self.home.session_folder(name) / "executor"
                site, slots = Site(self.home.root, package), executors.slots_of(config, or_fewer=is_on_record)
                self._executor = executors.make_executor(config, site, package, folder, slots=slots)
                self._site, self._made_for = site, config
            else:
                _check_alike(config, self._made_for)
                _add(self._site, package)
            self._num_users += 1
            return self._executor

    def _leave_executor(self, guarded: Guarded) -> None:
        with self._turn:
            self._num_users -= 1
            if not self._num_users and self._executor is not None:
                executor, self._executor = self._executor, None
                executor.close()
                return
        guarded.end_tasks()


def _add(site: Site, package: PackageOnDisk) -> None:
    if (known := site.package(package.digest)) is not None and known.python != package.python:
        raise ConfigError(
            "this session shares the executor of another one and has the same package, but "
            f"its Python environments differ: {package.python} here, {known.python} there",
            hint="give both the same 'python_env', or run them one after the other",
            key="python_env",
        )
    site.add(package)


def _check_alike(config: RunConfig, first: RunConfig) -> None:
    for key in ("executor", "environment", "isolate"):
        here, there = getattr(config, key), getattr(first, key)
        if here != there:
            raise ConfigError(
                f"this session shares the executor of another one, but their sections '{key}' differ: {here} "
                f"here, {there} there",
                hint=f"give both the same '{key}', or run them one after the other",
                key=key,
            )
