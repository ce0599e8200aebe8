"""Processor time and peak memory of a task: of its main process and of what that starts, in every kind of call."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedpkg.dispatch.isolation import trace
from fedpkg.dispatch.keepers import Call, Keeper, Outcome
from fedpkg.dispatch.limits import Limits
from fedpkg.dispatch.zygotes import ZYGOTE, Zygote
from fedpkg.means import means

MIB = 1 << 20
BUSY = "import os, time\nbegan = time.process_time()\nwhile time.process_time() < began + 0.4: pass\n"
FILL = f"block = bytearray(b'x') * {300 * MIB}\ndel block\n"
ENVIRON = {**os.environ, "PYTHONPATH": str(ZYGOTE.parent / "path"), "OMP_NUM_THREADS": "1"}
_numbers = itertools.count()


class Desk:
    """Runs scripts by one keeper, in one of the ways in which tasks run."""

    def __init__(self, kind: str, folder: Path, keeper: Keeper, by: str | None) -> None:
        self.kind = kind
        self.folder = folder
        self.keeper = keeper
        self.by = by

    def run(self, code: str, *, ends_well: bool = True) -> Outcome:
        folder = self.folder / f"Aufgabe {next(_numbers)} ü"
        folder.mkdir()
        (folder / "script.py").write_text(code)
        how: dict[str, Any] = {"shell": f"{sys.executable} script.py"}
        if self.kind != "cold":
            how = {"script": "script.py", "resident": self.kind == "resident"}
        self.keeper.start(
            Call(
                cwd=folder,
                environ=ENVIRON,
                stdout=folder / "out.log",
                stderr=folder / "err.log",
                log_bytes=10_000,
                timeout_s=100,
                limits=Limits(memory_bytes=64 << 30, processes=512),
                isolation=None if self.by is None else self.isolation(folder),
                **how,
            )
        )
        outcome = self.keeper.outcome()
        assert (outcome.exit_code == 0) == ends_well, outcome
        return outcome

    def isolation(self, folder: Path) -> dict[str, Any]:
        programs = ("/usr", "/bin", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(Path(__file__).parents[3]))
        view = trace((*programs, str(folder)))
        write, root = [os.path.realpath(folder)], self.folder / "root"
        root.mkdir(exist_ok=True)
        return {
            "by": self.by,
            "network": False,
            "read": [path for path in view.read if path not in write],
            "links": view.links,
            "folders": view.folders,
            "write": write,
            "guarded": [],
            "devices": ["/dev/null", "/dev/zero", "/dev/urandom"],
            "empty": {},
            "root": os.path.realpath(root),
        }


@pytest.fixture(params=["cold", "warm", "resident", "cold, isolated", "warm, isolated"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    kind, _, isolated = request.param.partition(", ")
    by = means().warm if isolated else None
    if isolated and by is None:
        pytest.skip("this machine has neither namespaces nor Landlock")
    with closing(Zygote(sys.executable, [], environ=ENVIRON, log=tmp_path / "log", apart=by == "namespaces")) as zygote:
        yield Desk(kind, tmp_path, zygote.keeper(warm=kind != "cold"), by)


@pytest.mark.every_push("^resident$|^warm$")
def test_processor_time_is_that_of_the_task_alone(desk: Desk) -> None:
    assert 0.4 <= desk.run(BUSY).cpu_s < 2
    assert desk.run("pass").cpu_s < 0.4


@pytest.mark.every_push("^cold$|warm, isolated")
def test_processor_time_of_children_counts(desk: Desk) -> None:
    code = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.4: pass
    os._exit(0)
os.wait()
"""
    ticks_s = 0.02 if desk.kind == "resident" else 0.0  # user and system time of its children, each cut to 10 ms
    assert 0.4 - ticks_s <= desk.run(code).cpu_s < 2


@pytest.mark.every_push("^warm$|cold, isolated")
def test_processor_time_of_orphans_counts(desk: Desk) -> None:
    code = """
import os, time
ours, theirs = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 0.4: pass
        os.write(theirs, b"x")
    os._exit(0)
os.wait()
os.read(ours, 1)
"""
    assert 0.4 <= desk.run(code).cpu_s < 2


@pytest.mark.every_push("^warm$|cold, isolated")
def test_processor_time_of_a_task_that_fails_counts(desk: Desk) -> None:
    desk.run(BUSY)
    assert 0.4 <= desk.run(BUSY + "raise SystemExit(3)", ends_well=False).cpu_s < 2
    assert 0.4 <= desk.run(BUSY + "os.kill(os.getpid(), 9)", ends_well=False).cpu_s < 2


def test_peak_memory_is_that_of_the_task_alone(desk: Desk) -> None:
    assert 300 * MIB <= desk.run(FILL).peak_memory_bytes < 500 * MIB
    assert 0 < desk.run("pass").peak_memory_bytes < 100 * MIB
