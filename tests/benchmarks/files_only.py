"""What W3 costs if nothing is done but its files: two warm processes load, add and save, nobody isolates or averages.

python files_only.py [--rounds 3] [--clients 8]     prints the seconds of each round as JSON
"""

import argparse
import importlib.util
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

from figures import HERE


def load_client():
    spec = importlib.util.spec_from_file_location("add_one", HERE / "packages" / "add-one" / "entrypoint.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    return client


def serve(calls, done):
    """A worker: the client's own ``train`` on one pair of paths after the other."""
    client = load_client()
    done.put(None)
    while (paths := calls.get()) is not None:
        client.train(*paths)
        done.put(None)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3, metavar="N")
    options.add_argument("--clients", type=int, default=8, metavar="N")
    options.add_argument("--workers", type=int, default=2, metavar="N")
    given = options.parse_args()
    fork = multiprocessing.get_context("fork")
    calls, done = fork.SimpleQueue(), fork.SimpleQueue()
    workers = [fork.Process(target=serve, args=(calls, done)) for _ in range(given.workers)]
    for worker in workers:
        worker.start()
    rounds_s = []
    with tempfile.TemporaryDirectory(prefix="fedpkg-bench-") as name:
        folder = Path(name)
        load_client().init_seed(folder / "in.npz")
        for _ in workers:
            done.get()
        for number in range(given.rounds):
            started = time.perf_counter()
            out = folder / f"round-{number}"
            out.mkdir()
            for client in range(given.clients):
                calls.put((str(folder / "in.npz"), str(out / f"{client}.npz")))
            for _ in range(given.clients):
                done.get()
            shutil.rmtree(out)  # as fedpkg does: it keeps no updates
            rounds_s.append(time.perf_counter() - started)
        for _ in workers:
            calls.put(None)
        for worker in workers:
            worker.join()
    print(json.dumps({"rounds_s": rounds_s}))


if __name__ == "__main__":
    main()
