"""Runs a session for each line of JSON, and kills the controller of each: a child, forked when all is imported.

Reads lines {"home", "config", "kill_at"}, writes a line for each: the signal that ended it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fedpkg.config import config_from_json
from fedpkg.controller.events import Event
from fedpkg.session import beginning
from fedpkg.stores.home import Home

if __name__ == "__main__":
    import torch  # noqa: F401 - once, and not by every child

    from fedpkg.controller import session  # noqa: F401


def run_and_die(home: str, config: dict[str, object], kill_at: int) -> None:
    seen = 0

    def watch(happened: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    beginning.run(config_from_json(config), Home.open(Path(home)), watch=watch)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                run_and_die(order["home"], order["config"], order["kill_at"])
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
