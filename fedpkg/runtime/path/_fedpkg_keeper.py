"""A slot's keeper: runs one task after the other and reaps all processes that each leaves behind.

Runs in a fork of the zygote: standard library only, imports nothing of fedpkg. After a task's main process has ended,
all other processes that have become the keeper's children, including daemons in separate sessions, are killed before
the dispatcher reads any file. Controller and keeper exchange frames (4 bytes of length, then JSON). End of file on
the socket means that the controller has ended: the keeper kills its task and exits. The first frame is the keeper's
process id: if the keeper is stopped, the controller itself kills it and its task.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import resource  # noqa: F401  (os.wait4 imports it, when there may be no file to spare)
import select
import signal
import socket
import struct
import subprocess
import sys
import time

import _fedpkg_isolation  # type: ignore[import-not-found]
import _fedpkg_limits  # type: ignore[import-not-found]
import _fedpkg_main  # type: ignore[import-not-found]
import _fedpkg_resident  # type: ignore[import-not-found]
import _fedpkg_usage  # type: ignore[import-not-found]
from _fedpkg_log import Log  # type: ignore[import-not-found]
from _fedpkg_processes import (  # type: ignore[import-not-found]
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    children_of,
    go_first,
    kill,
    kill_children,
    prctl,
)

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHUNK = 1 << 16
REPORT_BYTES = 4096


def send(sock: socket.socket, value: object) -> None:
    body = json.dumps(value).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)


def receive(sock: socket.socket) -> Any:
    """The next frame, or None if the other side has closed the connection."""
    header = _receive_exactly(sock, 4)
    if header is None:
        return None
    body = _receive_exactly(sock, struct.unpack(">I", header)[0])
    return None if body is None else json.loads(body)


def _receive_exactly(sock: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        try:
            part = sock.recv(min(count, CHUNK))
        except ConnectionError:
            part = b""
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class NotStarted(Exception):
    """A command could not be started; ``told`` is the answer to its order."""

    def __init__(self, error: Exception, *, not_isolated: str | None = None) -> None:
        super().__init__(str(error))
        number = getattr(error, "errno", None)
        self.told = {"error": "%s: %s" % (type(error).__name__, error), "errno": number, "not_isolated": not_isolated}


class Child:
    """A forked child that waits for its task, so that the next task need not wait for a fork."""

    def __init__(self, keeper: Keeper) -> None:
        fds: list[int] = []
        try:
            fds += os.pipe()
            fds += os.pipe()
            self.wire, child_wire = socket.socketpair()
            self.report = mmap.mmap(-1, REPORT_BYTES)  # shared with the child, for its times
            self.pid = os.fork()
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        self.out, out_write, self.err, err_write = fds
        if self.pid == 0:
            status = 1
            try:
                if keeper.apart:
                    _fedpkg_isolation.have_own_mounts()
                os.dup2(out_write, 1)
                os.dup2(err_write, 2)
                keeper.sock.close()
                for file in keeper.files:
                    file.close()
                self.wire.close()
                keep = {0, 1, 2, child_wire.fileno(), *keeper.of_imports, *keeper.given}
                keep.update(_fedpkg_isolation.kept_files())
                _fedpkg_isolation.close(_fedpkg_isolation.open_files() - keep)
                status = warm_child(child_wire, self.report, keeper.of_imports)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(out_write)
        os.close(err_write)
        child_wire.close()

    def streams(self) -> list[int]:
        """Its output streams, for the logs of one task."""
        return [os.dup(self.out), os.dup(self.err)]

    def last_words(self, order: dict[str, Any], _status: int | None) -> dict[str, Any]:
        """The child's report of its only task; closes the child."""
        not_isolated = why_not_isolated(self.wire) if order.get("isolation") is not None else None
        report = read_report(self.report)
        self.close()
        return {"not_isolated": not_isolated, **report}

    def close(self) -> None:
        os.close(self.out)
        os.close(self.err)
        self.wire.close()
        self.report.close()


class Command:
    """A line for bash that runs as a task."""

    wire = None

    def __init__(self, order: dict[str, Any], given: list[int]) -> None:
        self.walls = _fedpkg_isolation.Walls(order.get("isolation"), order["cwd"])

        def before_exec() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            _fedpkg_limits.apply(order["limits"])
            self.walls.put_up()

        try:
            process = subprocess.Popen(
                self.walls.command(["bash", "-c", order["shell"]]),
                cwd=order["cwd"],
                env=order["env"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                pass_fds=[*self.walls.fds, *given],
                preexec_fn=before_exec,  # safe without threads
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NotStarted(error, not_isolated=self.walls.problem())
        process.returncode = 0  # the keeper reaps it; the destructor must not
        self.pid = process.pid
        self.pipes = [process.stdout, process.stderr]

    def streams(self) -> list[int]:
        streams = [os.dup(pipe.fileno()) for pipe in self.pipes if pipe is not None]
        self.pipes.clear()  # which closes them
        return streams

    def last_words(self, _order: dict[str, Any], status: int | None) -> dict[str, Any]:
        return {"not_isolated": self.walls.problem(status)}


class Keeper:
    """Runs one task at a time for one slot; with ``apart``, as the first process of a PID namespace.

    ``given`` has the open file that its task inherits, if there is one.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        apart: bool,
        of_imports: frozenset[int] = frozenset(),
        given: Sequence[int] = (),
    ) -> None:
        self.sock = sock
        self.given = list(given)
        self.apart = apart
        self.of_imports = of_imports  # files that libraries opened when they were imported
        self.spare: Child | None = None  # waits for its first task
        self.resident: Child | None = None  # has run tasks, and is clean
        self.mounts: int | None = None  # a file that keeps the mounts of the last task
        self.files: list[Any] = []  # the logs

    def run(self) -> None:
        pid = os.getpid()
        if self.apart:
            pid = _fedpkg_isolation.have_own_processes()
            _fedpkg_isolation.prepare_filters()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        go_first()
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        send(self.sock, {"pid": pid, "has_cuda": not getattr(cuda, "_is_in_bad_fork", bool)()})
        while True:
            order = receive(self.sock)
            if order is None:
                kill_children(spare=())
                os._exit(0)
            if "warm_up" in order:
                self.fork_spare()
                continue
            if "cancel" in order:  # it was sent before the result of its task arrived
                continue
            try:
                outcome = self.supervise(order)
            except NotStarted as problem:
                outcome = problem.told
            except OSError as error:
                kill_children(spare=self.waiting())
                outcome = NotStarted(error).told
            try:
                send(self.sock, outcome)
            except OSError:
                continue  # the controller has ended, which the next receive shows
            if self.apart and not order["isolation"]["network"]:
                _fedpkg_isolation.share_no_network()  # among the next tasks: the first one has made its own
            if "shell" not in order and self.resident is None:
                self.fork_spare()

    def fork_spare(self) -> None:
        try:
            self.spare = self.spare or Child(self)
        except OSError:  # no memory or processes at the moment: the next task tries again and reports a failure
            pass

    def waiting(self) -> tuple[int, ...]:
        """Children that are not part of a task."""
        return tuple(child.pid for child in (self.spare, self.resident) if child)

    def supervise(self, order: dict[str, Any]) -> dict[str, Any]:
        """Run a task; its outcome.

        Raises:
            NotStarted: its command cannot be executed.
        """
        started = time.monotonic()
        # Before the task begins, as it could put a link or a pipe in their place.
        self.files = [open(order[name], "xb", buffering=0) for name in ("stdout", "stderr")]  # noqa: SIM115
        if order.get("connection"):
            order["env"][order["connection"]] = str(self.given[0])
        task = Command(order, self.given) if "shell" in order else self.hand_over(order)
        if self.apart:
            before, self.mounts = self.mounts, _fedpkg_isolation.hold_mounts(task.pid)
            if before is not None:
                os.close(before)  # this takes some milliseconds, so it is done while a task runs
        run = Run(self, task, order, started)
        ending = run.wait()
        answer = self.answer_of(task, order) if ending == "answered" and isinstance(task, Child) else {}
        if self.resident is None:
            if ending == "answered":  # it failed, or could not be restored: the next task gets another child
                end(task.pid)
            answer = {**run.reap(), **answer}
        return run.outcome(ending, answer, stays=self.resident is not None)

    def hand_over(self, order: dict[str, Any]) -> Child:
        """Send the order to the waiting child, or to a new one if that was killed; returns the child."""
        if self.resident is not None and not is_silent(self.resident.wire):  # it has ended, or a task has written to it
            self.resident.close()
            self.resident = None
            kill_children(spare=self.waiting())
        order["answer_to"] = os.urandom(16).hex()  # unknown to earlier tasks
        waiting = self.resident or self.spare
        if waiting is self.spare:
            self.spare = None
        self.resident = None
        if waiting is not None:
            try:
                send(waiting.wire, order)
                return waiting
            except OSError:
                waiting.close()
        child = Child(self)
        send(child.wire, order)
        return child

    def answer_of(self, child: Child, order: dict[str, Any]) -> dict[str, Any]:
        """The answer of a resident child. It stays the slot's resident child if its task has left nothing behind."""
        try:
            said = receive(child.wire)
            if said is None or said["answer_to"] != order["answer_to"]:
                return {}
            answer = {
                "exit_code": int(said["status"]),
                "signal": None,
                "times": {str(name): float(value) for name, value in said["times"].items()},
                "imported": imported_of(said),
            }
            if answer["exit_code"] == 0 and said["clean"] and not children_of(child.pid) and is_silent(child.wire):
                self.resident = child
        except Exception:  # the task may have sent anything
            return {}
        return answer


class Run:
    """A running task until its end: its logs, its limits, and what it uses."""

    def __init__(self, keeper: Keeper, task: Child | Command, order: dict[str, Any], started: float) -> None:
        self.keeper = keeper
        self.task = task
        self.order = order
        self.started = started
        self.deadline = started + (order["timeout_s"] or math.inf)
        self.wire = (
            task.wire if order.get("resident") else None
        )  # on which a resident child answers at the end of its task
        self.logs = [Log(file, fd, order["log_bytes"]) for file, fd in zip(keeper.files, task.streams())]
        self.meter = _fedpkg_usage.Meter(task.pid, used_before=self.wire is not None)
        self.supervisor = _fedpkg_limits.Supervisor(
            order["limits"],
            order["folders"],
            order["given"],
            task.pid,
            threads=int(order["env"].get("OMP_NUM_THREADS") or 1),
            meter=self.meter,
        )
        self.ending = "exit"

    def wait(self) -> str:
        """Wait until the task has ended by itself, at a limit, with (or by) the controller, or has ``answered``."""
        self.pidfd = os.pidfd_open(self.task.pid) if hasattr(os, "pidfd_open") else None
        self.streams = {log.fd: log for log in self.logs}
        self.poller = select.poll()
        for file in (self.keeper.sock, self.pidfd, self.wire, *self.streams):
            if file is not None:
                self.poller.register(file, select.POLLIN)
        try:
            while not self.hear():
                if self.pidfd is None and os.waitid(os.P_PID, self.task.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    break
                if self.ending == "exit":
                    self.look_at_limits()
        finally:
            if self.pidfd is not None:
                os.close(self.pidfd)
        return self.ending

    def hear(self) -> bool:
        """Handle the next event, or wait for the next check of the limits; whether the task has ended."""
        patience_s = math.inf if self.pidfd is not None else 0.005
        if self.ending == "exit":
            patience_s = min(patience_s, max(0.0, min(self.deadline, self.supervisor.due) - time.monotonic()))
        for fd, _mask in self.poller.poll(None if patience_s == math.inf else patience_s * 1000):
            if fd in self.streams:
                if not self.streams[fd].pump():
                    self.poller.unregister(fd)
            elif fd == self.keeper.sock.fileno():
                self.poller.unregister(fd)
                if self.ending == "exit":
                    self.stop("gone" if receive(self.keeper.sock) is None else "cancelled")
            elif fd == self.pidfd:
                return True
            elif self.wire is not None:
                if self.ending == "exit" and not _has_ended(self.wire):
                    self.ending = "answered"
                    return True
                self.poller.unregister(self.wire)
        return False

    def look_at_limits(self) -> None:
        if time.monotonic() >= self.deadline:
            self.stop("timeout")
        elif time.monotonic() >= self.supervisor.due and self.supervisor.look(spare=self.keeper.waiting()):
            self.stop("limit")

    def stop(self, ending: str) -> None:
        self.ending = ending
        end(self.task.pid)

    def reap(self) -> dict[str, Any]:
        """Wait for the main process; its exit code or signal."""
        _, status, usage = os.wait4(self.task.pid, 0)
        self.meter.count(usage)
        return {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        }

    def outcome(self, ending: str, outcome: dict[str, Any], *, stays: bool) -> dict[str, Any]:
        """Kill what the task has left behind; the outcome. With ``stays``, its main process runs the next task."""
        ended = time.monotonic()
        survivors = kill_children(spare=self.keeper.waiting(), count=self.meter.count)
        if ending in ("exit", "answered"):
            ending = "limit" if self.supervisor.look_at_the_end() else "exit"
        tails = [log.close() for log in self.logs]
        if not stays:
            outcome = {**self.task.last_words(self.order, outcome["exit_code"]), **outcome}
        times = dict(outcome.get("times", {}), started=self.started, ended=ended, cleaned=time.monotonic())
        return {
            **outcome,
            "times": times,
            "ending": ending,
            "limit": self.supervisor.exceeded,
            "measured": self.supervisor.measured,
            "survivors": survivors,
            "stdout_tail": tails[0],
            "stderr_tail": tails[1],
            "wall_s": ended - self.started,
            **self.meter.result(main_stays=stays),
        }


def end(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)  # each task leads a separate session and process group
    except (ProcessLookupError, PermissionError):
        pass
    kill(pid, signal.SIGKILL)


def _has_ended(wire: socket.socket) -> bool:
    """Whether a readable connection was closed by the other side, with nothing left to read."""
    try:
        return not wire.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def is_silent(wire: socket.socket) -> bool:
    """Whether there is nothing to read: a resident child sends nothing between two tasks."""
    return not select.select([wire], [], [], 0)[0]


def why_not_isolated(wire: socket.socket) -> str | None:
    """The child's last message, before its script: why it could not be isolated, or None."""
    wire.setblocking(False)
    try:
        said = receive(wire)
    except OSError:  # it has ended before
        said = None
    return None if said is None else said["not_isolated"]


def imported_of(said: dict[str, Any]) -> dict[str, float]:
    """Modules that a task has imported itself, with their seconds, according to the task."""
    return {str(name): float(value) for name, value in said["imported"].items()}


def read_report(report: mmap.mmap) -> dict[str, dict[str, float]]:
    """The child's report of times and imports. It is for display only, as the script could write there."""
    try:
        said = json.loads(report[:].rstrip(b"\0"))
        times = {str(name): float(value) for name, value in said["times"].items()}
        return {"times": times, "imported": imported_of(said)}
    except Exception:
        return {"times": {}, "imported": {}}


def warm_child(wire: socket.socket, report: mmap.mmap, of_imports: frozenset[int]) -> int:
    """Become a task, in a separate session, and run its order. The script inherits only the standard streams."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    order = receive(wire)
    if order is None:
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    isolated = order.get("isolation") is not None
    if order["resident"] and not isolated:
        return int(_fedpkg_resident.serve(order, lambda: receive(wire), lambda answer: send(wire, answer)))

    def say(problem: str | None) -> None:
        if isolated:
            send(wire, {"not_isolated": problem})
        wire.close()

    if isolated:
        _fedpkg_isolation.close(of_imports)
    try:
        status, times = _fedpkg_main.run_task(order, before_its_code=lambda: say(None))
    except _fedpkg_isolation.CannotIsolate as problem:
        say(str(problem)[:1000])
        return 1
    status = _fedpkg_main.finish(status)
    times["finished"] = time.monotonic()
    text = json.dumps({"times": times, "imported": _fedpkg_main.imported()}).encode()[:REPORT_BYTES]
    report[: len(text)] = text
    return int(status)
