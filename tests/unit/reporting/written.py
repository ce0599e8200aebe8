"""Homes whose sessions were never run: their rows are written straight into the store."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

from fedpkg.controller.metric_rows import metric_rows
from fedpkg.controller.metrics import average
from fedpkg.stores.base import (
    ClientRow,
    ModelRow,
    PackageRow,
    RequestRow,
    RoundRow,
    SessionRow,
    TaskRow,
    ValidationRow,
)
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store

HOSTILE = "</pre><script>document.title='hacked'</script><img src=x onerror=alert(1)>\x1b[31m\u202e&\"'"


def write_session(
    root: Path,
    session_id: str = "digits-1",
    *,
    rounds: int = 5,
    clients: int = 4,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    reaches: float = 0.95,
    fails_every: int = 7,
    log: str = "ValueError: no such column",
    status: str = "finished",
    has_files: bool = False,
    is_former: bool = False,
) -> Home:
    """A session of ``rounds`` whose test_accuracy approaches ``reaches``; every k-th task fails.

    ``has_files``: models and logs have files. ``is_former``: no aggregates are on record, as of fedpkg 0.1.
    """
    home = Home.open(root)
    rng = random.Random(seed)
    names = [f"client-{number:03d}" for number in range(clients)]
    data = {"dataset": "sklearn/digits", "partition": {"name": "dirichlet", "alpha": 0.5}}
    values = {
        "name": "digits", "package": "/work/packages/digits", "seed": seed, "rounds": rounds,
        "strategy": {"name": "fedavg"}, "sampler": {"name": "uniform"},
        "executor": {"name": "forkserver", "workers": 2}, "clients": {"count": clients, "data": data},
        "arguments": {"train": {"lr": 0.1}},
    }  # fmt: skip
    row = SessionRow(
        session_id=session_id, name="digits", config={**values, **(config or {})}, package_digest="p" * 64, seed=seed,
        num_rounds=rounds, created_at=1.7e9, updated_at=1.7e9, status=status,  # type: ignore[arg-type]
    )  # fmt: skip
    with open_store(home) as store:
        store.add_package(PackageRow(digest="p" * 64, name="p", size_bytes=1, entry_points={}, created_at=1.0))
        folder = _write_split(home, names, rng)
        key = {"session_id": session_id}
        parts = [
            ClientRow(**key, client_id=name, position=k, data_path=f"{folder}/{k}.npz", num_examples=50 + k)
            for k, name in enumerate(names)
        ]
        store.create_session(row, parts, seed_model=_model(session_id, 0, names))
        for number in range(1, rounds + 1):
            _write_round(store, session_id, number, names, rng, reaches, fails_every, log, is_former)
        if has_files:
            _write_files(home, store.list_models(session_id), session_id, log)
    return home


def _write_files(home: Home, models: list[ModelRow], session_id: str, log: str) -> None:
    for model in models:
        path = ModelStore(home.models).path(model.digest, model.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.model_id.encode())
        path.chmod(0o444)
    folder = home.session_folder(session_id) / "round-1" / "client-000" / "train"
    folder.mkdir(parents=True)
    (folder / "stderr.log").write_text(log)
    (folder / "stdout.log").write_text("")


def _write_split(home: Home, names: list[str], rng: random.Random) -> str:
    """The manifest of a split, as a run makes it; returns its folder from the home."""
    folder = home.data / "0123456789abcdef"
    folder.mkdir(exist_ok=True)
    counts = [[rng.choice([0, 0, 5, 20, 60]) for _ in range(10)] for _ in names]
    entries = [{"file": f"{k}.npz", "size_bytes": 1, "num_examples": 50 + k} for k in range(len(names))]
    manifest = {"settings": {}, "partitions": entries, "labels": list(range(10)), "counts": {"train": counts}}
    (folder / "partition.json").write_text(json.dumps(manifest))
    return "data/0123456789abcdef"


def _model(session_id: str, number: int, names: list[str]) -> ModelRow:
    return ModelRow(
        digest=f"{number:04x}" * 16, session_id=session_id, round_number=number, suffix=".npz", keys="names",
        size_bytes=52_000, created_at=1.7e9 + number, parent_id=f"{session_id}.{number - 1}" if number else None,
        contributors=[{"client_id": name, "num_examples": 50} for name in names] if number else [],
    )  # fmt: skip


def _write_round(
    store: Any,
    session_id: str,
    number: int,
    names: list[str],
    rng: random.Random,
    reaches: float,
    fails_every: int,
    log: str,
    is_former: bool,
) -> None:
    mean = reaches * (1 - math.exp(-number / 4))
    key = {"session_id": session_id, "round_number": number}
    counted = [name for k, name in enumerate(names) if (number + k) % fails_every]
    begun = RoundRow(**key, cohort=names, target=len(names), started_at=1.7e9 + number)
    store.begin_round(begun)
    request = RequestRow(
        **key, request_id="1", number=1, entry_point="train", reply_kind="update", cohort=names, target=1,
        started_at=1.7e9 + number, status="answered", counted=counted, wall_s=0.4, num_ok=len(counted),
        num_failed=len(names) - len(counted), bytes_down=52_000 * len(names), bytes_up=52_000 * len(counted),
    )  # fmt: skip
    store.record_requests([request])
    validated = []
    for k, name in enumerate(names):
        task = f"{session_id}/{number}/{name}"
        common = {**key, "client_id": name, "position": k, "attempt": 1, "started_at": 1.7e9 + number, "wall_s": 0.1}
        if name not in counted:
            failure = {"failure": "exit_code", "message": f"'train' exited with code 1 {log}", "log_tail": log}
            store.record_task(TaskRow(task_id=task, status="failed", entry_point="train", **failure, **common))
            continue
        store.record_task(TaskRow(task_id=task, status="ok", entry_point="train", **common))
        accuracy = min(1.0, max(0.0, mean + rng.gauss(0, 0.05)))
        validation = ValidationRow(
            **key, task_id=f"{task}/v", model_id=f"{session_id}.{number}", client_id=name, weight=50.0,
            metrics={"test_accuracy": accuracy, "test_loss": -math.log(accuracy + 0.01), "num_examples": 50},
            weight_source="reply",
        )  # fmt: skip
        validated.append((TaskRow(task_id=f"{task}/v", status="ok", entry_point="validate", **common), validation))
    told: list[Any] = [(validation.metrics, (50.0, "reply")) for _, validation in validated]
    done = dataclasses.replace(
        begun, status="finished", counted=counted, wall_s=0.5, num_ok=len(counted),
        num_failed=len(names) - len(counted), num_examples=50.0 * len(counted), finished_at=1.7e9 + number,
        metrics=average(told).values, train_metrics={"loss": 2 * math.exp(-number / 5)},
        model_id=f"{session_id}.{number}",
    )  # fmt: skip
    store.commit_round(dataclasses.replace(done, status="aggregated"), _model(session_id, number, counted))
    for task, validation in validated:
        store.record_task(task, validation=validation)
    rows = [] if is_former else metric_rows(told, **key, phase="validate")
    rows += [] if is_former else metric_rows([(done.train_metrics, (1.0, "reply"))], **key, phase="train")
    store.finish_round(done, metric_rows=rows)
