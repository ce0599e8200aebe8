"""The controller's side of ``runtime/path/_fedpkg_keeper.py``: have a slot's keeper run commands."""

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

# A keeper ends by itself at the end of file; after this patience it is killed.
CLOSE_PATIENCE_S = 1.5
# A keeper ends its task at the time limit, or when it is cancelled. One that has not answered this much later will not:
# somebody (its task, say) has stopped it. Then both are killed from here.
OVERDUE_S = 3.0
FORK_PATIENCE_S = 5.0  # a zygote takes some milliseconds to fork a keeper
LOOK_AGAIN_S = 0.5  # how soon a new deadline is seen by a thread that waits


class KeeperGone(Exception):
    """The keeper's process ended (killed from outside, or because memory ran out) before it answered.

    ``unread``: it has not read all that it was sent last.
    """

    def __init__(self, reason: str, *, unread: bool = False) -> None:
        self.unread = unread
        super().__init__(f"the task's keeper was killed from outside, or because memory ran out: {reason}")


@dataclass(frozen=True)
class Call:
    """One command for a keeper: a line for bash, or a Python script or module to run in a forked interpreter."""

    cwd: Path
    environ: Mapping[str, str]
    stdout: Path
    stderr: Path
    log_bytes: int
    timeout_s: float | None
    limits: Limits = NO_LIMITS
    folders: Sequence[Path] = ()  # whose bytes and files are counted,
    given_files: int = 0  # but the files of the package
    shared_inodes: Sequence[int] = ()  # and the bytes of files that other tasks have, too
    shell: str | None = None
    script: str | None = None
    module: str | None = None
    args: Sequence[str] = ()
    resident: bool = False  # in an interpreter that stays for the next one
    watch_imports: bool = False  # say what it imports that the interpreter had not imported yet
    isolation: Mapping[str, Any] | None = None  # what `dispatch.isolation` made of the task's
    fds: Sequence[int] = ()  # open files of its zygote that a command of the shell inherits

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
        }
        if self.shell is not None:
            return {**order, "shell": self.shell, "fds": list(self.fds)}
        order |= {"args": list(self.args), "resident": self.resident, "watch_imports": self.watch_imports}
        return {**order, "module": self.module} if self.module is not None else {**order, "script": self.script}


@dataclass(frozen=True)
class Outcome:
    """How a command ended: ``ending`` is exit, timeout, limit (which, and what was ``measured``) or cancelled.

    ``cpu_s`` and ``peak_memory_bytes`` are of the command's main process and its descendants as far as the keeper sees
    them (``runtime/path/_fedpkg_usage.py`` documents what it does not see); None if the keeper was killed.
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
    imported: Mapping[str, float] = field(default_factory=dict)  # module → seconds, where that was watched


class Keeper:
    """A connection to one keeper: one command at a time; `cancel` may come from another thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(OVERDUE_S)
        self._sock = sock
        self._writing = threading.Lock()
        self._pid: int | None = None
        self._deadline = math.inf  # when its answer is overdue
        self._cancelled = False

    @property
    def closed(self) -> bool:
        return self._sock.fileno() < 0

    def greet(self) -> None:
        """Wait until it is there; it says its process id.

        Raises:
            KeeperGone: it is not, after some patience.
        """
        self._deadline = time.monotonic() + FORK_PATIENCE_S
        if (greeting := self._answer()) is None:
            raise KeeperGone(f"there was none after {FORK_PATIENCE_S:g} s")
        self._pid = greeting["pid"]
        self._deadline = math.inf

    def start(self, call: Call) -> None:
        """Hand over a command; `outcome` waits for its end.

        Raises:
            KeeperGone: the keeper died.
        """
        self._cancelled = False
        self._deadline = math.inf if call.timeout_s is None else time.monotonic() + call.timeout_s + OVERDUE_S
        try:
            self.send(call.to_json())
        except OSError as error:
            raise KeeperGone(str(error)) from error

    def outcome(self) -> Outcome:
        """Wait for the end of the command. A keeper that is overdue is killed with it.

        Raises:
            KeeperGone: the keeper died.
            DispatchError: the command could not be started at all; `NotIsolated`: … not as isolated as it was to be.
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
                stderr_tail="fedpkg: the process that watched over this task did not answer; both were killed",
                stdout_tail="",
                wall_s=ended - started,
                times={"ended": ended, "cleaned": ended},
            )
        if problem := answer.pop("not_isolated", None):
            raise NotIsolated(f"it could not be isolated, and was not run: {problem}")
        if "error" in answer:
            raise DispatchError(f"cannot start the command: {answer['error']}", errno=answer.get("errno"))
        return Outcome(**answer)

    def _answer(self) -> dict[str, Any] | None:
        """Its next frame; None when it is overdue."""
        poller = select.poll()
        try:
            while True:
                left = self._deadline - time.monotonic()  # looked at again, as `cancel` may bring it forward
                poller.register(self._sock, select.POLLIN)
                if poller.poll(1000 * max(0.0, min(left, LOOK_AGAIN_S))):
                    break
                if left <= 0:
                    return None
                self._wake()
            answer = receive(self._sock)
        except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile
            raise KeeperGone(str(error), unread=isinstance(error, ConnectionResetError)) from error
        if answer is None:
            raise KeeperGone("its connection closed")
        return answer

    def _wake(self) -> None:
        """Let it go on if its task has stopped it: else nobody would notice the task's end, or enforce its limits."""
        try:
            if self._pid is not None and _state(self._pid) == "T":
                os.kill(self._pid, signal.SIGCONT)
        except OSError:
            pass  # it is gone, as its connection is about to say

    def warm_up(self) -> None:
        """Let it fork the child of the next task now."""
        self.send({"warm_up": True})

    def cancel(self) -> None:
        """End the running command, if any."""
        self._end_within(OVERDUE_S)
        try:
            self.send({"cancel": True})
        except OSError:
            pass  # it is gone, and its command with it

    def send(self, value: dict[str, Any]) -> None:
        with self._writing:
            send(self._sock, value)

    def hang_up(self) -> None:
        """Let it end its command and itself. `outcome` still gets its last answer, once all its processes are gone."""
        self._end_within(CLOSE_PATIENCE_S)
        shut(self._sock, socket.SHUT_WR)

    def close(self, *, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """End it with its command: by force, should it not end by itself."""
        self.hang_up()
        poller = select.poll()
        if self._pid is not None and not self.closed:
            poller.register(self._sock, 0)  # wakes at its end only, and leaves what it said to be read
            if not poller.poll(1000 * patience_s):
                kill_tree(self._pid)
        shut(self._sock, socket.SHUT_RDWR)
        self._sock.close()

    def _end_within(self, patience_s: float) -> None:
        self._cancelled = True
        self._deadline = min(self._deadline, time.monotonic() + patience_s)


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, without its help; returns when they have ended, or after some patience.

    The process is the last: as long as it lives, those whose parents end become its children and can be found.
    """
    import psutil

    try:
        top = psutil.Process(pid)
        family = {top: None}  # a set that keeps its order
        top.suspend()
        while found := [child for child in top.children(recursive=True) if child not in family]:
            for child in found:
                family[child] = None
                with suppress(psutil.Error):
                    child.suspend()  # what is stopped cannot fork
    except psutil.NoSuchProcess:
        return
    for process in reversed(family):
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + OVERDUE_S
    while any(_is_alive(process) for process in family) and time.monotonic() < deadline:
        time.sleep(0.001)


def _state(pid: int) -> str | None:
    """The letter for what a process is doing; None where there is no /proc to say so."""
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
