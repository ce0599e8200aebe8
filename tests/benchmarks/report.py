"""The report of a session of 500 rounds and 100 clients: seconds and bytes. Aims: below 5 s and 3 MB.

python tests/benchmarks/report.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.reporting.written import write_session


def measure(rounds: int = 500, clients: int = 100) -> tuple[float, int]:
    """Wall seconds of ``fedpkg session report`` as a command, and the size of the page in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        write_session(Path(folder) / "home", rounds=rounds, clients=clients, fails_every=97)
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "fedpkg", "--home", f"{folder}/home", "session", "report", "-o", str(page)]
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begun, page.stat().st_size


def main() -> None:
    from figures import Figure, parser, save

    options = parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=500)
    given = options.parse_args()
    seconds, size = measure(given.rounds)
    print(f"report of {given.rounds} rounds x 100 clients: {seconds:.2f} s, {size / 1e6:.2f} MB")
    save(
        given.figures,
        [Figure("Report of a session with 100 clients", f"{seconds:.2f} s, {size / 1e6:.2f} MB", "5 s, 3 MB")],
    )


if __name__ == "__main__":
    main()
