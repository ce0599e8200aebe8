"""Runs or resumes a session in a process of its own, which tests then kill.

python drive.py HOME CONFIG_JSON [--kill-at N]     run; kill -9 oneself at the Nth event
python drive.py HOME --resume SESSION
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from fedpkg import assemble
from fedpkg.config import config_from_json
from fedpkg.controller.events import Event
from fedpkg.stores.home import Home


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

    if "--resume" in sys.argv:
        assemble.resume(sys.argv[-1], home, watch=watch)
    else:
        assemble.run(config_from_json(json.loads(Path(sys.argv[2]).read_text())), home, watch=watch)


if __name__ == "__main__":
    main()
