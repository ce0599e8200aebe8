"""Runs or resumes a session in a process of its own, which tests then kill.

python drive.py HOME --run CONFIG_JSON | --resume SESSION | --prune
    [--kill-at N]                          kill -9 oneself at the Nth event of the session
    [--kill-after N:SECONDS]               … so long after the Nth event (0: after the start), whatever is done then
    [--kill-at-step before|after:STEP:N]   … at the Nth call of a method of the store, or of one of STEPS
    [--unflushed]                          tasks are only written to the database by what must follow on them
    [--arrivals FOLDER]                    tell the clients there who has arrived (see federation.Arrivals)
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation import QUIET, Arrivals

from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event
from fedpkg.session import beginning, resuming
from fedpkg.stores import models, prune, write_behind
from fedpkg.stores.home import Home
from fedpkg.stores.sql import StateStore

# What happens to files. Of the general ones, only calls that concern the folder of models are counted.
STEPS: dict[str, tuple[Any, str]] = {
    "write": (models._HashingWriter, "write"),
    "fsync": (os, "fsync"),
    "rename": (Path, "replace"),
    "remove": (prune, "remove_tree"),
    "unlink": (os, "unlink"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_with(args: Sequence[Any]) -> None:
    if isinstance(args[0], StateStore) and write_behind.WITHIN_S < 1:
        args[0].list_sessions()  # what waits is written
    die()


def kill_at_step(moment: str, step: str, number: str, *, home: Home) -> None:
    owner, name = STEPS.get(step, (StateStore, step))
    original = getattr(owner, name)
    calls = 0

    def dying(*args: Any, **more: Any) -> Any:
        nonlocal calls
        if step not in ("fsync", "rename") or is_below(args[0], home.models):
            calls += 1
            if calls == int(number) and moment == "before":
                die_with(args)
        result = original(*args, **more)
        if calls == int(number):
            die_with(args)
        return result

    setattr(owner, name, dying)


def is_below(what: int | Path, folder: Path) -> bool:
    path = Path(os.readlink(f"/proc/self/fd/{what}")) if isinstance(what, int) else what
    return path.is_relative_to(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    for option in ("--run", "--resume", "--kill-after", "--kill-at-step"):
        parser.add_argument(option)
    parser.add_argument("--prune", action="store_true")
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--arrivals", type=Path)
    parser.add_argument("--unflushed", action="store_true")
    options = parser.parse_args()
    home = Home.open(options.home)
    arrivals = None if options.arrivals is None else Arrivals(options.arrivals)
    event, _, delay_s = (options.kill_after or "-1:0").partition(":")
    timer = threading.Timer(float(delay_s), die)
    timer.daemon = True
    seen = 0

    def watch(happened: Event) -> None:
        nonlocal seen
        if isinstance(happened, QUIET):
            return
        seen += 1
        task = f" {happened.order.task_id}" if hasattr(happened, "order") else ""
        print(f"{type(happened).__name__}{task}", flush=True)
        if arrivals is not None:
            arrivals(happened)
        if seen == options.kill_at:
            die()
        if seen == int(event):
            timer.start()

    if options.unflushed:
        write_behind.WITHIN_S = 1e6
    if options.kill_at_step:
        kill_at_step(*options.kill_at_step.split(":"), home=home)
    if int(event) == 0:
        timer.start()
    if options.run:
        beginning.run(config_from_json(json.loads(Path(options.run).read_text())), home, watch=watch)
    elif options.resume:
        if arrivals is not None:
            arrivals.catch_up(home, options.resume)
        resuming.resume(options.resume, home, watch=watch)
    else:
        from fedpkg.cli.main import run_command

        rules = ["--keep-models", "last 1", "--keep-task-folders", "last 1", "--orphans"]
        assert run_command(["home", "prune", "--home", str(home.root), *rules]) == 0


if __name__ == "__main__":
    main()
