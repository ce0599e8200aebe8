"""As drive.py of the controller's tests, with tasks at a far end: python drive_far.py PORT HOME …"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "controller"))

import drive
from near_end import over

from fedpkg.session import executors

if __name__ == "__main__":
    port = int(sys.argv.pop(1))
    executors.make_executor = over(port)
    drive.main()
