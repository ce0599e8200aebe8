"""The server's part of a message app: a program that sends messages to nodes and uses their replies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fedpkg.apps.context import Context
from fedpkg.apps.grid import Grid

Main = Callable[[Grid, Context], None]
Lifespan = Callable[[Context], Iterator[None]]
_F = TypeVar("_F", bound=Callable[..., Any])


class ServerAppError(Exception):
    """A ServerApp is built in a way that cannot be run."""


@dataclass
class ServerConfig:
    """The settings of the older form: the number of rounds, and the seconds that each may take."""

    num_rounds: int = 1
    round_timeout: float | None = None


@dataclass
class ServerAppComponents:
    """What ``server_fn`` of the older form returns. ``server`` must be None."""

    server: Any = None
    config: ServerConfig | None = None
    strategy: Any = None
    client_manager: Any = None


class ServerApp:
    """The server's part of an app.

        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None: …

    Args:
        server_fn: The older form, in place of ``main``: returns `ServerAppComponents` for a context.
        config, strategy, client_manager: The components of the older form, without a function.
        server: Must be None, as fedpkg has its own.
    """

    def __init__(
        self,
        server: Any = None,
        config: ServerConfig | None = None,
        strategy: Any = None,
        client_manager: Any = None,
        server_fn: Callable[[Context], ServerAppComponents] | None = None,
    ) -> None:
        given = ServerAppComponents(server, config, strategy, client_manager)
        has_components = given != ServerAppComponents()
        if server_fn is not None and has_components:
            raise ValueError("ServerApp takes server_fn, or its components: put them into what server_fn returns")
        self._server_fn = server_fn if server_fn is not None else (lambda context: given) if has_components else None
        self._main: Main | None = None
        self._lifespan: Lifespan | None = None

    def main(self, *args: object) -> Callable[[_F], _F]:
        """A decorator for the function of the app, which gets a `Grid` and a `Context`."""
        if args:
            raise TypeError("write @app.main() with brackets, above the function")

        def register(function: _F) -> _F:
            if self._server_fn is not None:
                raise ValueError(f"a ServerApp with server_fn cannot have a main function: {_place(function)}")
            if self._main is not None:
                raise ValueError(
                    f"a ServerApp has one main function, not two: {_place(self._main)}, {_place(function)}"
                )
            self._main = function
            return function

        return register

    def lifespan(self) -> Callable[[_F], _F]:
        """A decorator for a generator that yields once: its code runs before and after the app, also after an error."""

        def register(function: _F) -> _F:
            if self._lifespan is not None:
                raise ValueError(f"a ServerApp has one lifespan: {_place(self._lifespan)}, {_place(function)}")
            if not inspect.isgeneratorfunction(function):
                raise TypeError(f"a lifespan is a generator with one yield: {_place(function)}")
            self._lifespan = function
            return function

        return register

    def __call__(self, grid: Grid, context: Context) -> None:
        """Run the app.

        Raises:
            ServerAppError: It has no main function, or components that cannot be used.
        """
        with self._within(context):
            if self._main is not None:
                self._main(grid, context)
            elif self._server_fn is not None:
                _run_components(self._server_fn(context), grid)
            else:
                raise ServerAppError("the ServerApp has no main function: write @app.main() above one")

    @contextmanager
    def _within(self, context: Context) -> Iterator[None]:
        if self._lifespan is None:
            yield
            return
        where = _place(self._lifespan)
        life = self._lifespan(context)
        if next(life, life) is life:
            raise RuntimeError(f"a lifespan must yield once, and this one did not: {where}")
        try:
            yield
        finally:
            if next(life, life) is not life:
                raise RuntimeError(f"a lifespan must yield once, and this one yields again: {where}")


def _run_components(components: ServerAppComponents, grid: Grid) -> None:
    if getattr(components, "server", None) is not None:
        raise ServerAppError(
            "'server' of ServerAppComponents cannot be used, because fedpkg has its own; leave it out, and write a "
            "main function (@app.main()) for what it does"
        )
    strategy, config = components.strategy, components.config or ServerConfig()
    if strategy is None:
        raise ServerAppError("ServerAppComponents has no strategy: write ServerAppComponents(strategy=…, config=…)")
    if not hasattr(strategy, "run_components"):
        raise ServerAppError(
            f"{type(strategy).__name__} is no strategy of the older form that can be run; write a main function "
            "(@app.main()) that calls strategy.start(grid=grid, initial_arrays=…, num_rounds=…)"
        )
    strategy.run_components(
        grid,
        num_rounds=config.num_rounds,
        timeout=config.round_timeout,
        client_manager=getattr(components, "client_manager", None),
    )


def _place(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", type(function).__name__)
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"
