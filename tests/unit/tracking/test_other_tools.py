"""Weights & Biases (offline) and MLflow (at a server on loopback): what was recorded is read back from their stores."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.session import tracking
from fedpkg.stores.base import SweepPointRow, SweepRow
from fedpkg.tracking.base import TrackedRun

ROUNDS: dict[str, Any] = {"clients": 3, "rounds": 3, "validation": {"every": 1}}


def wandb_records(folder: Path) -> Iterator[Any]:
    """The records of an offline run: protobuf in the format of LevelDB's log (blocks of 32 KiB, parts with headers)."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, content = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        content += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(content)
            content = b""
            yield record


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_wandb_records_a_session_offline(
    federation: Federation, at_once: AtOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setattr(tracking, "PATIENCE_S", 120.0)
    monkeypatch.setattr(socket, "create_connection", None)  # nothing leaves the machine
    session = federation.run(**ROUNDS, tracking=[{"name": "wandb", "aggregates": ["std"]}])
    records = list(wandb_records(federation.home.session_folder(session.session_id)))
    history = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            history.append(items)
    rows = federation.store.list_metric_rows(session.session_id, phase="validate")
    expected = {row.round_number: row for row in rows if row.metric == "mean"}
    assert {one["_step"]: one["validate/mean"] for one in history} == {
        number: row.weighted_mean for number, row in expected.items()
    }
    assert {one["_step"]: one["validate/mean/std"] for one in history} == {n: row.std for n, row in expected.items()}
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert run.run_id == re.sub(r"[^\w-]", "-", session.session_id)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for library in ("mlflow", "sqlalchemy", "flask"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("mlflow server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", "sqlite:///m.db"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(folder)],
        cwd=folder,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_a_run_for_each_session_of_a_sweep_below_one_for_the_sweep(
    federation: Federation, at_once: AtOnce, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(tracking, "PATIENCE_S", 120.0)  # its import alone takes seconds

    section = {"name": "mlflow", "uri": mlflow_server, "experiment": "digits ü"}
    session = federation.run(**ROUNDS, tracking=[section])
    folder = federation.home.session_folder(session.session_id)
    client = MlflowClient(tracking_uri=mlflow_server)
    run_id = json.loads((folder / "tracking" / "mlflow.json").read_text())["kept"]["run_id"]
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED" and found.data.params["rounds"] == "3"
    assert found.data.params["clients.count"] == "3"

    from fedpkg.stores.opening import open_store

    with open_store(federation.home) as store:
        sweep = SweepRow(name="lr", kind="grid", source="run.yaml", overrides=[], created_at=1.0, updated_at=1.0)
        point = SweepPointRow(sweep="lr", number=0, choices={"lr": 0.1}, session_id=session.session_id)
        store.sweeps.create(sweep, [point])
    # Killed after round 3 was sent, and before that was noted.
    (folder / "tracking" / "mlflow.json").write_text(json.dumps({"rounds": 2, "kept": _kept(folder)}))
    federation.resume(session.session_id, rounds=4)
    history = client.get_metric_history(run_id, "validate/mean")
    rows = federation.store.list_metric_rows(session.session_id, phase="validate")
    expected = [(row.round_number, row.weighted_mean) for row in rows if row.metric == "mean"]
    assert sorted((one.step, one.value) for one in history) == expected
    found = client.get_run(run_id)
    parent = client.get_run(found.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["fedpkg.sweep"] == "lr" and found.data.tags["choice.lr"] == "0.1"


def _kept(folder: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((folder / "tracking" / "mlflow.json").read_text())["kept"]
    return kept


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_without_its_server_fails_and_names_no_round_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from fedpkg.tracking.mlflow import Mlflow

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and not listening
        tracker = Mlflow(uri=f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(Exception, match=r"127\.0\.0\.1"):
            tracker.begin(TrackedRun("s", "s", tmp_path, {}, 1))
    tracker.end("failed")
