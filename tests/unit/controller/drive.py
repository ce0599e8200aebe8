"""Runs or resumes a session in a process of its own, which tests then kill.

python drive.py HOME CONFIG_JSON [--kill-at N]     run; kill -9 oneself at the Nth event
                                   [--kill-at-step before|after:STEP:N]     … at the Nth call of a method of the store
python drive.py HOME [--kill-at-step …] --resume SESSION

With TEST_STRATEGY=sets in the environment the strategy is that of sets_strategy.py instead of FedAvg.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sets_strategy import WithControl

import fedpkg.strategies.fedavg
from fedpkg import assemble
from fedpkg.config import config_from_json
from fedpkg.controller.events import Event
from fedpkg.stores.home import Home
from fedpkg.stores.sql import SqlStore


def kill_at_step(moment: str, step: str, number: str) -> None:
    original = getattr(SqlStore, step)
    calls = 0

    def dying(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(number) and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **more)
        if calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(SqlStore, step, dying)


def main() -> None:
    home = Home.open(Path(sys.argv[1]))
    kill_at = int(sys.argv[sys.argv.index("--kill-at") + 1]) if "--kill-at" in sys.argv else 0
    seen = 0

    def watch(event: Event) -> None:
        nonlocal seen
        seen += 1
        print(type(event).__name__, flush=True)
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if os.environ.get("TEST_STRATEGY") == "sets":
        fedpkg.strategies.fedavg.fedavg = WithControl  # type: ignore[assignment]
    if "--kill-at-step" in sys.argv:
        kill_at_step(*sys.argv[sys.argv.index("--kill-at-step") + 1].split(":"))
    if "--resume" in sys.argv:
        assemble.resume(sys.argv[-1], home, watch=watch)
    else:
        assemble.run(config_from_json(json.loads(Path(sys.argv[2]).read_text())), home, watch=watch)


if __name__ == "__main__":
    main()
