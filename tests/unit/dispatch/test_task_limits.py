"""Each limit of a task, provoked: what exceeds it ends, says which it was, leaves nothing, and disturbs nobody."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from workbench import Bench, Ran, inline, is_alive, log, marked, write_model

from fedpkg.waist.order import Limits

MIB = 1 << 20


def failed(result: Ran, kind: str, key: str) -> Ran:
    """The result, which must have failed for this limit, and name its key and value."""
    assert result.failure is not None, log(result)
    assert result.failure.kind == kind, (result.failure, log(result))
    limit = getattr(result.task.limits, key.removeprefix("limits."))
    assert result.failure.message.startswith("'validate' ")
    assert result.failure.message.endswith(f"; {key} is {limit}")
    assert not result.task.next_state.exists()
    return result


def fine(bench: Bench, folder: Path) -> None:
    """The next task finds nothing of the one before."""
    assert bench.told(inline(folder, "tell(fine=True)")) == {"fine": True}


# ---- processes

# At most 4096 processes, for less than two minutes: should nobody end it, a machine with its tests survives.
FORKS = """
import time
end = time.monotonic() + 100
for _ in range(12):
    pid = os.fork()
    {then}
while time.monotonic() < end:
    pass
os._exit(0)
"""
BOMBS = {
    "fork": FORKS.format(then=""),
    "setsid": FORKS.format(then="os.setsid() if pid == 0 else None"),
    "double fork": FORKS.format(then="if pid == 0:\n        os.setsid()\n        os.fork() and os._exit(0)"),
    "sleepers": "import time\nfor _ in range(3000): os.fork() or (time.sleep(100), os._exit(0))",
    "shell": "os.execvp('bash', ['bash', '-c', 'f() { (($1)) || exec sleep 100; f $(($1-1)) & f $(($1-1)); }; f 10'])",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.every_push("forkserver-(double fork|shell)|process-(fork|setsid)|resident-sleepers")
def test_fork_bomb_is_ended(bench: Bench, tmp_path: Path, bomb: str) -> None:
    result = failed(
        bench.run(inline(tmp_path, BOMBS[bomb]), limits=Limits(processes=128)), "processes", "limits.processes"
    )
    assert result.exit_code is None
    fine(bench, tmp_path)
    assert not [pid for pid in marked(bench.mark) if f"FEDPKG_TASK={result.task.folder}" in environ_of(pid)]


def environ_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def test_threads_count_where_there_are_very_many(bench: Bench, tmp_path: Path) -> None:
    code = """
    import threading
    forever = threading.Event()
    for _ in range(100):
        threading.Thread(target=forever.wait, args=(20,)).start()
    """
    failed(bench.run(inline(tmp_path, code), limits=Limits(processes=4)), "processes", "limits.processes")


def test_so_many_processes_are_allowed(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    children = []
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            time.sleep(100)
            os._exit(0)
        children.append(pid)
    time.sleep(0.2)
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    tell(children=len(children))
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(processes=64)) == {"children": 60}


@pytest.mark.every_push("forkserver")
def test_processes_that_have_ended_do_not_count(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    for _ in range(50):  # each leaves an orphan, one after the other
        if os.fork() == 0:
            os.fork()
            os._exit(0)
        os.wait()
        time.sleep(0.01)
    tell(fine=True)
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(processes=16)) == {"fine": True}


# ---- their share of the processors

CROWD = """
import time
children = []
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        {then}
        while True: pass
    children.append(pid)
def look():
    return sum(os.getpriority(os.PRIO_PROCESS, pid) >= 10 for pid in children)
while look() < len(children):
    time.sleep(0.01)
groups = [open(f"/proc/{{pid}}/autogroup").read().split()[-1] for pid in children] if {sessions} else []
for pid in children:
    os.kill(pid, 9)
tell(own=os.getpriority(os.PRIO_PROCESS, 0), groups=groups)
"""


def test_many_busy_processes_get_less_priority(bench: Bench, tmp_path: Path) -> None:
    code = CROWD.format(then="pass", sessions=False)
    assert bench.told(inline(tmp_path, code), limits=Limits(processes=64)) == {"own": 0, "groups": []}


def test_many_busy_threads_get_less_priority(bench: Bench, tmp_path: Path) -> None:
    code = """
    import hashlib, threading, time
    done = False
    def compute():
        block = bytes(1 << 20)  # its digest is computed beside Python's lock
        while not done: hashlib.sha256(block).digest()
    threads = [threading.Thread(target=compute) for _ in range(12)]
    for thread in threads: thread.start()
    while max(os.getpriority(os.PRIO_PROCESS, thread.native_id) for thread in threads) < 5:
        time.sleep(0.01)
    done = True
    tell(own=os.getpriority(os.PRIO_PROCESS, 0))
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(processes=64)) == {"own": 0}


@pytest.mark.skipif(not os.path.exists("/proc/self/autogroup"), reason="this kernel groups no sessions")
def test_busy_sessions_get_less_priority(bench: Bench, tmp_path: Path) -> None:
    """As Linux shares the processors among sessions, the niceness of what runs in one does not count beside others."""
    code = CROWD.format(then="os.setsid()", sessions=True).replace(
        "def look():",
        "def look():\n    return sum(open(f'/proc/{pid}/autogroup').read().endswith(' 19\\n') for pid in children)",
    )
    assert bench.told(inline(tmp_path, code), limits=Limits(processes=512)) == {"own": 0, "groups": ["19"] * 10}


def test_task_with_very_many_sessions_is_ended(bench: Bench, tmp_path: Path) -> None:
    code = "import time\nfor _ in range(20): os.fork() or (os.setsid(), time.sleep(100))\ntime.sleep(100)"
    result = bench.run(inline(tmp_path, code), limits=Limits(processes=64))
    failed(result, "processes", "limits.processes")
    assert result.failure is not None and "process sessions (setsid)" in result.failure.message
    fine(bench, tmp_path)


# ---- memory

HOG = """
hoard = []
while len(hoard) < 150:
    hoard.append(bytearray(b"x") * (10 << 20))
import time
time.sleep(100)
"""


def test_task_that_takes_too_much_memory_is_ended(bench: Bench, tmp_path: Path) -> None:
    limits = Limits(memory_bytes=300 * MIB)
    result = failed(bench.run(inline(tmp_path, HOG), limits=limits), "memory", "limits.memory_bytes")
    assert result.signal == signal.SIGKILL
    fine(bench, tmp_path)


NOT_MAPPED = """
import time
fd = os.memfd_create("hoard")
for _ in range(400): os.write(fd, bytes(1 << 20))
time.sleep(100)
"""


@pytest.mark.every_push("resident")
def test_memory_that_is_a_file_counts(bench: Bench, tmp_path: Path) -> None:
    limits = Limits(memory_bytes=300 * MIB)
    failed(bench.run(inline(tmp_path, NOT_MAPPED), limits=limits), "memory", "limits.memory_bytes")
    fine(bench, tmp_path)


@pytest.mark.every_push("forkserver")
def test_memory_that_is_open_and_mapped_counts_once(bench: Bench, tmp_path: Path) -> None:
    code = """
    import mmap, time
    fd = os.memfd_create("hoard")
    os.ftruncate(fd, 200 << 20)
    hoard = mmap.mmap(fd, 200 << 20)
    hoard.write(bytes(200 << 20))
    time.sleep(0.6)
    tell(fine=True)
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(memory_bytes=300 * MIB)) == {"fine": True}


def test_memory_of_all_its_processes_counts(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    for _ in range(5):
        if os.fork() == 0:
            hoard = bytearray(b"x") * (100 << 20)
            time.sleep(100)
    time.sleep(100)
    """
    limits = Limits(memory_bytes=300 * MIB)
    failed(bench.run(inline(tmp_path, code), limits=limits), "memory", "limits.memory_bytes")


@pytest.mark.every_push("process")
def test_memory_that_processes_share_counts_once(bench: Bench, tmp_path: Path) -> None:
    code = """
    import gc, time
    hoard = bytearray(b"x") * (150 << 20)
    gc.freeze()
    children = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            time.sleep(100)
            os._exit(0)
        children.append(pid)
    time.sleep(0.5)
    for pid in children:
        os.kill(pid, 9)
    tell(size=len(hoard))
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(memory_bytes=300 * MIB)) == {"size": 150 * MIB}


# ---- processor time


def test_task_that_computes_for_too_long_is_ended(bench: Bench, tmp_path: Path) -> None:
    limits = Limits(cpu_s=0.3)
    failed(bench.run(inline(tmp_path, "while True: pass"), limits=limits), "cpu_time", "limits.cpu_s")


@pytest.mark.parametrize("orphans", [False, True])
@pytest.mark.every_push("forkserver-True|process-False")
def test_time_of_children_that_have_ended_counts(bench: Bench, tmp_path: Path, orphans: bool) -> None:
    code = f"""
    import time
    for _ in range(400):
        if os.fork() == 0:
            if {orphans} and os.fork():
                os._exit(0)
            for _ in range(10**6):
                pass
            os._exit(0)
        os.wait()
        if {orphans}:
            time.sleep(0.05)
    """
    limits = Limits(cpu_s=0.5, processes=200)
    failed(bench.run(inline(tmp_path, code), limits=limits), "cpu_time", "limits.cpu_s")


@pytest.mark.every_push("resident")
def test_time_asleep_is_no_processor_time(bench: Bench, tmp_path: Path) -> None:
    assert bench.told(inline(tmp_path, "import time\ntime.sleep(0.6)\ntell()"), limits=Limits(cpu_s=0.5)) == {}


@pytest.mark.every_push("resident")
def test_time_of_earlier_tasks_does_not_count(bench: Bench, tmp_path: Path) -> None:
    code = "import time\nend = time.monotonic() + 0.3\nwhile time.monotonic() < end: pass\ntell()"
    package = inline(tmp_path, code)
    for _ in range(3):
        assert bench.told(package, limits=Limits(cpu_s=0.8)) == {}


# ---- files

WRITERS = {
    "one big file": "file = open('big', 'wb')\nwhile True: file.write(bytes(1 << 20))",
    "a hole": "open('big', 'wb').truncate(10_000_000_000)",
    "behind a hole": "file = open('big', 'wb', 0)\nfile.seek(10_000_000_000)\nfile.write(b'x')",
    "by another program": "import subprocess\nsubprocess.run(['dd', 'if=/dev/zero', 'of=big', 'bs=1M'], check=True)",
    "by a shell": "os.execvp('bash', ['bash', '-c', 'yes > big; exit'])",
    "without a word": "sys.stderr = None\nfile = open('big', 'wb', 0)\nwhile True: file.write(bytes(1 << 20))",
    "into its reply": "file = open(sys.argv[-1], 'wb')\nwhile True: file.write(bytes(1 << 20))",
    "beside its reply": "file = open(sys.argv[-1] + '.tmp', 'wb')\nwhile True: file.write(bytes(1 << 20))",
}


@pytest.mark.parametrize("how", WRITERS)
def test_file_that_grows_too_large_fails_its_task(bench: Bench, tmp_path: Path, how: str) -> None:
    result = bench.run(inline(tmp_path, WRITERS[how]), limits=Limits(file_bytes=20 * MIB))
    failed(result, "file_size", "limits.file_bytes")
    assert (log(result) == "") == (how == "without a word")
    assert {path.name for path in result.task.folder.iterdir()} == {"task.json", "stdout.log", "stderr.log"}
    fine(bench, tmp_path)


FILLERS = {
    "many files": "for n in range(10**6): open(f'{n}', 'wb').write(bytes(100_000))",
    "empty files": "for n in range(ENTRIES): open(f'{n}', 'w').close()\ntell()",
    "folders in folders": "for n in range(ENTRIES): os.makedirs(f'{n % 100}/{n}')\ntell()",
    "big files": "for n in range(200): open(f'{n}', 'wb').write(bytes(5 << 20))",
    "beside its reply": "for n in range(200): open(f'{sys.argv[-1]}.{n}', 'wb').write(bytes(5 << 20))",
    "in its state": "for n in range(200): open(os.environ['FEDPKG_STATE_DIR'] + f'/{n}', 'wb').write(bytes(5 << 20))",
    "at once": "open('big', 'wb').write(bytes(40 << 20))\ntell()",
    "without a name": "import time\nfd = os.open('big', os.O_CREAT | os.O_RDWR)\nos.unlink('big')\n"
    "os.write(fd, bytes(40 << 20))\ntime.sleep(100)",
    "without a name, and closed": "import mmap, time\nfd = os.open('big', os.O_CREAT | os.O_RDWR)\nos.unlink('big')\n"
    "os.write(fd, bytes(40 << 20))\nhoard = mmap.mmap(fd, 40 << 20)\nos.close(fd)\ntime.sleep(100)",
    "holes": "open('hole', 'wb').truncate(3 << 30)\ntell()",
    "names of one file": "open('0', 'wb').write(bytes(4 << 20))\nfor n in range(1, 10): os.link('0', f'{n}')\ntell()",
    "in the end": "os.posix_fallocate(os.open('big', os.O_CREAT | os.O_RDWR), 0, 40 << 20)\ntell()",
}


@pytest.mark.parametrize(("mib", "entries"), [(10, 3_000), (30, 12_000)], ids=["10 MiB", "30 MiB"])
@pytest.mark.parametrize("how", FILLERS)
@pytest.mark.every_push("(forkserver|(process|resident)-(many files|in the end)).*-10 MiB")
def test_task_that_fills_its_folders_is_ended(bench: Bench, tmp_path: Path, how: str, mib: int, entries: int) -> None:
    code = FILLERS[how].replace("ENTRIES", str(entries))
    result = bench.run(inline(tmp_path, code), limits=Limits(folder_bytes=mib * MIB))
    failed(result, "folder_size", "limits.folder_bytes")
    assert {path.name for path in result.task.folder.iterdir()} == {"task.json", "stdout.log", "stderr.log"}
    fine(bench, tmp_path)


@pytest.mark.every_push("forkserver")
def test_file_that_gets_its_name_late_counts_once(bench: Bench, tmp_path: Path) -> None:
    code = """
    import time
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR)
    except OSError:  # this file system has no such files
        sys.exit(tell(size=20 << 20))
    os.write(fd, bytes(20 << 20))
    time.sleep(0.4)
    os.link(f"/proc/self/fd/{fd}", "late", src_dir_fd=fd, follow_symlinks=True)
    time.sleep(0.6)
    tell(size=os.stat("late").st_size)
    """
    assert bench.told(inline(tmp_path, code), limits=Limits(folder_bytes=30 * MIB)) == {"size": 20 * MIB}


@pytest.mark.every_push("forkserver")
def test_only_what_takes_room_in_its_own_folders_counts(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big").write_bytes(bytes(20 * MIB))
    code = f"""
    import time
    os.symlink({str(tmp_path / "elsewhere")!r}, "link to a folder")
    os.symlink({str(tmp_path / "elsewhere" / "big")!r}, "link to a file")
    os.link(sys.argv[1], sys.argv[1] + ", which all have")
    time.sleep(0.4)
    tell()
    """
    model = write_model(tmp_path / "big.npz", size=5_000_000)
    assert bench.told(inline(tmp_path, code), model=model, limits=Limits(folder_bytes=12 * MIB)) == {}


MANY = {
    "while it runs": "for n in range(10**6): open(f'{n}', 'w').close()",
    "in the end": "for n in range(500): os.mkdir(f'{n}')\ntell()",
    "out of sight": "os.mkdir('x')\nfor n in range(500): open(f'x/{n}', 'w').close()\ntell()\nos.chmod('x', 0)",
}


@pytest.mark.parametrize("how", MANY)
def test_task_that_makes_too_many_files_is_ended(bench: Bench, tmp_path: Path, how: str) -> None:
    result = bench.run(inline(tmp_path, MANY[how]), limits=Limits(folder_files=400))
    failed(result, "folder_files", "limits.folder_files")
    assert {path.name for path in result.task.folder.iterdir()} == {"task.json", "stdout.log", "stderr.log"}


def test_files_of_the_package_are_not_counted_as_the_tasks(bench: Bench, tmp_path: Path) -> None:
    package = inline(tmp_path, "open('new', 'w').close()\ntell()", **{f"file{n}": "" for n in range(50)})
    assert bench.told(package, limits=Limits(folder_files=30)) == {}


def test_files_deeper_than_any_path_are_not_out_of_the_limits_sight(bench: Bench, tmp_path: Path) -> None:
    code = """
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    open("big", "wb").write(bytes(20 << 20))
    """
    result = bench.run(inline(tmp_path, code), limits=Limits(folder_bytes=10 * MIB))
    assert result.failure is not None
    assert (result.failure.kind, result.task.next_state.exists()) == ("bad_state", False), result.failure
    assert "deeper than the longest possible path" in result.failure.message


# ---- open files


def test_task_that_opens_too_many_files_fails(bench: Bench, tmp_path: Path) -> None:
    code = "files = []\nwhile True: files.append(open('/dev/null'))"
    result = failed(bench.run(inline(tmp_path, code), limits=Limits(open_files=64)), "open_files", "limits.open_files")
    assert result.exit_code == 1
    assert "Too many open files" in result.log_tail


def test_limits_of_a_task_are_not_the_next_one_s(bench: Bench, tmp_path: Path) -> None:
    look = """
    import resource
    tell(limits=[resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in ("FSIZE", "NOFILE", "NPROC")])
    """
    limits = Limits(file_bytes=50 * MIB, open_files=77, processes=99)
    kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    ours = [resource.getrlimit(kind)[0] for kind in kinds]
    for _ in range(3):  # each slot has both
        assert bench.told(inline(tmp_path, look), limits=limits)["limits"][:2] == [50 * MIB, 77]
        assert bench.told(inline(tmp_path, look)) == {"limits": ours}


def test_task_without_any_limit_runs(bench: Bench, tmp_path: Path) -> None:
    code = "import time\ntime.sleep(0.1)\ntell(fine=True)"
    assert bench.told(inline(tmp_path, code), limits=Limits(), timeout_s=None) == {"fine": True}


# ---- logs


@pytest.mark.slow
@pytest.mark.parametrize("mib", [300, 2000])
@pytest.mark.every_push("(forkserver|resident)-300")
def test_flood_of_output_fills_neither_disk_nor_memory(bench: Bench, tmp_path: Path, mib: int) -> None:
    code = """
    block = b"x" * (1 << 20)
    for _ in range(MIB):
        os.write(1, block)
    tell(keeper=os.getppid(), memory=int(open(f"/proc/{os.getppid()}/status").read().split("VmRSS:")[1].split()[0]))
    """
    before = bench.told(inline(tmp_path, code.replace("MIB", "2")))
    result = bench.run(inline(tmp_path, code.replace("MIB", str(mib))), log_bytes=MIB)
    assert result.status == "ok"
    assert (result.task.folder / "stdout.log").stat().st_size < MIB + 100
    assert result.metrics["memory"] - before["memory"] < 10_000  # KiB


# ---- the end


def test_task_that_ignores_every_signal_is_ended_at_a_limit(bench: Bench, tmp_path: Path) -> None:
    code = """
    import signal
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True: pass
    """
    result = failed(bench.run(inline(tmp_path, code), limits=Limits(cpu_s=0.2)), "cpu_time", "limits.cpu_s")
    assert result.signal == signal.SIGKILL


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_that_a_script_leaves_end_with_it(bench: Bench, tmp_path: Path, daemon: bool) -> None:
    code = f"""
    import threading, time
    def go_on():
        for _ in range(3 if not {daemon} else 10_000):
            time.sleep(0.05)
        open({str(tmp_path / "done")!r}, "w").close()
    threading.Thread(target=go_on, daemon={daemon}).start()
    tell(pid=os.getpid())
    """
    result = bench.run(inline(tmp_path, code))
    assert result.status == "ok", log(result)
    assert (tmp_path / "done").exists() is not daemon  # as Python does: it waits for those that are no daemons
    assert not is_alive(result.metrics["pid"]) or bench.name == "resident"
    fine(bench, tmp_path)


def test_script_may_change_its_folder(bench: Bench, tmp_path: Path) -> None:
    assert bench.told(inline(tmp_path, "os.chdir('/')\ntell(cwd=os.getcwd())")) == {"cwd": "/"}
    fine(bench, tmp_path)
