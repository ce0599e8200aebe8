"""Control groups: found, made, used and removed, and none touched that is not ours. Where there are any."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from workbench import wait_until

from fedpkg.control_groups import own_groups
from fedpkg.dispatch.cgroups import Delegated, Group, clear, delegated
from fedpkg.dispatch.keepers import Call, Zygote
from fedpkg.waist.order import Limits


@pytest.fixture
def bare() -> Iterator[Delegated]:
    """A cgroup made for one test, whose controllers are none."""
    own = next(own_groups(), None)
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("there is no cgroup v2 that this user may write to")
    folder = own / f"fedpkg test {os.getpid()}"
    folder.mkdir()
    yield Delegated(folder, ())
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    folder.rmdir()


def call(folder: Path, script: str) -> Call:
    return Call(
        cwd=folder,
        environ=dict(os.environ),
        stdout=folder / "out.log",
        stderr=folder / "err.log",
        log_bytes=1000,
        timeout_s=60,
        limits=Limits(memory_bytes=1 << 30, processes=50),
        shell=script,
    )


def test_keeper_and_its_task_live_in_a_group_of_their_own(bare: Delegated, tmp_path: Path) -> None:
    with closing(Zygote(sys.executable, [], environ=os.environ, log=tmp_path / "log", cgroup=bare)) as zygote:
        keeper = zygote.keeper(warm=False)
        keeper.start(call(tmp_path, "cat /proc/self/cgroup"))
        assert keeper.outcome().exit_code == 0
        (group,) = [path for path in bare.folder.iterdir() if path.is_dir()]
        (slot,) = [path for path in group.iterdir() if path.is_dir()]
        assert group.name.startswith(f"fedpkg-{os.getpid()}-")
        assert (tmp_path / "out.log").read_text().splitlines()[-1].endswith(f"/{group.name}/{slot.name}")


def test_group_kills_all_in_it_at_once(bare: Delegated) -> None:
    group = Group(bare)
    forks = "for _ in range(6): os.fork() or os.setsid()"
    code = f"import os, time\ninput()\n{forks}\nos.write(1, b'there\\n')\ntime.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        slot = group.slot(process.pid)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(64)] == [b"there\n"] * 64
        procs = group.folder / f"keeper-{process.pid}" / "cgroup.procs"
        slot.kill()
        assert process.wait(10) == -9
        wait_until(lambda: not procs.read_text(), "the end of all in the group")
    group.close()


def test_group_of_a_process_that_is_no_more_is_cleared_away(bare: Delegated) -> None:
    code = f"""
from pathlib import Path
from fedpkg.dispatch.cgroups import Delegated, Group
import os
Group(Delegated(Path({str(bare.folder)!r}), ())).folder.joinpath("keeper-1").mkdir()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    foreign, ours = bare.folder / "somebody's", Group(bare)
    assert [path.name for path in bare.folder.iterdir() if path.is_dir()] == [ours.folder.name]
    foreign.mkdir()
    clear(bare.folder)
    assert foreign.is_dir() and ours.folder.is_dir()
    foreign.rmdir()
    ours.close()


def test_nothing_is_taken_for_delegated_that_is_not(tmp_path: Path) -> None:
    found = delegated()
    if found is None:
        pytest.skip("no cgroup v2 with controllers is delegated to this user here; doctor says so, too")
    with closing(Zygote(sys.executable, [], environ=os.environ, log=tmp_path / "log", cgroup=found)) as zygote:
        keeper = zygote.keeper(warm=False)
        keeper.start(call(tmp_path, "cat $(sed -n 's,^0::,/sys/fs/cgroup,p' /proc/self/cgroup)/pids.max"))
        assert keeper.outcome().exit_code == 0
        assert (tmp_path / "out.log").read_text() == f"{8 * 50 + 4}\n"
