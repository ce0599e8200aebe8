"""What ``fedpkg dashboard`` takes: until it answers, and while many viewers watch a run of W1.

python viewers.py [--repeat 5] [--viewers 20] [--rounds 100]

The viewers have the page of the session open, with live updates. The server's processor time is a share of the run's.
"""

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from figures import Figure, parser, run_measured, save, spread, table
from workloads import CONFIGS

FEDPKG = [sys.executable, "-m", "fedpkg"]


@contextmanager
def served(home):
    """A dashboard: its process, the seconds until it told its address, and a function that asks it."""
    command = [*FEDPKG, "--home", str(home), "dashboard", "--no-open", "--read-only", "--json"]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        view = urlsplit(json.loads(process.stdout.readline())["view"])
        told_s = time.perf_counter() - begun
        token = parse_qs(view.query)["token"][0]

        def ask(path, accept="*/*"):
            connection = http.client.HTTPConnection(view.hostname, view.port, timeout=60)
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept": accept})
            return connection.getresponse()

        try:
            yield process, told_s, ask
        finally:
            process.send_signal(signal.SIGINT)


def processor_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def watch(ask, session_id, events):
    """Read the live updates of a session's page until the server ends."""
    page = ask(f"/sessions/{session_id}").read().decode()
    stamp = page.partition('data-stamp="')[2].partition('"')[0]
    stream = ask(f"/sessions/{session_id}?since={stamp}", accept="text/event-stream")
    while line := stream.readline():
        if line.startswith(b"data:"):
            events.append(len(line))


def watched(viewers, rounds):
    """Processor seconds of the server and of a run that is watched, and the number of live updates."""
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        home, found = Path(folder) / "home", []
        run = [*FEDPKG, "--home", str(home), "run", str(CONFIGS["w1"])]
        run_measured([*run, "rounds=1"])  # so that the home is there
        with served(home) as (process, _, ask):
            whole = [*run, f"rounds={rounds}", "name=watched"]
            runs = threading.Thread(target=lambda: found.append(run_measured(whole)))
            runs.start()
            while not (there := json.load(ask("/api/v1/sessions?search=watched"))["items"]):
                if not runs.is_alive():
                    raise SystemExit("the run that was to be watched has failed")
                time.sleep(0.05)
            before, events = processor_s(process.pid), []
            for _ in range(viewers):
                threading.Thread(target=watch, args=(ask, there[0]["session_id"], events), daemon=True).start()
            runs.join()
            server_s = processor_s(process.pid) - before
        return server_s, found[0][1], len(events)


def answers(home):
    """Seconds from the command to the address, and to the first page."""
    begun = time.perf_counter()
    with served(home) as (_, told_s, ask):
        ask("/").read()
        return told_s, time.perf_counter() - begun


def main():
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=5, metavar="N", help="starts (default: 5)")
    options.add_argument("--viewers", type=int, default=20, metavar="N", help="of one page (default: 20)")
    options.add_argument("--rounds", type=int, default=100, metavar="N", help="of W1 (default: 100)")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as folder:
        run_measured([*FEDPKG, "--home", folder, "run", str(CONFIGS["w1"]), "rounds=1"])
        told, answered = zip(*(answers(Path(folder)) for _ in range(given.repeat)), strict=True)
    server_s, run_s, number = watched(given.viewers, given.rounds)
    share = f"{100 * server_s / run_s:.1f} % ({server_s:.2f} of {run_s:.1f} s; {number} updates)"
    rows = [
        ("address printed, s", spread(told, 2), ""),
        ("first page, s", spread(answered, 2), "≤ 0.6"),
        (f"{given.viewers} viewers of W1: the server's processor time", share, "< 3 %"),
    ]
    table(rows, ["fedpkg dashboard", "", "goal"])
    save(given.figures, [Figure(f"Dashboard: {what}", value, goal) for what, value, goal in rows])


if __name__ == "__main__":
    main()
