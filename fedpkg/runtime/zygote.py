"""The process that starts tasks: warm ones by forking itself, cold ones by running a command.

The dispatcher executes it with the interpreter of the package's environment. It needs only the standard library (Python
3.9 or newer); fedpkg need not be installed there. One zygote has one *keeper* per slot:

    controller ── socket ── zygote            runs the steps of dispatch/preload.py, never starts a thread
        │                     └─ fork ─┐
        └──────── socket ─────────── keeper   one per slot; the subreaper of its task, one at a time
                                       └─ task, and whatever the task starts

What a keeper does is in ``path/_fedpkg_keeper.py``.
"""

from __future__ import annotations

import ctypes
import gc
import io
import os
import select
import signal
import socket
import sys
import time
import types
import weakref

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "path"))
import _fedpkg_isolation  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_main  # type: ignore[import-not-found]  # noqa: E402
import _fedpkg_task  # type: ignore[import-not-found]  # noqa: E402
from _fedpkg_keeper import Keeper, receive, send  # type: ignore[import-not-found]  # noqa: E402
from _fedpkg_processes import (  # type: ignore[import-not-found]  # noqa: E402
    KILL_PATIENCE_S,
    PR_SET_CHILD_SUBREAPER,
    kill_children,
    prctl,
)

sys.path.pop(0)

MADV_HUGEPAGE = 14
MADV_COLLAPSE = 25
HUGE_PAGE = 2 << 20
# Number of new objects before garbage is collected during imports. PyTorch 2.13 with its first optimiser makes 480,000,
# hardly any of them garbage. With this limit a warm interpreter needs 2.3 s of processor time to start, not 2.7 s.
IMPORTED_OBJECTS = 1_000_000


def count_threads() -> int:
    """The number of threads, without jemalloc's, which is safe for forks (pyarrow has one, and many import pyarrow).

    jemalloc holds all its locks during a fork, and continues without the thread in the child.
    """
    try:
        return sum(_name_of_thread(thread) != "jemalloc_bg_thd" for thread in os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def threads_stay() -> bool:
    """Whether other threads exist after a short wait, as a joined thread may still be listed."""
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
    """A step that must be left out; ``part``: the name imported from a module, if that is the cause."""

    def __init__(self, number: int, part: str | None, why: str, kind: str, seconds: float) -> None:
        super().__init__(why)
        self.told = {"step": number, "part": part, "why": why, "kind": kind, "seconds": seconds}


class Reads(dict):  # type: ignore[type-arg]
    """The dictionary behind ``os.environ``, which records the names that are looked up."""

    def __init__(self, variables: dict[bytes, bytes]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def __getitem__(self, name: bytes) -> bytes:
        self.names.add(os.fsdecode(name))
        return dict.__getitem__(self, name)  # type: ignore[no-any-return]


def collect_rarely() -> Callable[[], None]:
    """Collect garbage rarely, until the returned function restores the thresholds, if no import has set others."""
    before = gc.get_threshold()
    rare = (IMPORTED_OBJECTS, *before[1:])
    gc.set_threshold(*rare)

    def as_before() -> None:
        if gc.get_threshold() == rare:
            gc.set_threshold(*before)

    return as_before


def preload(steps: Iterable[list[Any]], forbidden: Iterable[str], of_clients: Iterable[str]) -> None:
    """Run the steps of `dispatch.preload` in order. Imports that fail and leave nothing behind are ignored.

    Raises:
        Offence: the interpreter cannot be used any more.
    """
    before = dict(os.environ)
    given = dict(before)  # including what the script sets
    native = set()
    banned = {"imports": list(forbidden), "reads": list(of_clients)}
    for number, step in enumerate(steps):
        kind = step[0]
        if kind == "environ":
            _, how, name, value = step
            if name in _fedpkg_task.THREAD_VARIABLES:  # they stay at 1 here, so that no threads start
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
            if attempt(number, None, module, __import__, (module,), banned):
                for part in step[2]:
                    attempt(number, part, "%s.%s" % (module, part), take, (module, part), banned)
    _fedpkg_main.SET_BY_IMPORTS.update((k, v) for k, v in os.environ.items() if given.get(k) != v and k not in before)
    _fedpkg_main.set_environment(before)
    for name in native:
        os.putenv(name, before[name]) if name in before else os.unsetenv(name)
    if "torch" in sys.modules:
        _fedpkg_task.warm_vector_math(sys.modules["torch"])


def attempt(
    number: int, part: str | None, name: str, action: Any, arguments: tuple[Any, ...], banned: dict[str, list[str]]
) -> bool:
    """Do one import; False if it failed and left nothing behind.

    Raises:
        Offence: it started threads, left modules half imported, or used what is ``banned``.
    """
    known = set(sys.modules)
    started = time.monotonic()
    problem = None
    plain = os.environ._data  # type: ignore[attr-defined]
    reads = os.environ._data = Reads(plain)  # type: ignore[attr-defined]
    try:
        action(*arguments)
    except BaseException as error:  # the task itself will show the error
        problem = "%s: %s" % (type(error).__name__, error)
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        is_itself_missing = missing is not None and (name + ".").startswith(missing + ".")  # its parents are complete
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
    return problem is None


def take(module: str, part: str) -> None:
    """``from module import part``: an attribute, which the module may create lazily, or a submodule."""
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
        pass  # the script itself will show the error


def start_again(control: socket.socket, environ: dict[str, str], offence: Offence) -> None:
    """Replace the interpreter of this process, as threads and modules cannot be removed; it gets a new order."""
    send(control, {"again": offence.told})
    os.set_inheritable(control.fileno(), True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, os.path.abspath(__file__), sys.argv[1]], environ)


def shadowed(own: Iterable[str]) -> str | None:
    """The problem if an imported module hides one of the package's own modules, or None."""
    for name in own:
        if name in sys.modules:
            return "its module '%s' has the same name as one that the warm interpreter has imported" % name
    return None


def step_an_optimiser(torch: types.ModuleType) -> None:
    """Use an optimiser once, without autograd or CUDA, as the first one imports half of PyTorch (torch._dynamo)."""
    try:
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        torch.optim.SGD([parameter], lr=0.0).step()
    except Exception as error:
        print("fedpkg: cannot warm up torch.optim: %r" % error, file=sys.stderr)


def fork_has_cuda(torch: types.ModuleType) -> bool:
    """Whether PyTorch could use CUDA in a fork of this process, which only a fork can find out."""
    pid = os.fork()
    if pid == 0:
        spoilt = True
        try:
            spoilt = torch.cuda._is_in_bad_fork()
        finally:
            os._exit(int(spoilt))
    return os.waitpid(pid, 0)[1] == 0


def disown_finalizers() -> None:
    """Drop exit handlers of the imports, which children must not run (they take 30 ms with PyTorch)."""
    registry = getattr(weakref.finalize, "_registry", {})
    for info in list(registry.values()):
        info.atexit = False


def use_huge_pages() -> None:
    """Move the memory that all children share to huge pages: a fork then copies 1/512 of the page-table entries.

    Fork and exit of an idle child with PyTorch loaded: 17 ms without, 4 ms with (tests/benchmarks/fork_cost.py).
    If the kernel has no huge pages, or none free, nothing changes.
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
    """Reopen the standard streams as pipes, as in tasks; the zygote's own streams are a file.

    A text stream checks only once whether it can seek; if it wrongly assumes so, ``sys.stdout.reconfigure`` fails.
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
        under = raw if through else io.BufferedWriter(raw)  # like Python itself for unbuffered streams
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
    # The controller decides when a run ends. Not SIG_IGN, which executed commands would inherit.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # if a keeper is killed, its task becomes our child
    os.chdir("/")
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)
    environ = dict(os.environ)
    before = _fedpkg_isolation.open_files()
    collect_as_before = collect_rarely()
    try:
        preload(order["steps"], order["forbidden"], order["of_clients"])
    except Offence as offence:
        start_again(control, environ, offence)
        raise  # it does not return
    collect_as_before()
    of_imports = frozenset(_fedpkg_isolation.open_files() - before)
    why_cold = get_ready(order)
    send(control, {"why_cold": why_cold})
    if why_cold is not None:
        os._exit(0)
    keepers = fork_keepers(control, apart=order["apart"], of_imports=of_imports)
    deadline = time.monotonic() + KILL_PATIENCE_S  # keepers see the same end of file and clean up themselves
    while keepers and time.monotonic() < deadline:
        bury(keepers)
        time.sleep(0.002)
    kill_children(spare=())
    os._exit(0)


def get_ready(order: dict[str, Any]) -> str | None:
    """Prepare for forks; why forking is impossible, or None."""
    torch = sys.modules.get("torch")
    if (why_cold := shadowed(order["own"])) is not None:
        return why_cold
    if torch is not None and os.environ.get("CUDA_VISIBLE_DEVICES") and not fork_has_cuda(torch):
        return "one of its imports initialises CUDA, which a forked process then cannot use"
    _fedpkg_main.precompile(order["sources"])
    disown_finalizers()
    gc.collect()
    use_huge_pages()
    gc.freeze()  # so that a collection in a child does not write to, and copy, shared pages
    return None


def fork_keepers(control: socket.socket, *, apart: bool, of_imports: frozenset[int]) -> dict[int, int | None]:
    """Fork a keeper for each socket received, until the controller has ended; the keepers that are alive then.

    Each process id maps to a pidfd, which signals its end (None without pidfds: the keepers are polled).
    """
    keepers: dict[int, int | None] = {}
    while True:
        ends = list(keepers.values())
        watched: list[socket.socket | int] = [control, *filter(None, ends)]
        awake, _, _ = select.select(watched, [], [], 1.0 if None in ends else None)
        bury(keepers)
        if control not in awake:
            continue
        fds = receive_fds(control)
        if not fds:
            return keepers
        try:
            pid = os.fork()
        except OSError as error:  # the controller notices the closed connection
            print("fedpkg: cannot fork a keeper: %s" % error, file=sys.stderr)
            _fedpkg_isolation.close(fds)
            continue
        if pid == 0:
            control.close()
            keeper = Keeper(socket.socket(fileno=fds[0]), apart=apart, of_imports=of_imports, given=fds[1:])
            try:
                keeper.run()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        _fedpkg_isolation.close(fds)
        keepers[pid] = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None


def receive_fds(control: socket.socket) -> list[int]:
    """The socket of a new keeper, and a file for its task, if there is one; nothing if the controller has ended."""
    try:
        message, fds, _flags, _address = socket.recv_fds(control, 1, 2)
    except ConnectionError:
        return []
    return fds if message else []


def bury(keepers: dict[int, int | None]) -> None:
    """Reap dead keepers, and kill processes that they have left behind."""
    orphans = False
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            orphans = True
    except ChildProcessError:
        pass
    forget_dead(keepers)
    if orphans:
        kill_children(spare=keepers)
        forget_dead(keepers)  # it reaps whatever ends meanwhile


def forget_dead(keepers: dict[int, int | None]) -> None:
    """Remove keepers that have ended and were reaped: `select` would return at once for ever."""
    for pid, pidfd in list(keepers.items()):
        if pidfd is not None and select.select([pidfd], [], [], 0)[0]:
            os.close(pidfd)
            del keepers[pid]
        elif pidfd is None:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                del keepers[pid]


if __name__ == "__main__":
    main()
