"""Runs a program with a callback client as an entry point: calls one callback for one task.

    python -m _fedpkg_callbacks train script client.py --split 3 -- IN OUT --lr=0.1
    python -m _fedpkg_callbacks train startup startup.py -- IN OUT
    python -m _fedpkg_callbacks build import model.py -- OUT
    python -m _fedpkg_callbacks build saved init_model.py -- OUT

`script` runs the program without IN and OUT, which its options do not have. `startup` imports it and calls
``startup(client)``. `import` calls its function with the name of the entry point (Scaleout's packages), with OUT if it
takes an argument. `saved` runs it; the models that it saves by FEDn's helpers are saved at OUT, as such scripts name a
folder beside the package that may not exist.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import inspect
import os
import runpy
import sys
from contextlib import contextmanager

import _fedpkg_compat  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HELPERS = ("numpyhelper", "pytorchhelper", "kerashelper", "binaryhelper", "androidhelper", "numpyarrayhelper")
# Options for the address of FEDn's server and the identity of a client. They are not required here.
OF_A_CONNECTION = (
    *("api_url", "api_host", "api_port", "url", "host", "port", "project_url", "combiner", "preferred_combiner"),
    *("token", "api_token", "auth_token", "client_token", "name", "client_name", "client_id"),
)


def main(words: list[str]) -> None:
    entry_point, way, script = words[:3]
    last = len(words) - 1 - words[::-1].index("--")
    own, given = words[3:last], words[last + 1 :]
    _fedpkg_compat.install()
    _fedpkg_compat.serve_instead()
    folder = os.path.dirname(os.path.realpath(script))
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    if way == "import":
        function = _function(script, entry_point)
        function(*(given[:1] if inspect.signature(function).parameters else ()))
        return
    if way == "saved":
        sys.argv = [script, os.path.basename(given[0])]
        with _models_saved_at(given[0]):
            runpy.run_path(script, run_name="__main__")
        return
    from fedn.network.clients.fedn_client import FednClient
    from fedn.network.clients.one_task import MAKE_ONE, OneTask

    task = OneTask.current = OneTask(entry_point, given[0], given[1])
    sys.argv = [script, *own, *given[2:]]
    try:
        if way == "startup":
            startup, client = _function(script, "startup"), FednClient()
            startup(client)
            client.run()
        else:
            with _connection_options_left_out(), _questions_answered():
                runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    finally:
        OneTask.current = None
    if not task.has_client:
        raise SystemExit("%s made no client in its own process: %s" % (script, MAKE_ONE))
    if not task.is_done:
        raise SystemExit("%s ended without a call of FednClient.run()" % script)


def _function(script: str, name: str) -> Any:
    module = importlib.import_module(os.path.basename(script).rpartition(".")[0])
    if not hasattr(module, name):
        raise SystemExit("%s has no function %s" % (script, name))
    return getattr(module, name)


@contextmanager
def _models_saved_at(target: str) -> Iterator[None]:
    """Make the helpers save at ``target`` what a program saves at a path of its own."""
    for name in HELPERS:
        importlib.import_module("fedn.utils.helpers.plugins." + name)
    from fedn.utils.helpers.helperbase import HelperBase

    saved = {helper: helper.save for helper in HelperBase.__subclasses__()}

    def saving(save: Any) -> Any:
        def at_target(self: Any, model: Any, path: Any = None, *more: Any, **named: Any) -> Any:
            return save(self, model, path if path is None else target, *more, **named)

        return at_target

    for helper, save in saved.items():
        helper.save = saving(save)
    try:
        yield
    finally:
        for helper, save in saved.items():
            helper.save = save


@contextmanager
def _connection_options_left_out() -> Iterator[None]:
    """Make options of a connection optional in argparse."""
    container: Any = argparse._ActionsContainer
    add_argument = container.add_argument

    def add(self: Any, *names: Any, **more: Any) -> Any:
        action = add_argument(self, *names, **more)
        if action.required and action.option_strings and action.dest.lower() in OF_A_CONNECTION:
            action.required = False
            if action.default is None:
                action.default = "0" if action.type in (int, float) else "localhost"
        return action

    container.add_argument = add
    try:
        yield
    finally:
        container.add_argument = add_argument


@contextmanager
def _questions_answered() -> Iterator[None]:
    """Make ``input()`` return the client's name, which FEDn's own example asks for: a task has no terminal."""
    from fedn.network.clients.one_task import identity

    asked, name = builtins.input, str(identity())

    def answer(prompt: object = "") -> str:
        print("%s%s" % (prompt, name))
        return name

    builtins.input = answer
    try:
        yield
    finally:
        builtins.input = asked


if __name__ == "__main__":
    main(sys.argv[1:])
