"""Runs a ServerApp as the coordinator of a session: its messages, its log, and how it ends."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fedpkg.apps.context import Context
from fedpkg.apps.grid import SERVER_NODE_ID, Grid
from fedpkg.apps.loading import find_object, is_installed
from fedpkg.client import coordinator
from fedpkg.client.coordinator import SessionEnded
from fedpkg.records.record_dict import RecordDict

_LAST_LINES = 14  # of a traceback, in the session's error
_OTHERS = (os.path.dirname(os.path.dirname(__file__)), importlib.__file__, "<frozen ")  # files whose lines are left out


def run(name: str) -> None:
    """Run the app with this name, ``module:object``, until it returns; an error ends the session."""
    folder = os.path.join(os.getcwd(), "")
    grid = Grid(coordinator.rounds(), seed=int(os.environ.get("FEDPKG_SEED", "0")))
    _send_log(grid)
    try:
        context = Context(grid.run_id, SERVER_NODE_ID, {}, RecordDict(), grid.run_config)
        app = load(name)
        if is_installed(app):
            from fedpkg.apps import installed

            installed.serve(app, grid, context)
        else:
            app(grid, context)
    except SessionEnded:
        raise
    except SystemExit as end:
        if end.code not in (None, 0):
            grid.fail(f"the app called sys.exit({end.code!r:.200})")
            raise
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        lines = _of_the_app(error).replace(folder, "").splitlines()
        grid.fail("\n    ".join(("the ServerApp raised an exception", *lines[-_LAST_LINES:])))
        sys.exit(1)
    grid.finish()


def _of_the_app(error: BaseException) -> str:
    """The traceback of an error, without the lines of fedpkg and of Python's imports."""
    told = traceback.TracebackException.from_exception(error)
    one: traceback.TracebackException | None = told
    while one is not None:
        own = [frame for frame in one.stack if not frame.filename.startswith(_OTHERS)]
        one.stack = traceback.StackSummary.from_list(own)
        one = one.__cause__ or one.__context__
    return "".join(told.format() if told.stack else told.format_exception_only())


def load(name: str) -> Callable[..., Any]:
    """The app with this name.

    Raises:
        ImportError: The module cannot be imported, has no such object, or the object is no app.
    """
    found = find_object(name, "ServerApp")
    if not callable(found) or isinstance(found, type):
        raise ImportError(f"{name} is a {type(found).__name__}, not a ServerApp; write: app = ServerApp()")
    app: Callable[..., Any] = found
    return app


class _Handler(logging.Handler):
    """Sends lines of log to the session's log."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(logging.INFO)
        self._grid = grid

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
            for line in record.getMessage().splitlines():
                self._grid.log(level + line)
        except Exception:
            self.handleError(record)


def _send_log(grid: Grid) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().addHandler(_Handler(grid))
