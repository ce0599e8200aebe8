"""The processes of a task: its keeper, their ancestor, finds, counts, measures, stops and kills them.

Runs inside a task's interpreter and in its keeper: standard library only, imports nothing of fedpkg. A fork bomb of
hundreds of processes leaves its keeper a few milliseconds of processor time per second, so loops over processes need
few system calls for each.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_PATIENCE_S = 5.0
PAGE = resource.getpagesize()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    try:
        if os.stat("/proc/%d/task" % pid).st_nlink == 3:  # one thread
            return _listed("/proc/%d/task/%d/children" % (pid, pid))
        found = []
        for thread in os.listdir("/proc/%d/task" % pid):
            found += _listed("/proc/%d/task/%s/children" % (pid, thread))
        return found
    except FileNotFoundError:
        if os.path.exists("/proc/%d/task" % os.getpid()) and not os.path.exists("/proc/%d" % pid):
            return []  # it has just ended
    except OSError:
        pass
    try:  # kernels without CONFIG_PROC_CHILDREN, and systems without /proc
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    pairs = [line.split() for line in listing.decode().splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _listed(path: str) -> list[int]:
    return [int(word) for word in read(path).split()]


def read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 8192)
        while len(text) % 8192 == 0 and (more := os.read(fd, 8192)):
            text += more
        return text
    finally:
        os.close(fd)


def descendants(spare: Collection[int], *, stop_above: float = 0) -> tuple[list[int], bool]:
    """All descendants of this process, except ``spare`` and their descendants; and whether they were stopped.

    As soon as there are more than ``stop_above``, each is stopped when it is found. A stopped process cannot fork and
    uses no processor, so the search ends even for a fork bomb.
    """
    found: dict[int, None] = {}  # an ordered set
    stopping = False
    while True:
        new = [pid for pid in children_of(os.getpid()) if pid not in spare and pid not in found]
        for pid in new:  # it grows meanwhile
            found[pid] = None
            if stopping:
                kill(pid, signal.SIGSTOP)
            elif len(new) > stop_above:
                stopping = True
                for one in new:
                    kill(one, signal.SIGSTOP)
            new += [child for child in children_of(pid) if child not in found]
        if not (stopping and new):  # a running process may have left an orphan meanwhile
            return list(found), stopping


def kill_children(spare: Collection[int], count: Callable[[resource.struct_rusage], object] = id) -> int:
    """Kill every descendant except those in ``spare``; how many survive (processes of another user).

    ``count`` is called with the resource usage of each process that has ended.
    """
    deadline = time.monotonic() + KILL_PATIENCE_S
    killed: set[int] = set()
    while True:
        try:
            pid, _, usage = os.wait3(os.WNOHANG)
            if pid != 0:
                count(usage)
                continue
        except ChildProcessError:
            return 0
        doomed, _ = descendants(spare)
        if not doomed and spare:  # otherwise some are left: the kernel's list may skip children while others end
            return 0
        if not killed.issuperset(doomed):  # among very many processes this one seldom runs
            deadline = time.monotonic() + KILL_PATIENCE_S
            killed.update(doomed)
        elif time.monotonic() > deadline:
            return max(1, len(doomed))
        for pid in doomed:
            kill(pid, signal.SIGKILL)
        time.sleep(0.0005)


def go_first() -> None:
    """Raise the priority of this process, but not of its children: it would starve among hundreds of processes.

    Root gets real-time priority. Any user may request short time slices, which are scheduled sooner (Linux 6.12).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return
    except (OSError, AttributeError):
        pass
    ask_for_short_turns()


def ask_for_short_turns() -> None:
    number = {"x86_64": 314, "aarch64": 274}.get(os.uname().machine)
    if sys.platform == "linux" and number:
        size, reset_on_fork = 48, 1
        attributes = struct.pack("=IIQiIQQQ", size, 0, reset_on_fork, 0, 0, 100_000, 0, 0)
        ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class Process:
    """One process according to the kernel: its state, and the resources that it has used."""

    def __init__(self, pid: int) -> None:
        text = read("/proc/%d/stat" % pid)
        words = text[text.rindex(b")") + 2 :].split()
        self.pid = pid
        self.is_zombie = words[0] in (b"Z", b"X")
        self.is_running = words[0] == b"R"  # its first thread
        self.session = int(words[3])
        self.children_cpu_s = sum(map(int, words[13:15])) / TICKS_PER_S  # of processes that it has waited for
        self.cpu_s = sum(map(int, words[11:13])) / TICKS_PER_S + self.children_cpu_s
        self.threads = int(words[17])
        self.rss_bytes = int(words[21]) * PAGE

    def running_threads(self) -> list[int]:
        """Ids of its threads that run or wait for a processor. The id of the first thread is the process id."""
        if self.threads == 1:
            return [self.pid] if self.is_running else []
        found = []
        for thread in os.listdir("/proc/%d/task" % self.pid):
            try:
                text = read("/proc/%d/task/%s/stat" % (self.pid, thread))
            except OSError:  # it has just ended
                continue
            if text[text.rindex(b")") + 2 :].startswith(b"R"):
                found.append(int(thread))
        return found

    def memory_bytes(self, apart: Collection[tuple[int, int]] = ()) -> int:
        """Memory that belongs to this process; memory shared with other processes counts by its share.

        Mappings of the files in ``apart`` (device and inode) do not count. The kernel needs milliseconds for this.
        """
        try:
            words = read("/proc/%d/smaps_rollup" % self.pid).split()
            mapped = self._mapped_bytes(apart) if apart else 0
        except ProcessLookupError:
            return 0
        except OSError:  # not readable: a program that changed its user
            return self.rss_bytes
        # Pages of files can be dropped; before Linux 5.4 they are not listed separately.
        counted = [b"Pss_Anon:", b"Pss_Shmem:"] if b"Pss_Anon:" in words else [b"Pss:"]
        sizes = [int(words[words.index(name) + 1]) for name in (*counted, b"SwapPss:") if name in words]
        return max(0, 1024 * sum(sizes) - mapped)

    def _mapped_bytes(self, files: Collection[tuple[int, int]]) -> int:
        """Its share of the mapped pages of these files."""
        total, wanted = 0, False
        with open("/proc/%d/smaps" % self.pid, "rb") as lines:
            for line in lines:
                words = line.split(None, 5)
                if not words[0].endswith(b":"):  # a mapping begins: addresses, rights, offset, device, inode, path
                    wanted = (_device(words[3]), int(words[4])) in files
                elif wanted and words[0] in (b"Pss:", b"SwapPss:"):
                    total += 1024 * int(words[1])
        return total


# ---------------------------------------------------------------- their share of the processors


def slow_down(thread: int, share: float) -> None:
    """Give a thread the fraction ``share`` of the weight that a normal thread has when processors are scarce.

    A step of niceness is a factor of 1.25. If its 19 steps are not enough, the thread joins the idle class, with 0.3 %
    of a normal weight. An unprivileged user can undo neither.
    """
    try:
        nice = min(20, math.ceil(-math.log(share, 1.25)))
        if os.getpriority(os.PRIO_PROCESS, thread) < min(19, nice):
            os.setpriority(os.PRIO_PROCESS, thread, min(19, nice))
        if nice == 20 and sys.platform == "linux" and os.sched_getscheduler(thread) == os.SCHED_OTHER:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # it has just ended, or is another user's
        pass


def slow_down_session(pid: int) -> None:
    """Give all threads in the session of ``pid`` together 1.5 % of the weight of another session.

    This applies if the kernel shares processors among sessions first (sched_autogroup_enabled), so that niceness only
    matters within each session. An unprivileged user may do this ten times a second.
    """
    try:
        with open("/proc/%d/autogroup" % pid, "r+b", buffering=0) as file:
            if not file.read(100).rstrip().endswith(b" 19"):
                file.write(b"19")
    except OSError:  # the kernel does not do that, the process has just ended, or it is too soon
        pass


# ---------------------------------------------------------------- unlinked files


class NamelessFile:
    """A file that a process has open or mapped, and that has no name in any folder."""

    def __init__(self, key: tuple[int, int], size_bytes: int, path: str | None) -> None:
        self.key = key  # its device and inode
        self.size_bytes = size_bytes
        self.path = path  # to check it again

    def look_again(self) -> bool:
        """Update its size; False if it is no longer open there, or got a name (linkat)."""
        if self.path is None:
            return True
        try:
            facts = os.stat(self.path)
        except OSError:
            return False
        self.size_bytes = facts.st_blocks * 512
        return (facts.st_dev, facts.st_ino) == self.key and facts.st_nlink == 0


def memory_devices() -> set[int]:
    """Devices whose files are in memory: those of memfd_create and of /dev/shm."""
    found = set()
    try:
        fd = os.memfd_create("fedpkg")
        found.add(os.fstat(fd).st_dev)
        os.close(fd)
        found.add(os.stat("/dev/shm").st_dev)
    except (OSError, AttributeError):
        pass
    return found


def nameless_files(pid: int, *, mapped: bool) -> Iterator[NamelessFile | None]:
    """The unlinked files of one process; None for each other open file, so that callers can interrupt a long scan.

    With ``mapped``, also files that it has only mapped: the kernel needs 1 ms to list the mappings of PyTorch.
    """
    try:
        with os.scandir("/proc/%d/fd" % pid) as entries:
            for entry in entries:
                try:
                    facts = entry.stat()
                except OSError:
                    continue
                nameless = facts.st_nlink == 0 and stat.S_ISREG(facts.st_mode)
                key = (facts.st_dev, facts.st_ino)
                yield NamelessFile(key, facts.st_blocks * 512, entry.path) if nameless else None
        if not mapped:
            return
        with open("/proc/%d/maps" % pid, "rb", buffering=0) as file:
            mappings = file.readall()
        lines = mappings.splitlines() if b" (deleted)\n" in mappings else []
        for line in lines:
            if not line.endswith(b" (deleted)"):
                continue
            addresses, _, offset, device, inode, _ = line.split(None, 5)
            start, _, end = addresses.partition(b"-")
            extent = int(offset, 16) + int(end, 16) - int(start, 16)  # all that an unprivileged user can read
            yield NamelessFile((_device(device), int(inode)), extent, None)
    except OSError:  # it has just ended, or is another user's
        return


def _device(text: bytes) -> int:
    """The device as in /proc/PID/maps, such as 08:01."""
    major, _, minor = text.partition(b":")
    return os.makedev(int(major, 16), int(minor, 16))
