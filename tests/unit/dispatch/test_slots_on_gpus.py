"""A task sees the GPUs of its slot and no others. The GPUs are made up: what a task sees is a matter of variables."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workbench import PATIENCE_S, Bench, inline, make_bench

from fedpkg.devices import Gpu, Machine, Needs, Slot, cpu_slots, plan_slots
from fedpkg.dispatch.site import PackageOnDisk

SEES = """
with open(os.environ["FEDPKG_TASK"]) as file:
    record = json.load(file)
names = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG"
seen = {name: os.environ.get(name) for name in names}
seen.update(pid=os.getpid(), device=record["device"], gpus=record["gpus"])
"""
MEETS_OTHERS = f"""
import socket
{SEES}
with socket.create_connection(("127.0.0.1", int(os.environ["MEETING"]))) as connection:
    connection.sendall(json.dumps(seen).encode() + b"\\n")
    connection.recv(1)  # until all are there
tell(**seen)
"""


def four_gpus(share: float, workers: int) -> list[Slot]:
    gpus = tuple(Gpu("made up", f"GPU-{n}", str(n), 10**10, 10**10) for n in range(4))
    return plan_slots(Machine(8, 10**10, 10**10, gpus), Needs(gpus=share), workers)


def tells(package: PackageOnDisk, bench: Bench, **fields: Any) -> dict[str, Any]:
    told = bench.told(package, **fields)
    assert isinstance(told, dict)
    return told


def test_task_of_a_slot_without_gpus_sees_none(
    open_bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    package = inline(tmp_path, SEES + "tell(**seen)")
    seen = tells(package, open_bench(package, slots=1))
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["device"], seen["gpus"]) == ("", "cpu", [])
    assert seen["CUBLAS_WORKSPACE_CONFIG"] is None


def test_task_sees_the_gpus_of_its_slot_whatever_its_environment_says(
    open_bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    package = inline(tmp_path, SEES + "tell(**seen)")
    bench = open_bench(package, slots=four_gpus(3, 1))
    theirs = {"CUDA_VISIBLE_DEVICES": "9", "CUDA_DEVICE_ORDER": "x", "CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    seen = tells(package, bench, environment=theirs)
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("0,1,2", "PCI_BUS_ID")
    assert (seen["device"], seen["gpus"]) == ("cuda", ["0", "1", "2"])
    assert seen["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # fedpkg's is only a default
    assert tells(package, bench)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@contextlib.contextmanager
def meeting(listener: socket.socket, count: int) -> Iterator[list[dict[str, Any]]]:
    """What ``count`` tasks say that run at the same time; they wait until the end of the block."""
    with contextlib.ExitStack() as stack:
        said = []
        for _ in range(count):
            connection, _address = listener.accept()
            stack.enter_context(connection)
            connection.settimeout(PATIENCE_S)
            said.append(json.loads(stack.enter_context(connection.makefile()).readline()))
        yield said


@pytest.mark.every_push("forkserver|resident")
def test_two_tasks_share_each_gpu_at_the_same_time_and_a_resident_keeps_to_its_own(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    package = inline(tmp_path, MEETS_OTHERS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        port = str(listener.getsockname()[1])
        bench = open_bench(package, slots=four_gpus(0.5, 8), MEETING=port)
        processes = []
        for _ in range(3):
            futures = [bench.submit(package) for _ in range(8)]
            with meeting(listener, 8) as said:
                assert Counter(one["CUDA_VISIBLE_DEVICES"] for one in said) == {"0": 2, "1": 2, "2": 2, "3": 2}
                processes.append({one["pid"]: one["CUDA_VISIBLE_DEVICES"] for one in said})
                assert len(processes[-1]) == 8
            for future in futures:
                assert future.result(PATIENCE_S).status == "ok"
    if bench.name == "resident":  # one process a slot, and its GPU stays the same
        assert processes[0] == processes[1] == processes[2]


def test_resident_that_fails_is_replaced_by_one_on_the_same_gpu(tmp_path: Path) -> None:
    package = inline(tmp_path, SEES + "tell(**seen)\nsys.exit(int(os.environ['CODE']))")
    bench = make_bench("resident", tmp_path, package, slots=four_gpus(1, 4)[2:3])
    try:
        before = tells(package, bench, environment={"CODE": "0"})
        assert bench.run(package, environment={"CODE": "3"}).status == "failed"
        after = tells(package, bench, environment={"CODE": "0"})
    finally:
        bench.executor.close()
    assert before["pid"] != after["pid"]
    assert before["CUDA_VISIBLE_DEVICES"] == after["CUDA_VISIBLE_DEVICES"] == "2"


# What a PyTorch with CUDA says in a process whose parent has used it, without a GPU at hand.
USES_CUDA = """
import os, torch
ours = os.getpid()
torch.cuda._is_in_bad_fork = lambda: os.getpid() != ours
"""


@pytest.mark.soak
@pytest.mark.parametrize("on_gpus", [True, False])
def test_import_that_uses_cuda_at_once_runs_cold_where_tasks_have_gpus(
    on_gpus: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = tmp_path / "anderswo é"
    site.mkdir()
    (site / "uses_cuda_at_once.py").write_text(USES_CUDA)
    package = inline(tmp_path, "import uses_cuda_at_once, torch\ntell(bad=torch.cuda._is_in_bad_fork())")
    slots = four_gpus(1, 1) if on_gpus else cpu_slots(1)
    bench = make_bench("forkserver", tmp_path, package, slots=slots, PYTHONPATH=str(site))
    try:
        assert bench.told(package) == {"bad": not on_gpus}
    finally:
        bench.executor.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["initialises CUDA" in warning for warning in warnings] == [True] * on_gpus
