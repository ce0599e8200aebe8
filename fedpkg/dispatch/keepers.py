"""The controller's side of ``runtime/path/_fedpkg_keeper.py``: runs commands in a slot's keeper."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fedpkg.dispatch.frames import receive, send, shut
from fedpkg.errors import DispatchError, NotIsolated
from fedpkg.waist.order import NO_LIMITS, Limits

if TYPE_CHECKING:
    import psutil

# A keeper exits at the end of file; after this time it is killed.
CLOSE_PATIENCE_S = 1.5
# A keeper ends its task at the time limit or when it is cancelled. If it has not answered this much later, it was
# stopped (perhaps by its task), and both are killed from here.
OVERDUE_S = 3.0
FORK_PATIENCE_S = 5.0  # a zygote takes some milliseconds to fork a keeper
LOOK_AGAIN_S = 0.5  # after how long a waiting thread notices a new deadline


class KeeperGone(Exception):
    """The keeper's process ended (killed from outside, or because memory ran out) before it answered.

    ``unread``: it had not read the whole last message.
    """

    def __init__(self, reason: str, *, unread: bool = False) -> None:
        self.unread = unread
        super().__init__(f"the task's keeper process was killed, from outside or because memory ran out: {reason}")


@dataclass(frozen=True)
class Call:
    """A command for a keeper: a line for bash, or a Python script or module to run in a forked interpreter."""

    cwd: Path
    environ: Mapping[str, str]
    stdout: Path
    stderr: Path
    log_bytes: int
    timeout_s: float | None
    limits: Limits = NO_LIMITS
    folders: Sequence[Path] = ()  # their bytes and files are counted,
    given_files: int = 0  # except the files of the package
    shared_inodes: Sequence[int] = ()  # and the bytes of files that tasks share
    shell: str | None = None
    script: str | None = None
    module: str | None = None
    args: Sequence[str] = ()
    resident: bool = False  # the interpreter stays for the next call
    watch_imports: bool = False  # report the modules that were not preloaded
    isolation: Mapping[str, Any] | None = None  # made by `dispatch.isolation`
    connection: str | None = None  # the variable with the number of the file that it inherits (`Zygote.keeper`)

    def to_json(self) -> dict[str, Any]:
        limits = self.limits
        order: dict[str, Any] = {
            "cwd": str(self.cwd),
            "env": dict(self.environ),
            "stdout": str(self.stdout),
            "stderr": str(self.stderr),
            "log_bytes": self.log_bytes,
            "timeout_s": self.timeout_s,
            "limits": {**msgspec.to_builtins(limits), "threads": limits.threads, "sessions": limits.sessions},
            "folders": [str(folder) for folder in self.folders],
            "given": {"files": self.given_files, "inodes": list(self.shared_inodes)},
            "isolation": self.isolation,
            "connection": self.connection,
        }
        if self.shell is not None:
            return {**order, "shell": self.shell}
        order |= {"args": list(self.args), "resident": self.resident, "watch_imports": self.watch_imports}
        return {**order, "module": self.module} if self.module is not None else {**order, "script": self.script}


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``ending`` is exit, timeout, limit (which, and what was ``measured``) or cancelled.

    ``cpu_s`` and ``peak_memory_bytes`` cover the command's main process and its descendants, with the exceptions that
    ``runtime/path/_fedpkg_usage.py`` documents; they are None if the keeper was killed.
    """

    ending: str
    exit_code: int | None
    signal: int | None
    survivors: int  # descendants that could not be killed
    stderr_tail: str
    stdout_tail: str
    wall_s: float
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    limit: str | None = None  # a key of `Limits`
    measured: float = 0.0
    times: Mapping[str, float] = field(default_factory=dict)  # of the machine's monotonic clock
    imported: Mapping[str, float] = field(default_factory=dict)  # module → seconds, with `watch_imports`


class Keeper:
    """A connection to one keeper: one command at a time; `cancel` may come from another thread.

    Attributes:
        has_cuda: whether its forks could use CUDA, which an import may have initialised.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(OVERDUE_S)
        self._sock = sock
        self._writing = threading.Lock()
        self._pid: int | None = None
        self.has_cuda = True
        self._deadline = math.inf  # after this time its answer is overdue
        self._cancelled = False

    @property
    def closed(self) -> bool:
        return self._sock.fileno() < 0

    def greet(self) -> None:
        """Wait until the keeper has started and has sent its process id.

        Raises:
            KeeperGone: it has not started in time.
        """
        self._deadline = time.monotonic() + FORK_PATIENCE_S
        if (greeting := self._answer()) is None:
            raise KeeperGone(f"no keeper started within {FORK_PATIENCE_S:g} s")
        self._pid, self.has_cuda = greeting["pid"], greeting["has_cuda"]
        self._deadline = math.inf

    def start(self, call: Call) -> None:
        """Send a command to the keeper; `outcome` waits for its end.

        Raises:
            KeeperGone: the keeper was killed.
        """
        self._cancelled = False
        self._deadline = math.inf if call.timeout_s is None else time.monotonic() + call.timeout_s + OVERDUE_S
        try:
            self.send(call.to_json())
        except OSError as error:
            raise KeeperGone(str(error)) from error

    def outcome(self) -> Outcome:
        """Wait for the end of the command. A keeper that is overdue is killed together with it.

        Raises:
            KeeperGone: the keeper was killed.
            DispatchError: the command could not be started; `NotIsolated` if it could not be isolated.
        """
        started = time.monotonic()
        answer = self._answer()
        if answer is None:
            ending = "cancelled" if self._cancelled else "timeout"
            self.close(patience_s=0)
            ended = time.monotonic()
            return Outcome(
                ending=ending,
                exit_code=None,
                signal=signal.SIGKILL,
                survivors=0,
                stderr_tail="fedpkg: the keeper process of this task did not answer; both were killed",
                stdout_tail="",
                wall_s=ended - started,
                times={"ended": ended, "cleaned": ended},
            )
        if problem := answer.pop("not_isolated", None):
            raise NotIsolated(f"the task could not be isolated and was not run: {problem}")
        if "error" in answer:
            raise DispatchError(f"cannot start the command: {answer['error']}", errno=answer.get("errno"))
        return Outcome(**answer)

    def _answer(self) -> dict[str, Any] | None:
        """The keeper's next frame; None if it is overdue."""
        poller = select.poll()
        try:
            while True:
                left = self._deadline - time.monotonic()  # read again, as `cancel` may shorten it
                poller.register(self._sock, select.POLLIN)
                if poller.poll(1000 * max(0.0, min(left, LOOK_AGAIN_S))):
                    break
                if left <= 0:
                    return None
                self._wake()
            answer = receive(self._sock)
        except (OSError, ValueError) as error:  # ValueError: the socket was closed meanwhile
            raise KeeperGone(str(error), unread=isinstance(error, ConnectionResetError)) from error
        if answer is None:
            raise KeeperGone("its connection closed")
        return answer

    def _wake(self) -> None:
        """Continue a keeper that its task has stopped: only a keeper notices the task's end and enforces limits."""
        try:
            if self._pid is not None and _state(self._pid) == "T":
                os.kill(self._pid, signal.SIGCONT)
        except OSError:
            pass  # it has ended, which its connection will show

    def warm_up(self) -> None:
        """Make the keeper fork the child of the next task now."""
        self.send({"warm_up": True})

    def cancel(self) -> None:
        """End the running command, if any."""
        self._end_within(OVERDUE_S)
        try:
            self.send({"cancel": True})
        except OSError:
            pass  # it has ended together with its command

    def send(self, value: dict[str, Any]) -> None:
        with self._writing:
            send(self._sock, value)

    def hang_up(self) -> None:
        """Make it end its command and exit. `outcome` still gets its last answer, after all processes have ended."""
        self._end_within(CLOSE_PATIENCE_S)
        shut(self._sock, socket.SHUT_WR)

    def close(self, *, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """End the keeper with its command; kill both if it does not exit in time."""
        self.hang_up()
        poller = select.poll()
        if self._pid is not None and not self.closed:
            poller.register(self._sock, 0)  # wakes only at its end, and does not read its last frames
            if not poller.poll(1000 * patience_s):
                kill_tree(self._pid)
        shut(self._sock, socket.SHUT_RDWR)
        self._sock.close()

    def _end_within(self, patience_s: float) -> None:
        self._cancelled = True
        self._deadline = min(self._deadline, time.monotonic() + patience_s)


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants; returns when they have ended, or after a time limit.

    The process itself is killed last: while it lives, it is the parent of orphans, so they can be found.
    """
    import psutil

    try:
        top = psutil.Process(pid)
        family = {top: None}  # an ordered set
        top.suspend()
        while found := [child for child in top.children(recursive=True) if child not in family]:
            for child in found:
                family[child] = None
                with suppress(psutil.Error):
                    child.suspend()  # a stopped process cannot fork
    except psutil.NoSuchProcess:
        return
    for process in reversed(family):
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + OVERDUE_S
    while any(_is_alive(process) for process in family) and time.monotonic() < deadline:
        time.sleep(0.001)


def _state(pid: int) -> str | None:
    """The state letter of a process; None if /proc does not have it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
