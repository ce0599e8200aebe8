"""A large home, written through the store's interface: what the read API and the dashboard cost on it.

    python tests/benchmarks/big_home.py make FOLDER [--sessions 300] [--rounds 500] [--clients 1000]
    python tests/benchmarks/big_home.py measure FOLDER
    python tests/benchmarks/big_home.py serve FOLDER      the same over HTTP, from ``fedpkg dashboard``

One session, ``large``, has all the rounds and clients; the others have ten of each. Its validations have nested values,
one has 5 MB of JSON, a client's log has 1 MB of control characters, and names are in Arabic, emoji and 300 characters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedpkg.api_remote import RemoteClient
from fedpkg.controller.metric_rows import metric_rows
from fedpkg.stores.base import (
    ClientRow,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    SessionRow,
    TaskRow,
    UpdateRow,
    ValidationRow,
)
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore

ODD_NAMES = ("عميل-المستشفى", "client-🏥", "名前", "x" * 300, "client \u202e", "<script>alert(1)</script>")
LARGE = "large"
MB = 1 << 20


def make(root: Path, *, sessions: int, rounds: int, clients: int) -> None:
    """Write the home."""
    home, rng = Home.open(root), random.Random(0)
    with open_store(home) as store:
        package = PackageRow(digest="p" * 64, name="digits", size_bytes=1, entry_points={}, created_at=1.0)
        store.add_package(package)
        for number in range(sessions - 1):
            _write(home, store, f"session-{number:04d}", rounds=10, clients=10, rng=rng)
        _write(home, store, LARGE, rounds=rounds, clients=clients, rng=rng)


def _write(home: Home, store: StateStore, session_id: str, *, rounds: int, clients: int, rng: random.Random) -> None:
    names = [*ODD_NAMES, *(f"client-{number:04d}" for number in range(clients - len(ODD_NAMES)))]
    config = {
        "name": session_id, "package": "/srv/packages/digits", "seed": 1, "rounds": rounds,
        "strategy": {"name": rng.choice(["fedavg", "fedadam", "scaffold"])}, "sampler": {"name": "uniform"},
        "executor": {"name": "forkserver", "workers": 8}, "clients": {"count": clients},
        "arguments": {"train": {"lr": 0.1}},
    }  # fmt: skip
    row = SessionRow(
        session_id=session_id, name=session_id, config=config, package_digest="p" * 64, seed=1, num_rounds=rounds,
        created_at=1.7e9, updated_at=1.7e9, status="finished",
    )  # fmt: skip
    parts = [
        ClientRow(session_id=session_id, client_id=name, position=k, num_examples=50) for k, name in enumerate(names)
    ]
    store.create_session(row, parts, seed_model=_model(session_id, 0, []))
    for number in range(1, rounds + 1):
        _round(home, store, session_id, number, names, rng)


def _model(session_id: str, number: int, names: list[str]) -> ModelRow:
    return ModelRow(
        digest=f"{number:04x}" * 16, session_id=session_id, round_number=number, suffix=".npz", keys="names",
        size_bytes=52_000, created_at=1.7e9 + number, parent_id=f"{session_id}.{number - 1}" if number else None,
        contributors=[{"client_id": name, "num_examples": 50} for name in names],
    )  # fmt: skip


def _round(home: Home, store: StateStore, session_id: str, number: int, names: list[str], rng: random.Random) -> None:
    key = {"session_id": session_id, "round_number": number}
    counted = [name for k, name in enumerate(names) if (number * 31 + k) % 97]
    begun = RoundRow(**key, cohort=names, target=len(names), started_at=1.7e9 + number)  # type: ignore[arg-type]
    store.begin_round(begun)
    request = RequestRow(
        **key,
        request_id=f"train-{number}",
        number=1,
        entry_point="train",
        reply_kind="update",
        cohort=names,
        target=1,
        started_at=1.7e9 + number,
        status="answered",
        counted=counted,
        wall_s=0.4,
        num_ok=len(counted),
        num_failed=len(names) - len(counted),
        bytes_down=52_000 * len(names),
        bytes_up=52_000 * len(counted),
    )
    store.record_requests([request])
    told: list[tuple[Any, Any]] = []
    mean, ok = 0.95 * (1 - math.exp(-number / 40)), set(counted)
    for k, name in enumerate(names):
        task = f"{session_id}/{number}/{k}"
        common: dict[str, Any] = {**key, "client_id": name, "position": k, "attempt": 1, "started_at": 1.7e9 + number}
        common |= {"wall_s": 0.1, "bytes_down": 52_000}
        if name not in ok:
            log = "\x1b[31m\x07\r" * (MB // 7) if (session_id, number, k) == (LARGE, 1, 66) else "ValueError: no column"
            failed = {"failure": "exit_code", "message": "'train' exited with code 1", "log_tail": log}
            store.record_task(
                TaskRow(
                    task_id=task, status="failed", entry_point="train", request_id=f"train-{number}", **failed, **common
                )
            )
            continue
        store.record_task(
            TaskRow(
                task_id=task, status="ok", entry_point="train", request_id=f"train-{number}", bytes_up=52_000, **common
            ),
            update=UpdateRow(task_id=task, path="", size_bytes=52_000, num_examples=50, metadata={"num_examples": 50}),
        )
        accuracy = min(1.0, max(0.0, mean + rng.gauss(0, 0.05)))
        metrics: dict[str, Any] = {
            "test_accuracy": accuracy, "test_loss": 1.0 - accuracy, "num_examples": 50,
            "per_class": {"recall": [accuracy, accuracy / 2, accuracy / 3]}, "confusion": [[3, 1], [2, 4]],
        }  # fmt: skip
        if (session_id, number, k) == (LARGE, 2, 7):
            metrics["embedding"] = [[round(rng.random(), 6) for _ in range(500)] for _ in range(1100)]
        told.append((metrics, (50.0, "reply")))
        store.record_task(
            TaskRow(task_id=f"{task}/v", status="ok", entry_point="validate", **common),
            validation=ValidationRow(
                **key,
                task_id=f"{task}/v",
                model_id=f"{session_id}.{number - 1}",
                client_id=name,
                weight=50.0,
                metrics=metrics,
                weight_source="reply",
            ),
        )
    rows = metric_rows(told, session_id=session_id, round_number=number, phase="validate")
    done = RoundRow(
        **key, cohort=names, target=len(names), started_at=1.7e9 + number, status="finished", counted=counted,
        wall_s=0.5, num_ok=len(counted), num_failed=len(names) - len(counted), num_examples=50.0 * len(counted),
        finished_at=1.7e9 + number, metrics={row.metric: row.weighted_mean for row in rows},
        model_id=f"{session_id}.{number}", phases={"train": 0.3, "fold": 0.05, "commit": 0.02, "validate": 0.1},
    )  # fmt: skip
    store.commit_round(done, _model(session_id, number, counted), metric_rows=rows)


# ---- measuring


def measure(root: Path) -> None:
    """Print the processor time of answers, and the memory of this process."""
    from fedpkg.api import clients, metrics, models, rounds, sessions, tasks, values
    from fedpkg.api.encoding import encode, pieces
    from fedpkg.api.opening import opened

    with opened(root) as at:
        first = next(iter(values.list_validations(at, LARGE, round_number=3)))
        ten = [f"client-{number:04d}" for number in range(10)]
        asked: list[tuple[str, Callable[[], Any]]] = [
            ("list of sessions", lambda: sessions.list_sessions(at)),
            ("session", lambda: sessions.get_session(at, LARGE)),
            ("20 curves", lambda: metrics.all_series(at, LARGE)),
            ("rounds", lambda: rounds.list_rounds(at, LARGE)),
            ("100 clients", lambda: clients.list_clients(at, LARGE)),
            ("one client", lambda: clients.get_client(at, LARGE, "client-0100")),
            ("history of a client", lambda: clients.client_history(at, "client-0001")),
            ("lines of 10 clients", lambda: values.client_lines(at, LARGE, "test_loss", ten)),
            ("failures", lambda: tasks.list_failures(at, LARGE)),
            ("kinds of failures", lambda: tasks.failure_kinds(at, LARGE)),
            ("graph of models", lambda: models.model_graph(at, LARGE)),
            ("one validation", lambda: values.get_validation(at, first.task_id)),
        ]  # fmt: skip
        for name, ask in asked:
            times, size = [], 0
            for _ in range(5):
                begun = time.process_time()
                size = len(encode(ask()))
                times.append(time.process_time() - begun)
            print(f"{name:24s} {1e3 * min(times):8.1f} ms  {size / 1e3:8.1f} kB  {_memory_mb():6.1f} MB")
        before, begun, count, size = _memory_mb(), time.process_time(), 0, 0
        for piece in pieces(_counted(values.list_validations(at, LARGE), 100_000), "json"):
            count, size = count + 1, size + len(piece)
        seconds = time.process_time() - begun
        told = f"{seconds:.2f} s, {size / MB:.1f} MB in {count} pieces, {before:.0f} → {_memory_mb():.0f} MB"
        print(f"100,000 validations: {told}")


def serve(root: Path) -> None:
    """Print the wall time of answers of ``fedpkg dashboard``, and the memory of its process."""
    words = [sys.executable, "-m", "fedpkg", "--home", str(root), "dashboard", "--no-open", "--read-only", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        client = RemoteClient(json.loads(server.stdout.readline())["view"])
        try:
            for path in ("/sessions", *(f"/sessions/{LARGE}{part}" for part in _PARTS)):
                begun = time.perf_counter()
                client.get(path)
                print(f"{path:40s} {1e3 * (time.perf_counter() - begun):8.1f} ms  {_peak_mb(server.pid):6.1f} MB")
            begun, number, size = time.perf_counter(), 0, 0
            with client._open(f"/sessions/{LARGE}/validations", {"form": "jsonl"}) as lines:
                while number < 100_000 and (line := lines.readline()):
                    number, size = number + 1, size + len(line)
            told = f"{time.perf_counter() - begun:.1f} s, {size / MB:.1f} MB; the server {_peak_mb(server.pid):.0f} MB"
            print(f"{number} validations: {told}")
        finally:
            server.send_signal(signal.SIGINT)


_PARTS = ("", "/curves", "/rounds", "/clients", "/failures", "/failure-kinds", "/models", "/configuration")


def _peak_mb(pid: int) -> float:
    """The largest resident memory of a process so far."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _counted(items: Iterator[Any], most: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number == most:
            return
        yield item


def _memory_mb() -> float:
    """The largest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "measure", "serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--clients", type=int, default=1000)
    given = parser.parse_args()
    if given.what == "make":
        begun = time.process_time()
        make(given.folder, sessions=given.sessions, rounds=given.rounds, clients=given.clients)
        size = os.stat(given.folder / "state.db").st_size
        print(json.dumps({"cpu_seconds": round(time.process_time() - begun, 1), "state_mb": round(size / MB, 1)}))
    elif given.what == "measure":
        measure(given.folder)
    else:
        serve(given.folder)


if __name__ == "__main__":
    main()
