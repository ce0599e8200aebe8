"""The process that starts tasks: warm ones by forking itself, cold ones by running a command.

It is exec'ed by the dispatcher with the interpreter of the package's environment, and needs only the standard library
(Python 3.9 or newer); fedpkg need not be installed there. One zygote has one *keeper* per slot:

    controller ── socket ── zygote            takes the steps of dispatch/preload.py, never starts a thread
        │                     └─ fork ─┐
        └──────── socket ─────────── keeper   one per slot; the subreaper of the one task that it runs at a time
                                       └─ task, and whatever the task starts

The keeper is the reaper of all that its task leaves behind, also of a daemon with a session of its own: once the task's
main process is gone, everything else that has become the keeper's child is killed, before the dispatcher looks at any
file. Controller and keeper exchange frames (4 bytes of length, then JSON). End of file on the socket means that the
controller is gone: the keeper kills its task and exits. The first frame is the keeper's process id: should the keeper
be stopped, the controller itself kills it and its task.
"""

from __future__ import annotations

import ctypes
import gc
import io
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
import types
import weakref

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "path"))
import _fedpkg_isolation  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_limits  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_main  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_resident  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_task  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_usage  # type: ignore[import-not-found]  # noqa: E402
from _fedpkg_processes import (  # type: ignore[import-not-found]  # noqa: E402
    KILL_PATIENCE_S,
    children_of,
    go_first,
    kill,
    kill_children,
)

sys.path.pop(0)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25
HUGE_PAGE = 2 << 20
CHUNK = 1 << 16
TAIL_BYTES = 4096
REPORT_BYTES = 4096


# ---------------------------------------------------------------- frames


def send(sock: socket.socket, value: object) -> None:
    body = json.dumps(value).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)


def receive(sock: socket.socket) -> Any:
    """The next frame, or None when the other side is gone."""
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


# ---------------------------------------------------------------- zygote


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def count_threads() -> int:
    """Threads of this process; without jemalloc's (pyarrow has one, and much imports pyarrow), which is made for forks.

    jemalloc holds all its locks while a process forks, and goes on without the thread in the child.
    """
    try:
        return sum(_name_of_thread(thread) != "jemalloc_bg_thd" for thread in os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def threads_stay() -> bool:
    """Whether there are other threads, also after a moment: one that has been joined may still be listed."""
    for _ in range(40):
        if count_threads() <= 1:
            return False
        time.sleep(0.005)
    return True


def _name_of_thread(thread: str) -> str:
    try:
        with open("/proc/self/task/%s/comm" % thread) as file:
            return file.read().strip()
    except OSError:
        return ""


class Offence(Exception):
    """A step that must be left out: ``part`` is the name that was taken from a module, if it was that."""

    def __init__(self, number: int, part: str | None, why: str, kind: str, seconds: float) -> None:
        super().__init__(why)
        self.told = {"step": number, "part": part, "why": why, "kind": kind, "seconds": seconds}


class Reads(dict):  # type: ignore[type-arg]
    """The variables behind ``os.environ``, which notes the names that are looked up."""

    def __init__(self, variables: dict[bytes, bytes]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def __getitem__(self, name: bytes) -> bytes:
        self.names.add(os.fsdecode(name))
        return dict.__getitem__(self, name)  # type: ignore[no-any-return]


def preload(steps: Iterable[list[Any]], forbidden: Iterable[str], of_clients: Iterable[str]) -> dict[str, str]:
    """Take the steps of `dispatch.preload` in their order; say which imports failed without leaving anything behind.

    Raises:
        Offence: the interpreter cannot be used as it is now.
    """
    failed = {}
    before = dict(os.environ)
    given = dict(before)  # what the script sets, too
    native = set()
    banned = {"imports": list(forbidden), "reads": list(of_clients)}
    for number, step in enumerate(steps):
        kind = step[0]
        if kind == "environ":
            _, how, name, value = step
            if name in _fedpkg_task.THREAD_VARIABLES:  # here they stay at 1, lest threads start
                if how == "set":
                    _fedpkg_main.THREADS_OF_SCRIPT[name] = value
                continue
            if how == "putenv":
                os.putenv(name, value)
                native.add(name)
            elif how == "set" or name not in os.environ:
                os.environ[name] = given[name] = value
        elif kind == "warnings":
            set_warning_filter(*step[1:])
        elif kind == "optimiser":
            if "torch" in sys.modules:
                attempt(number, None, "torch", step_an_optimiser, (sys.modules["torch"],), banned)
        else:
            module = step[1]
            problem = attempt(number, None, module, __import__, (module,), banned)
            if problem is not None:
                failed[module] = problem
                continue
            for part in step[2]:
                attempt(number, part, "%s.%s" % (module, part), take, (module, part), banned)
    _fedpkg_main.SET_BY_IMPORTS.update((k, v) for k, v in os.environ.items() if given.get(k) != v and k not in before)
    _fedpkg_main.set_environment(before)
    for name in native:
        os.putenv(name, before[name]) if name in before else os.unsetenv(name)
    if "torch" in sys.modules:
        _fedpkg_task.warm_vector_math(sys.modules["torch"])
    return failed


def attempt(
    number: int, part: str | None, name: str, action: Any, arguments: tuple[Any, ...], banned: dict[str, list[str]]
) -> str | None:
    """Do one import; why it failed, if it left nothing behind.

    Raises:
        Offence: it started threads, left modules half imported, or met what is ``banned``.
    """
    known = set(sys.modules)
    started = time.monotonic()
    problem = None
    plain = os.environ._data  # type: ignore[attr-defined]
    reads = os.environ._data = Reads(plain)  # type: ignore[attr-defined]
    try:
        action(*arguments)
    except BaseException as error:  # whatever a module does at import, the task itself will show it to its user
        problem = "%s: %s" % (type(error).__name__, error)
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        is_itself_missing = missing is not None and (name + ".").startswith(missing + ".")  # its parents are whole
        if not is_itself_missing and set(sys.modules) - known:
            raise Offence(number, part, problem, "failed", time.monotonic() - started)
    finally:
        plain.clear()
        plain.update(reads)
        os.environ._data = plain  # type: ignore[attr-defined]
    seconds = time.monotonic() - started
    if threads_stay():
        raise Offence(number, part, "importing '%s' starts threads" % name, "threads", seconds)
    for kind, found in (("imports", sys.modules), ("reads", reads.names)):
        for other in banned[kind]:
            if other in found:
                raise Offence(number, part, "importing '%s' %s '%s'" % (name, kind, other), kind, seconds)
    return problem


def take(module: str, part: str) -> None:
    """``from module import part``: an attribute, which the module may make only now, or a module of it."""
    try:
        getattr(sys.modules[module], part)
    except AttributeError:
        __import__("%s.%s" % (module, part))


def set_warning_filter(function: str, arguments: list[Any], named: list[list[Any]]) -> None:
    import builtins
    import warnings

    def value(given: Any) -> Any:
        return getattr(builtins, given[0]) if isinstance(given, list) else given

    try:
        getattr(warnings, function)(*map(value, arguments), **{name: value(given) for name, given in named})
    except Exception:
        pass  # the script will show it to its user


def start_again(control: socket.socket, environ: dict[str, str], offence: Offence) -> None:
    """A new interpreter in this process, as threads and modules cannot be taken back; it gets a new order."""
    send(control, {"again": offence.told})
    os.set_inheritable(control.fileno(), True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, os.path.abspath(__file__), sys.argv[1]], environ)


def shadowed(own: Iterable[str]) -> str | None:
    """What is wrong if one of the package's own modules is hidden by one that is imported already."""
    for name in own:
        if name in sys.modules:
            return "its own module '%s' has the name of one that the warm interpreter has imported" % name
    return None


def step_an_optimiser(torch: types.ModuleType) -> None:
    """The first optimiser imports half of PyTorch (torch._dynamo): do it once, without autograd or CUDA."""
    try:
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        torch.optim.SGD([parameter], lr=0.0).step()
    except Exception as error:
        print("fedpkg: cannot warm up torch.optim: %r" % error, file=sys.stderr)


def fork_has_cuda(torch: types.ModuleType) -> bool:
    """Whether PyTorch could use CUDA in a fork of this process: only a fork can tell."""
    pid = os.fork()
    if pid == 0:
        spoilt = True
        try:
            spoilt = torch.cuda._is_in_bad_fork()
        finally:
            os._exit(int(spoilt))
    return os.waitpid(pid, 0)[1] == 0


def disown_finalizers() -> None:
    """What the imports want torn down at exit is not the children's to tear down (it takes 30 ms with PyTorch)."""
    registry = getattr(weakref.finalize, "_registry", {})
    for info in list(registry.values()):
        info.atexit = False


def use_huge_pages() -> None:
    """Let the memory that all children share use huge pages: a fork then copies 1/512 of the page-table entries.

    Fork and exit of an idle child with PyTorch loaded: 17 ms without, 4 ms with (tests/benchmarks/fork_cost.py).
    Where the kernel has no such pages, or none to spare, nothing changes.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    try:
        with open("/proc/self/maps") as maps:
            lines = [line.split() for line in maps]
    except OSError:
        return
    for words in lines:
        if not words[1].startswith("rw") or not (len(words) == 5 or words[5] == "[heap]"):
            continue
        start, end = (int(address, 16) for address in words[0].split("-"))
        start, end = -(-start // HUGE_PAGE) * HUGE_PAGE, end // HUGE_PAGE * HUGE_PAGE
        if end > start and madvise(start, end - start, MADV_HUGEPAGE) == 0:
            madvise(start, end - start, MADV_COLLAPSE)


def open_streams_as_pipes() -> None:
    """Make the standard streams anew, as pipes: those of tasks are, whereas the zygote's own are a file.

    A text stream asks only once whether it can seek. One that believes it can fails in ``sys.stdout.reconfigure``.
    """
    ends = os.pipe()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        was = getattr(sys, name)
        was.flush()
        file = os.dup(fd)
        os.dup2(ends[1], fd)
        raw = io.FileIO(fd, "w", closefd=False)
        raw.name = was.name
        errors, lines, through = was.errors, was.line_buffering, was.write_through
        under = raw if through else io.BufferedWriter(raw)  # as Python itself does it where nothing is to be buffered
        stream = io.TextIOWrapper(under, was.encoding, errors, line_buffering=lines, write_through=through)
        stream.mode = "w"  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)
        os.dup2(file, fd)
        os.close(file)
    for end in ends:
        os.close(end)


def main() -> None:
    open_streams_as_pipes()
    control = socket.socket(fileno=int(sys.argv[1]))
    order = receive(control)
    if order is None:
        return
    started = time.monotonic()
    # The controller decides when a run ends. Not SIG_IGN: commands that we execute would inherit it.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # should a keeper be killed, its task comes to us
    os.chdir("/")
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)
    environ = dict(os.environ)
    before = _fedpkg_isolation.open_files()
    try:
        failed = preload(order["steps"], order["forbidden"], order["of_clients"])
    except Offence as offence:
        start_again(control, environ, offence)
        raise  # it does not come back
    of_imports = frozenset(_fedpkg_isolation.open_files() - before)
    why_cold = shadowed(order["own"])
    torch = sys.modules.get("torch")
    if torch is not None and os.environ.get("CUDA_VISIBLE_DEVICES") and not fork_has_cuda(torch):
        why_cold = why_cold or "one of its imports uses CUDA at once, and then a forked process cannot use it"
    if why_cold is None:
        _fedpkg_main.precompile(order["sources"])
        disown_finalizers()
        gc.collect()
        use_huge_pages()
        gc.freeze()  # so that a collection in a child does not touch, and so copy, the pages it shares with us
    send(
        control,
        {
            "failed": failed,
            "why_cold": why_cold,
            "seconds": time.monotonic() - started,
            "python": sys.version.split()[0],
        },
    )
    if why_cold is not None:
        os._exit(0)
    # Process id → pidfd, by which we are woken at its end (None where there are no pidfds: we look).
    keepers: dict[int, int | None] = {}
    while True:
        ends = list(keepers.values())
        watched: list[socket.socket | int] = [control, *filter(None, ends)]
        awake, _, _ = select.select(watched, [], [], 1.0 if None in ends else None)
        bury(keepers)
        if control not in awake:
            continue
        fd = receive_fd(control)
        if fd is None:
            break
        try:
            pid = os.fork()
        except OSError as error:  # the controller sees the closed connection
            print("fedpkg: cannot fork a keeper: %s" % error, file=sys.stderr)
            os.close(fd)
            continue
        if pid == 0:
            control.close()
            keeper = Keeper(socket.socket(fileno=fd), apart=order["apart"], of_imports=of_imports)
            try:
                keeper.run()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        os.close(fd)
        keepers[pid] = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    deadline = time.monotonic() + KILL_PATIENCE_S  # keepers see the same end of file and tidy up by themselves
    while keepers and time.monotonic() < deadline:
        bury(keepers)
        time.sleep(0.002)
    kill_children(spare=())
    os._exit(0)


def not_started(error: Exception) -> dict[str, Any]:
    """The answer to an order whose command could not be started."""
    return {"error": "%s: %s" % (type(error).__name__, error), "errno": getattr(error, "errno", None)}


def receive_fd(control: socket.socket) -> int | None:
    try:
        message, fds, _flags, _address = socket.recv_fds(control, 1, 1)
    except ConnectionError:
        return None
    return fds[0] if message and fds else None


def bury(keepers: dict[int, int | None]) -> None:
    """Collect dead keepers, and kill what they left to us."""
    orphans = False
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            break
        orphans = True
        pidfd = keepers.pop(pid, None)
        if pidfd is not None:
            os.close(pidfd)
    if orphans:
        kill_children(spare=keepers)


# ---------------------------------------------------------------- keeper


class Log:
    """A captured stream: the first and the last half of ``limit`` bytes reach its file, what is between does not."""

    def __init__(self, file: Any, fd: int, limit: int) -> None:
        self.fd = fd
        self.file = file
        self.room = limit - limit // 2
        self.keep = limit // 2
        self.dropped = 0
        self.late = bytearray()  # what does not fit in the head
        self.tail = bytearray()  # the last bytes, for the record

    def pump(self) -> bool:
        """Take what has come; False at the end of the stream."""
        data = os.read(self.fd, CHUNK)
        if not data:
            return False
        self.tail += data
        del self.tail[:-TAIL_BYTES]
        if self.room:
            self.write(data[: self.room])
            self.late += data[self.room :]
            self.room -= min(self.room, len(data))
        else:
            self.late += data
        if len(self.late) > self.keep + CHUNK:
            surplus = len(self.late) - self.keep
            self.dropped += surplus
            del self.late[:surplus]
        return True

    def write(self, data: bytes) -> None:
        try:
            self.file.write(data)
        except OSError as error:  # a full disk: the task itself goes on, the record says what is missing
            self.tail += b"\n[fedpkg: the log cannot be written: %s]" % str(error).encode()

    def close(self) -> str:
        for _ in range(64):  # the writers are dead; a pipe holds at most 1 MiB
            if not select.select([self.fd], [], [], 0)[0] or not self.pump():
                break
        os.close(self.fd)
        surplus = max(0, len(self.late) - self.keep)
        self.dropped += surplus
        del self.late[:surplus]
        if self.dropped:
            self.write(b"\n[fedpkg: %d bytes left out here]\n" % self.dropped)
        self.write(bytes(self.late))
        self.file.close()
        return self.tail.decode("utf-8", "replace")


class Child:
    """A forked child that waits for its task: the next task finds the fork already made."""

    def __init__(self, keeper: Keeper) -> None:
        fds: list[int] = []
        try:
            fds += os.pipe()
            fds += os.pipe()
            self.wire, child_wire = socket.socketpair()
            self.report = mmap.mmap(-1, REPORT_BYTES)  # shared with the child: its times, for which it has no file
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
                keep = {0, 1, 2, child_wire.fileno(), *keeper.of_imports}
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

    def close(self) -> None:
        os.close(self.out)
        os.close(self.err)
        self.wire.close()
        self.report.close()


class Keeper:
    """Runs one task at a time for one slot; with ``apart``, in a PID namespace of which it is the first process."""

    def __init__(self, sock: socket.socket, *, apart: bool, of_imports: frozenset[int] = frozenset()) -> None:
        self.sock = sock
        self.apart = apart
        self.of_imports = of_imports  # files that libraries opened when they were imported
        self.spare: Child | None = None  # waits for its first task
        self.resident: Child | None = None  # has run some, and is clean
        self.mounts: int | None = None  # a file that holds those of the last task
        self.files: list[Any] = []  # of the logs

    def run(self) -> None:
        pid = os.getpid()
        if self.apart:
            pid = _fedpkg_isolation.have_own_processes()
            _fedpkg_isolation.prepare_filters()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        go_first()
        send(self.sock, {"pid": pid})
        while True:
            order = receive(self.sock)
            if order is None:
                kill_children(spare=())
                os._exit(0)
            if "warm_up" in order:
                self.fork_spare()
                continue
            if "cancel" in order:  # it crossed with the result of its task
                continue
            try:
                outcome = self.supervise(order)
            except OSError as error:
                kill_children(spare=self.waiting())
                outcome = not_started(error)
            try:
                send(self.sock, outcome)
            except OSError:
                continue  # the controller is gone: the next receive says so
            if "shell" not in order and self.resident is None:
                self.fork_spare()

    def fork_spare(self) -> None:
        try:
            self.spare = self.spare or Child(self)
        except OSError:  # no memory or processes just now: the next task tries again, and says so if it cannot
            pass

    def waiting(self) -> tuple[int, ...]:
        """Children that are not part of a task."""
        return tuple(child.pid for child in (self.spare, self.resident) if child)

    def supervise(self, order: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        child = walls = None
        # Before the task can have begun: it could put a link or a pipe in their place.
        self.files = [open(order[name], "xb", buffering=0) for name in ("stdout", "stderr")]  # noqa: SIM115
        if "shell" in order:
            walls = _fedpkg_isolation.Walls(order.get("isolation"), order["cwd"])

            def before_exec() -> None:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                _fedpkg_limits.apply(order["limits"])
                walls.put_up()

            try:
                process = subprocess.Popen(
                    walls.command(["bash", "-c", order["shell"]]),
                    cwd=order["cwd"],
                    env=order["env"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    start_new_session=True,
                    pass_fds=[*walls.fds, *order["fds"]],
                    preexec_fn=before_exec,  # no threads: safe
                )
            except (OSError, subprocess.SubprocessError) as error:
                return dict(not_started(error), not_isolated=walls.problem())
            assert process.stdout is not None and process.stderr is not None
            pid, out, err = process.pid, os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno())
            process.stdout.close()
            process.stderr.close()
            process.returncode = 0  # we reap it ourselves; its destructor must not
        else:
            child = self.hand_over(order)
            pid, out, err = child.pid, os.dup(child.out), os.dup(child.err)
        if self.apart:
            before, self.mounts = self.mounts, _fedpkg_isolation.hold_mounts(pid)
            if before is not None:
                os.close(before)  # which takes some milliseconds: now that a task runs, nobody waits for us
        logs = [Log(file, fd, order["log_bytes"]) for file, fd in zip(self.files, (out, err))]
        deadline = started + (order["timeout_s"] or math.inf)
        meter = _fedpkg_usage.Meter(pid, used_before=child is not None and order["resident"])
        supervisor = _fedpkg_limits.Supervisor(
            order["limits"],
            order["folders"],
            order["given"],
            pid,
            threads=int(order["env"].get("OMP_NUM_THREADS") or 1),
            meter=meter,
        )
        ending = self.wait(pid, logs, deadline, supervisor, child.wire if child and order["resident"] else None)
        answer: dict[str, Any] = {}
        if ending == "answered" and child is not None:
            answer = self.answer_of(child, order)
            if self.resident is None:  # it failed, or is not as it was before: the next task gets another
                self.end(pid)
        status, number = answer.get("status"), None
        if self.resident is None:
            _, wait_status, usage = os.wait4(pid, 0)
            meter.count(usage)
            if status is None:
                status = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else None
                number = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None
        ended = time.monotonic()
        survivors = kill_children(spare=self.waiting(), count=meter.count)
        if ending in ("exit", "answered") and supervisor.look_at_the_end():
            ending = "limit"
        tails = [log.close() for log in logs]
        times, imported = answer.get("times", {}), answer.get("imported", {})
        not_isolated = walls.problem(status) if walls is not None else None
        if child is not None and self.resident is None:
            if order.get("isolation") is not None:
                not_isolated = why_not_isolated(child.wire)
            report = read_report(child.report)
            times, imported = times or report["times"], imported or report["imported"]
            child.close()
        return {
            "ending": "exit" if ending == "answered" else ending,
            "limit": supervisor.exceeded,
            "measured": supervisor.measured,
            "exit_code": status,
            "signal": number,
            "survivors": survivors,
            "stdout_tail": tails[0],
            "stderr_tail": tails[1],
            "wall_s": ended - started,
            **meter.result(main_stays=self.resident is not None),
            "times": dict(times, started=started, ended=ended, cleaned=time.monotonic()),
            "imported": imported,
            "not_isolated": not_isolated,
        }

    def hand_over(self, order: dict[str, Any]) -> Child:
        """The child that has the order: the one that waits, or a new one should that have been killed meanwhile."""
        if self.resident is not None and not is_silent(self.resident.wire):  # it has ended, or a task left a word there
            self.resident.close()
            self.resident = None
            kill_children(spare=self.waiting())
        order["answer_to"] = os.urandom(16).hex()  # which no earlier task knows
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
        """What a resident child says of its task; it becomes the slot's resident again if nothing is left of that."""
        try:
            said = receive(child.wire)
            if said is None or said["answer_to"] != order["answer_to"]:
                return {}
            answer = {
                "status": int(said["status"]),
                "times": {str(name): float(value) for name, value in said["times"].items()},
                "imported": imported_of(said),
            }
            if answer["status"] == 0 and said["clean"] and not children_of(child.pid) and is_silent(child.wire):
                self.resident = child
        except Exception:  # the task may have sent us anything
            return {}
        return answer

    def wait(
        self,
        pid: int,
        logs: list[Log],
        deadline: float,
        supervisor: _fedpkg_limits.Supervisor,
        wire: socket.socket | None,
    ) -> str:
        """Until the task has ended: by itself, at a limit, or with (or for) the controller.

        A resident child stays, and says on ``wire`` that its task is done: then the ending is ``answered``.
        """
        pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        streams = {log.fd: log for log in logs}
        for fd in streams:
            poller.register(fd, select.POLLIN)
        if pidfd is not None:
            poller.register(pidfd, select.POLLIN)
        if wire is not None:
            poller.register(wire, select.POLLIN)
        ending = "exit"
        try:
            while True:
                patience = None
                soonest = min(deadline, supervisor.due)
                if ending == "exit" and soonest < math.inf:
                    patience = max(0.0, soonest - time.monotonic())
                if pidfd is None:
                    patience = 0.005 if patience is None else min(patience, 0.005)
                events = poller.poll(None if patience is None else patience * 1000)
                for fd, _mask in events:
                    if fd in streams:
                        if not streams[fd].pump():
                            poller.unregister(fd)
                    elif fd == self.sock.fileno() and ending == "exit":
                        order = receive(self.sock)
                        ending = "gone" if order is None else "cancelled"
                        poller.unregister(self.sock)
                        self.end(pid)
                    elif fd == pidfd:
                        return ending
                    elif wire is not None and fd == wire.fileno():
                        if ending == "exit" and not _has_ended(wire):
                            return "answered"
                        poller.unregister(wire)
                if pidfd is None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return ending
                if ending != "exit":
                    continue
                if time.monotonic() >= deadline:
                    ending = "timeout"
                    self.end(pid)
                elif time.monotonic() >= supervisor.due and supervisor.look(spare=self.waiting()):
                    ending = "limit"
                    self.end(pid)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def end(self, pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)  # each task leads a session and group of its own
        except (ProcessLookupError, PermissionError):
            pass
        kill(pid, signal.SIGKILL)


def _has_ended(wire: socket.socket) -> bool:
    """Whether the other side of a readable connection is gone, with nothing left to read."""
    try:
        return not wire.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def is_silent(wire: socket.socket) -> bool:
    """Whether there is nothing to read: a resident child has nothing to say between two tasks."""
    return not select.select([wire], [], [], 0)[0]


def why_not_isolated(wire: socket.socket) -> str | None:
    """The child's last word before its script, when it closes its end: what was in the way, or None."""
    wire.setblocking(False)
    try:
        said = receive(wire)
    except OSError:  # it has ended before
        said = None
    return None if said is None else said["not_isolated"]


def imported_of(said: dict[str, Any]) -> dict[str, float]:
    """Modules that a task says it has imported anew, and their seconds."""
    return {str(name): float(value) for name, value in said["imported"].items()}


def read_report(report: mmap.mmap) -> dict[str, dict[str, float]]:
    """What the child noted of its times and imports: only shown, as its script may have found the place."""
    try:
        said = json.loads(report[:].rstrip(b"\0"))
        times = {str(name): float(value) for name, value in said["times"].items()}
        return {"times": times, "imported": imported_of(said)}
    except Exception:
        return {"times": {}, "imported": {}}


# ---------------------------------------------------------------- the warm child


def warm_child(wire: socket.socket, report: mmap.mmap, of_imports: frozenset[int]) -> int:
    """Become a task: a session of its own, then what its order says. The script gets no file but its streams."""
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


if __name__ == "__main__":
    main()
