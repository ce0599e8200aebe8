"""Nothing that a task starts outlives it, whatever ends it; nothing outlives the process that holds the executor."""

from __future__ import annotations

import dataclasses
import importlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workbench import (
    PATIENCE_S,
    Bench,
    inline,
    is_alive,
    log,
    make_bench,
    marked,
    parent_of,
    wait_until,
)

from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.dispatch.keepers import FORK_PATIENCE_S
from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.dispatch.zygotes import ZYGOTE
from fedpkg.errors import DispatchError
from fedpkg.waist import slots
from fedpkg.waist.slots import occupied_slots

# The main process, a child, a grandchild, a daemon with a session of its own, a shell; all ignore SIGTERM, and each
# leaves a file named after its process id in the folder --pids.
FAMILY = """
import signal, subprocess, time
pids = next(word for word in sys.argv if word.startswith("--pids=")).partition("=")[2]
def note():
    open(f"{pids}/{os.getpid()}", "w")
def live():
    note()
    time.sleep(600)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
if os.fork() == 0:
    if os.fork() == 0:
        live()
    live()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        live()
    os._exit(0)
subprocess.Popen(["sh", "-c", f"trap '' TERM; : > '{pids}'/$$; while :; do sleep 600; done"])
note()
while len(os.listdir(pids)) < 5:
    time.sleep(0.001)
"""
FOREVER = FAMILY + "time.sleep(600)\n"


@pytest.fixture
def pids(tmp_path: Path) -> Callable[[], list[int]]:
    """The process ids of a family, once they are complete."""
    (tmp_path / "pids").mkdir()

    def read() -> list[int]:
        found = [int(path.name) for path in (tmp_path / "pids").iterdir()]
        return found if len(found) == 5 else []

    return lambda: wait_until(read, "five processes")


def all_gone(pids: list[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


# ---- the end of a task


def test_timeout_ends_all_of_a_task(bench: Bench, tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    arguments = {"pids": str(tmp_path / "pids")}
    result = bench.run(inline(tmp_path, FOREVER), arguments=arguments, timeout_s=1.0)
    assert result.failure is not None
    assert (result.failure.kind, result.signal) == ("timeout", signal.SIGKILL)
    assert result.failure.message == "'validate' was ended after its time limit of 1 s"
    assert 1.0 <= result.wall_s < 600
    assert all_gone(pids())
    assert not result.task.next_state.exists()


def test_cancel_ends_all_of_a_running_task(bench: Bench, tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    task = bench.task(inline(tmp_path, FOREVER), arguments={"pids": str(tmp_path / "pids")})
    future = bench.executor.submit(task)
    family = pids()
    bench.executor.cancel(task.task_id)
    result = future.result(5)
    assert (result.status, result.failure) == ("cancelled", None)
    assert all_gone(family)
    assert not task.next_state.exists()


def test_what_an_ok_task_leaves_behind_is_gone_before_its_result(
    bench: Bench, tmp_path: Path, pids: Callable[[], list[int]]
) -> None:
    code = FAMILY + "tell(ok=True)\n"
    assert bench.told(inline(tmp_path, code), arguments={"pids": str(tmp_path / "pids")}) == {"ok": True}
    assert all_gone(pids())


def test_daemon_cannot_write_into_a_reply_that_was_taken(
    bench: Bench, misbehave: PackageOnDisk, model: Path, tmp_path: Path
) -> None:
    # Whatever it wrote before its end, the file is read after it, and then stays as it is.
    arguments = {"how": "daemon_writes", "pid_file": str(tmp_path / "pid")}
    result = bench.run(misbehave, "train", model=model, arguments=arguments)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert result.status == "failed" or result.weights is not None


def test_daemon_that_holds_the_log_open_delays_nothing(
    bench: Bench, misbehave: PackageOnDisk, model: Path, tmp_path: Path
) -> None:
    arguments = {"how": "daemon", "pid_file": str(tmp_path / "pid")}
    result = bench.run(misbehave, "train", model=model, arguments=arguments)
    assert result.status == "ok", log(result)
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_daemon_that_hops_from_process_to_process_is_caught(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    tell()
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            open("hops", "a").write(f"{os.getpid()}\\n")
        os._exit(0)
    while not os.path.exists("hops"):
        pass
    """
    result = bench.run(inline(tmp_path, code))
    assert result.status == "ok"
    hops = result.task.next_state / "package" / "client" / "hops"
    before = hops.read_text()
    assert all_gone([int(pid) for pid in before.split()])
    assert bench.run(inline(tmp_path, "tell()")).status == "ok"
    assert hops.read_text() == before


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), 9)", "os.killpg(0, 15)", "import ctypes; ctypes.string_at(0)"])
def test_death_by_signal_is_told_by_name(bench: Bench, tmp_path: Path, how: str) -> None:
    result = bench.run(inline(tmp_path, how))
    assert result.failure is not None
    name = {"os.kill(": "SIGKILL", "os.killp": "SIGTERM"}.get(how[:8], "SIGSEGV")
    assert (result.failure.kind, result.exit_code) == ("signal", None)
    assert f"was killed by {name}" in result.failure.message


# ---- cancel and close


@pytest.mark.every_push("forkserver|resident")
def test_task_cancelled_before_its_interpreter_is_ready_is_cancelled(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(slots=2)
    tasks = [bench.task(inline(tmp_path, "tell()")) for _ in range(4)]
    futures = [bench.executor.submit(task) for task in tasks]
    for task in tasks:
        bench.executor.cancel(task.task_id)
    assert {future.result(20).status for future in futures} <= {"cancelled", "ok"}
    assert futures[-1].result().status == "cancelled"
    assert bench.run(inline(tmp_path, "tell()"), task_id=tasks[0].task_id).status == "ok"  # the id means nothing now


def test_slots_are_free_on_the_board_when_their_tasks_have_ended(
    bench: Bench, tmp_path: Path, pids: Callable[[], list[int]]
) -> None:
    task = bench.task(inline(tmp_path, FOREVER), arguments={"pids": str(tmp_path / "pids")})
    future, home = bench.executor.submit(task), bench.executor.site.home
    pids()
    assert [one.task_id for one in occupied_slots(home)] == [task.task_id]
    bench.executor.cancel(task.task_id)
    assert future.result(5).status == "cancelled" and occupied_slots(home) == []


def test_close_ends_everything(open_bench: Callable[..., Bench], tmp_path: Path, pids: Callable[[], list[int]]) -> None:
    bench = open_bench(slots=2)
    package = inline(tmp_path, FOREVER)
    running = [bench.submit(package, arguments={"pids": str(tmp_path / "pids")})]
    family = pids()
    running += [bench.submit(package, arguments={"pids": str(tmp_path / "pids")}) for _ in range(3)]
    home = bench.executor.site.home
    wait_until(lambda: [one.slot for one in occupied_slots(home)] == [0, 1], "both slots on the board")
    assert all(one.entry_point and one.since > 0 for one in occupied_slots(home))
    bench.executor.close()
    assert not (home / slots.NAME).exists()
    assert [future.result(0).status for future in running] == ["cancelled"] * 4
    assert not any(future.result().task.next_state.exists() for future in running)
    assert all_gone(family)
    assert marked(bench.mark) == []
    bench.executor.close()
    with pytest.raises(DispatchError, match="closed"):
        bench.submit(package)


def test_close_does_not_wait_for_imports(tmp_path: Path, open_bench: Callable[..., Bench]) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "endless_import.py").write_text("import time\ntime.sleep(600)\n")
    package = inline(tmp_path, "import endless_import")
    bench = open_bench(package, slots=1, PYTHONPATH=str(site))
    future = bench.submit(package)
    wait_until(lambda: marked(bench.mark), "a process")
    bench.executor.close()
    assert future.result(0).status == "cancelled"


# ---- somebody is killed


@pytest.mark.parametrize("name", ["process", "forkserver", "resident"])
def test_killed_holder_of_the_executor_leaves_no_process(
    name: str, tmp_path: Path, pids: Callable[[], list[int]]
) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workbench import inline, make_bench
folder = Path({str(tmp_path)!r})
package = inline(folder, {FOREVER!r})
bench = make_bench({name!r}, folder, package)
futures = [bench.submit(package, arguments={{"pids": str(folder / "pids")}}) for _ in range(2)]
print(bench.mark, flush=True)
futures[0].result()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        mark = holder.stdout.readline().strip()
        wait_until(lambda: len(list((tmp_path / "pids").iterdir())) >= 5, "the tasks")
        assert len(marked(mark)) >= 5
        holder.kill()
    wait_until(lambda: marked(mark) == [], "the end of all processes")
    assert all_gone([int(path.name) for path in (tmp_path / "pids").iterdir()])


# A task that does to the processes above it what the kernel may do when memory runs out, as often as --times says.
UNLUCKY = """
import signal, time
times = int(next(word for word in sys.argv if word.startswith("--times=")).partition("=")[2])
tries = open("../../../tries", "a+")
tries.write(f"{os.getpid()} {os.getcwd()}\\n")
tries.seek(0)
keeper = os.getppid()
stat = open(f"/proc/{keeper}/stat").read().rpartition(")")[2].split()
open("state.txt", "a").write("x")
if len(list(tries)) <= times:
    for pid in [int(stat[1]), keeper] if "--zygote=true" in sys.argv else [keeper]:
        os.kill(pid, signal.SIGKILL)
    time.sleep(600)
tell(seed=os.environ["FEDPKG_SEED"], state=open("state.txt").read())
"""


@pytest.mark.parametrize("what", ["keeper", "zygote"])
@pytest.mark.every_push("forkserver|resident-keeper")
def test_task_whose_keeper_is_killed_runs_again_twice_from_the_same_state(
    open_bench: Callable[..., Bench], tmp_path: Path, what: str
) -> None:
    bench = open_bench(slots=1)
    package = inline(tmp_path, UNLUCKY)
    task = bench.task(package, arguments={"times": 2, "zygote": str(what == "zygote").lower()}, seed=7)
    result = bench.executor.submit(task).result(PATIENCE_S)
    assert result.status == "ok", result.failure
    assert result.metrics == {"seed": "7", "state": "x"}
    assert (result.task.next_state / "state").is_dir()
    tries = [line.split(maxsplit=1) for line in (task.folder.parent / "tries").read_text().splitlines()]
    assert len({folder for _, folder in tries}) == 3, "each in a place that no earlier one can write to"
    left = sorted(path.name for path in task.folder.parent.iterdir() if path.name != "tries")
    assert left == ["state.again-2", "task.again-2", "task.again-2.reply"]
    wait_until(lambda: all_gone([int(pid) for pid, _ in tries[:-1]]), "the end of those that were lost")


@pytest.mark.every_push("forkserver")
def test_task_whose_keeper_is_killed_three_times_fails_and_the_next_one_works(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(slots=1)
    task = bench.task(inline(tmp_path, UNLUCKY), arguments={"times": 3})
    result = bench.executor.submit(task).result(PATIENCE_S)
    assert result.failure is not None
    assert (result.status, result.failure.kind) == ("failed", "executor")
    assert "keeper" in result.failure.message
    assert bench.told(inline(tmp_path, "tell(next=True)")) == {"next": True}


@pytest.mark.slow
def test_killed_keeper_takes_its_task_s_family_with_it(
    open_bench: Callable[..., Bench], tmp_path: Path, pids: Callable[[], list[int]]
) -> None:
    bench = open_bench(slots=1)
    code = "open('../../../main', 'w').write(str(os.getpid()))\n" + FOREVER
    task = bench.task(inline(tmp_path, code), arguments={"pids": str(tmp_path / "pids")})
    future = bench.executor.submit(task)
    family = pids()
    os.kill(parent_of(int((task.next_state.parent / "main").read_text())), signal.SIGKILL)
    wait_until(lambda: all_gone(family), "the end of the killed keeper's task")
    bench.executor.cancel(task.task_id)
    assert future.result(PATIENCE_S).status == "cancelled"


def test_killed_spare_is_replaced(tmp_path: Path, open_bench: Callable[..., Bench]) -> None:
    bench = open_bench(slots=1)
    keeper = bench.told(inline(tmp_path, "tell(keeper=os.getppid())"))["keeper"]
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    if bench.name != "process":
        (spare,) = wait_until(lambda: children.read_text().split(), "a spare child")
        os.kill(int(spare), signal.SIGKILL)
        wait_until(lambda: not is_alive(int(spare)), "its end")
    assert bench.told(inline(tmp_path, "tell(keeper=os.getppid())")) == {"keeper": keeper}


@pytest.mark.every_push("process|forkserver")
def test_killed_zygote_is_replaced(tmp_path: Path, open_bench: Callable[..., Bench]) -> None:
    bench = open_bench(slots=1)
    look = inline(tmp_path, "tell(keeper=os.getppid())")
    keeper = bench.told(look)["keeper"]
    zygote = parent_of(keeper)
    os.kill(zygote, signal.SIGKILL)
    wait_until(lambda: not is_alive(zygote), "its end")
    assert bench.told(look) == {"keeper": keeper}
    os.kill(keeper, signal.SIGKILL)
    result = bench.run(look)
    assert result.status == "ok" or (result.failure is not None and result.failure.kind == "executor")
    assert parent_of(bench.told(look)["keeper"]) != zygote


@pytest.mark.every_push("forkserver|resident")
def test_tasks_leave_no_files_open(bench: Bench, tmp_path: Path) -> None:
    look = inline(tmp_path, "tell(fds=len(os.listdir(f'/proc/{os.getppid()}/fd')), keeper=os.getppid())")
    seen = [bench.told(look) for _ in range(20)]
    for keeper in {told["keeper"] for told in seen}:
        counts = [told["fds"] for told in seen if told["keeper"] == keeper]
        assert counts[-1] - counts[0] < 5, counts  # the keeper opens logs and the like while the task looks


# Of its open files the one is left out by which they are listed.
INHERITED = """
links = {}
for name in os.listdir("/proc/self/fd"):
    try:
        links[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass
streams = links[0], links[1], links[2]
inherited = [link for fd, link in links.items() if fd > 2 and link not in streams]
"""


def test_task_inherits_nothing_but_its_streams(bench: Bench, tmp_path: Path) -> None:
    code = (
        INHERITED
        + """
if sys.argv[1:]:
    tell(inherited=inherited, by_startup=json.load(open("by_startup")))
else:
    json.dump(inherited, open("by_startup", "w"))
"""
    )
    package = inline(tmp_path, code)
    command = package.spec.entry_points["validate"].command
    spec = PackageSpec({name: EntryPoint(name, command) for name in ("startup", "validate")})
    package = dataclasses.replace(package, spec=spec)
    for _ in range(3):
        told = bench.told(package, starts_up=True)
        if bench.name == "resident":  # by which its interpreter gets the next order
            assert [link.split(":")[0] for found in told.values() for link in found] == ["socket"] * 2
        else:
            assert told == {"inherited": [], "by_startup": []}


def test_file_that_a_library_opened_as_it_was_imported_stays_open(tmp_path: Path) -> None:
    """As in a new interpreter, where the script imports it."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library/with_a_file.py").write_text("file = open(__file__)")
    package = inline(tmp_path, "import with_a_file\ntell(text=with_a_file.file.read())")
    bench = make_bench("forkserver", tmp_path, package, slots=1, PYTHONPATH=str(tmp_path / "library"))
    try:
        assert bench.told(package) == {"text": "file = open(__file__)"}
    finally:
        bench.executor.close()


def test_words_in_every_open_file_reach_no_later_task(bench: Bench, tmp_path: Path) -> None:
    code = """
    import struct
    answer = {"status": 0, "clean": True, "times": {}, "imported": {}, "answer_to": "", "exit_code": 0}
    body = json.dumps(answer).encode()
    found = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
    for fd in found:
        try:
            os.write(fd, 3 * (struct.pack(">I", len(body)) + body))
        except OSError:
            pass
    tell(fine=True)
    """
    result = bench.run(inline(tmp_path, code))
    assert result.status == ("failed" if bench.name == "resident" else "ok"), (result.failure, log(result))
    for number in range(4):  # each slot has both
        assert bench.told(inline(tmp_path, f"tell(number={number})")) == {"number": number}


@pytest.mark.every_push("resident")
def test_idle_keeper_that_was_killed_costs_nobody_a_task(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = open_bench(slots=1)
    look = inline(tmp_path, "tell(keeper=os.getppid())")
    keepers = []
    for _ in range(3):
        keepers.append(bench.told(look)["keeper"])
        os.kill(keepers[-1], signal.SIGKILL)
        wait_until(lambda: not is_alive(keepers[-1]), "its end")
    assert len(set(keepers)) == 3


def test_program_that_dies_of_broken_pipes_survives_the_death_of_a_keeper(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from workbench import inline, is_alive, make_bench, wait_until
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
folder = Path({str(tmp_path)!r})
bench = make_bench("process", folder, inline(folder, "tell()"), slots=1)
for _ in range(2):
    keeper = bench.told(inline(folder, "tell(keeper=os.getppid())"))["keeper"]
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not is_alive(keeper), "its end")
bench.executor.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_keeper_that_cannot_fork_its_next_child_lives_on(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = open_bench(slots=1)
    code = """
    import resource
    keeper = os.getppid()
    limits = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, (6, limits[1]))
    tell(keeper=keeper, limits=limits)
    """
    told = bench.told(inline(tmp_path, code))
    keeper, limits = told["keeper"], tuple(told["limits"])
    bench.run(inline(tmp_path, "tell()"))  # a keeper without files may fail it, but must not die
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, limits)
    assert bench.told(inline(tmp_path, "tell(keeper=os.getppid())")) == {"keeper": keeper}


# ---- somebody is stopped


STOP = (
    "import signal, time\nopen('../../../main', 'w').write(str(os.getpid()))\nos.kill(os.getppid(), signal.SIGSTOP)\n"
)


@pytest.mark.slow
@pytest.mark.every_push("resident")
def test_task_that_stops_its_keeper_is_ended_at_its_time_limit(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(slots=1)
    result = bench.run(inline(tmp_path, STOP + "time.sleep(600)"), timeout_s=1.0)
    assert result.failure is not None
    assert result.failure.kind == "timeout"
    assert not is_alive(int((result.task.next_state.parent / "main").read_text()))
    assert bench.told(inline(tmp_path, "tell(next=True)")) == {"next": True}


@pytest.mark.slow
@pytest.mark.every_push("process")
def test_task_that_stops_its_keeper_again_and_again_delays_only_itself(
    open_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = open_bench(slots=1)
    code = STOP + "os.kill(os.getppid(), signal.SIGSTOP)\ntell(done=True)\nos.kill(os.getppid(), signal.SIGSTOP)\n"
    assert bench.told(inline(tmp_path, code), timeout_s=None) == {"done": True}
    assert bench.told(inline(tmp_path, "tell(next=True)"), timeout_s=None) == {"next": True}


@pytest.mark.slow
@pytest.mark.every_push("forkserver")
def test_task_that_stops_its_keeper_can_be_cancelled(open_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = open_bench(slots=1)
    task = bench.task(inline(tmp_path, STOP + FOREVER), timeout_s=None, arguments={"pids": str(tmp_path / "pids")})
    (tmp_path / "pids").mkdir()
    future = bench.executor.submit(task)
    wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 5, "five processes")
    bench.executor.cancel(task.task_id)
    assert future.result(10).status == "cancelled"
    assert all_gone([int(path.name) for path in (tmp_path / "pids").iterdir()])


@pytest.mark.parametrize("zygote_too", [False, True])
@pytest.mark.every_push("process-True|forkserver-False")
def test_nothing_that_is_stopped_outlives_the_executor(
    open_bench: Callable[..., Bench], tmp_path: Path, pids: Callable[[], list[int]], zygote_too: bool
) -> None:
    bench = open_bench(slots=2)
    zygote = parent_of(bench.told(inline(tmp_path, "tell(keeper=os.getppid())"))["keeper"])
    future = bench.submit(inline(tmp_path, STOP + FOREVER), timeout_s=None, arguments={"pids": str(tmp_path / "pids")})
    family = pids()
    if zygote_too:
        os.kill(zygote, signal.SIGSTOP)
    bench.executor.close()
    assert future.result(0).status == "cancelled"
    assert all_gone(family)
    assert marked(bench.mark) == []


@pytest.mark.slow
@pytest.mark.parametrize("patience_s", [2.0, FORK_PATIENCE_S])
@pytest.mark.every_push("forkserver-2.0")
def test_stopped_zygote_is_replaced(
    open_bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr("fedpkg.dispatch.keepers.FORK_PATIENCE_S", patience_s)
    bench = open_bench(slots=1)
    look = inline(tmp_path, "tell(keeper=os.getppid())")
    keeper = bench.told(look)["keeper"]
    os.kill(parent_of(keeper), signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: not is_alive(keeper), "its end")
    assert bench.told(look)["keeper"] != keeper


# ---- logs


def test_log_keeps_its_first_and_last_half(bench: Bench, tmp_path: Path) -> None:
    code = """
    text = "".join(f"{n:06d} " for n in range(30_000))
    sys.stdout.write(text)
    sys.stderr.write(text[::-1])
    tell(size=len(text))
    """
    result = bench.run(inline(tmp_path, code), log_bytes=2001)
    text = "".join(f"{n:06d} " for n in range(30_000))
    marker = f"\n[fedpkg: {len(text) - 2001} bytes left out here]\n"
    assert log(result, "stdout") == text[:1001] + marker + text[-1000:]
    assert log(result) == text[::-1][:1001] + marker + text[::-1][-1000:]


@pytest.mark.parametrize("limit", [0, 1, 10, 11])
def test_log_that_just_fits_is_whole(bench: Bench, tmp_path: Path, limit: int) -> None:
    result = bench.run(inline(tmp_path, "sys.stdout.write('0123456789'); tell()"), log_bytes=limit)
    whole = "0123456789"
    assert log(result, "stdout") == whole if limit >= 10 else "bytes left out here" in log(result, "stdout")


@pytest.mark.every_push("forkserver")
def test_flood_of_output_keeps_its_two_ends(bench: Bench, misbehave: PackageOnDisk, model: Path) -> None:
    result = bench.run(misbehave, "train", model=model, arguments={"how": "log_flood"}, log_bytes=1 << 16)
    assert result.status == "ok"
    text = log(result, "stdout")
    assert text.startswith("line 0 ...")
    assert text.endswith("the last line\n")
    assert (1 << 16) < len(text) < (1 << 16) + 100


def test_script_that_closes_its_standard_streams_is_ok(bench: Bench, misbehave: PackageOnDisk, model: Path) -> None:
    result = bench.run(misbehave, "train", model=model, arguments={"how": "closes_streams"})
    assert result.status == "ok", log(result)


def test_logs_are_there_whatever_the_end(bench: Bench, tmp_path: Path) -> None:
    code = "print('out ü')\nprint('err ß', file=sys.stderr)\n"
    for ending in ("os._exit(0)", "os.kill(os.getpid(), 9)", "tell()"):
        result = bench.run(inline(tmp_path, code + ending))
        assert (log(result, "stdout"), log(result)) == ("out ü\n", "err ß\n")
        assert result.log_tail == "err ß"


@pytest.mark.parametrize("kind", ["warm", "cold"])
def test_logs_are_open_before_a_task_can_put_something_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Looked at where a task is about to begin: as the order is handed to a child, or in one before its exec."""
    monkeypatch.syspath_prepend(ZYGOTE.parent / "path")
    keepers = importlib.import_module("_fedpkg_keeper")
    ours, theirs = socket.socketpair()
    keeper = keepers.Keeper(theirs, apart=False)

    def look(_: object) -> None:
        (tmp_path / "seen").write_text(" ".join(sorted(path.name for path in tmp_path.iterdir())))
        raise OSError("seen enough")

    monkeypatch.setattr(keeper, "hand_over", look)
    monkeypatch.setattr(keepers._fedpkg_limits, "apply", look)
    order = {"stdout": str(tmp_path / "stdout.log"), "stderr": str(tmp_path / "stderr.log"), "cwd": "/", "env": {}}
    order = {**order, "fds": []}
    if kind == "warm":
        with pytest.raises(OSError, match="seen enough"):
            keeper.supervise(order)
    else:
        with pytest.raises(keepers.NotStarted, match="preexec_fn"):
            keeper.supervise({**order, "shell": "true", "limits": {}})
    assert (tmp_path / "seen").read_text() == "stderr.log stdout.log"
    for each in (ours, theirs, *keeper.files):
        each.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds")
@pytest.mark.parametrize("others", [0, 1])
def test_keeper_that_was_reaped_with_others_is_forgotten(others: int) -> None:
    """Its pidfd stays readable, so that a zygote that watched it would never sleep again."""
    script = f"""
import os, sys, time
sys.path.insert(0, {str(ZYGOTE.parent)!r})
import zygote
def forked(lifetime_s):
    pid = os.fork()
    if pid == 0:
        time.sleep(lifetime_s)
        os._exit(0)
    return pid
ended, alive = forked(0), [forked(60) for _ in range({others})]
keepers = {{pid: os.pidfd_open(pid) for pid in (ended, *alive)}}
os.waitpid(ended, 0)
zygote.bury(keepers)
print(list(keepers) == alive)
for pid in alive:
    os.kill(pid, 9)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["True"]
