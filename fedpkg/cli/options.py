"""The options that every command takes (--home, -v, --json), wherever on the command line they stand."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedpkg.session.record import usual_home

if TYPE_CHECKING:
    from fedpkg.stores.home import Home
    from fedpkg.stores.sql import StateStore

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Settings:
    """Values of the common options. ``home_given``: by an option, so that suggested commands must repeat it."""

    home: Path | None = None
    home_given: bool = False
    verbosity: int = 0
    json: bool = False

    @property
    def home_path(self) -> Path:
        return self.home or usual_home()

    def open_home(self, *, create: bool = False) -> Home:
        from fedpkg.stores.home import Home

        return Home.open(self.home_path, create=create)

    @contextmanager
    def reading(self) -> Iterator[tuple[Home, StateStore]]:
        """The home and its store, to look at; a controller may be writing meanwhile."""
        from fedpkg.stores.opening import open_store

        home = self.open_home()
        with open_store(home, read_only=True) as store:
            yield home, store

    def command(self, words: str) -> str:
        """A fedpkg command to suggest, for the same home."""
        home = f" --home {shlex.quote(str(self.home_path))}" if self.home_given else ""
        return f"fedpkg {words}{home}"


def common_options(function: Function) -> Function:
    """Add --home, -v and --json to a command. They land in its ``Settings`` (``click.pass_obj``)."""
    for option in reversed(
        [
            click.option(
                "--home",
                type=click.Path(path_type=Path),
                metavar="FOLDER",
                expose_value=False,
                callback=_set_home,
                help="Folder of sessions and models.  [default: .fedpkg; variable: FEDPKG_HOME]",
            ),
            click.option(
                "-v",
                "--verbose",
                count=True,
                expose_value=False,
                callback=_set_verbosity,
                help="Log one line per round; -vv: one line per task.",
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                expose_value=False,
                callback=_set_json,
                help="Print JSON.",
            ),
        ]
    ):
        function = option(function)
    return function


env_option = click.option(
    "--env",
    type=click.Choice(["auto", "current", "none"]),
    help="Python of the package: its own environment where this one lacks requirements (auto), this one, or PATH's.",
)


baseline_option = click.option(
    "--baseline",
    "baselines",
    type=click.Choice(["centralised", "local"]),
    multiple=True,
    help="Also train with all data in one place (centralised), or each client alone (local); can be given twice.",
)

search_path_option = click.option(
    "--search-path",
    metavar="FOLDER",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder with further groups, after the experiment's own; may be repeated.  [variable: FEDPKG_SEARCH_PATH]",
)


def _set_home(context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    settings = context.ensure_object(Settings)
    if value is not None:
        settings.home, settings.home_given = value, True


def _set_verbosity(context: click.Context, _option: click.Parameter, value: int) -> None:
    settings = context.ensure_object(Settings)
    settings.verbosity += value
    if value:
        from fedpkg import log

        log.configure(settings.verbosity)


def _set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:
    context.ensure_object(Settings).json |= value


def model_ref(store: StateStore, ref: str | None) -> str:
    """``latest`` (or nothing), ``latest.3`` and ``latest/north`` as ids of the newest session; other references as they
    are.
    """
    from fedpkg.session.record import find_session

    if ref is None or ref == "latest" or ref.startswith(("latest.", "latest/")):
        return find_session(store, None).session_id + (ref or "latest").removeprefix("latest")
    return ref
