"""A resident interpreter: runs task after task, and puts itself back between them.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. What a task changed is put back
where that can be done; where it cannot (a thread that goes on), the interpreter says so and is replaced. For packages
that are trusted: a change inside an installed module (``torch.nn.Linear.forward = …``) stays for the next task.
"""

from __future__ import annotations

import atexit
import builtins
import fcntl
import gc
import linecache
import locale
import logging
import os
import resource
import signal
import stat
import sys
import threading
import time
import warnings
import weakref
from _signal import getsignal  # type: ignore[import-not-found]  # signal.getsignal looks each up in an enumeration

import _fedpkg_main  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SYS = (
    *("argv", "orig_argv", "path", "path_hooks", "meta_path", "stdin", "stdout", "stderr", "excepthook", "displayhook"),
    *("__stdin__", "__stdout__", "__stderr__", "__excepthook__", "unraisablehook", "dont_write_bytecode"),
)
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_FIRST_PRIVATE_FD = 200  # out of the way of what a task opens


def serve(
    order: dict[str, Any] | None,
    receive: Callable[[], dict[str, Any] | None],
    send: Callable[[dict[str, Any]], None],
) -> int:
    """Run orders until there are none, or one fails or leaves something behind; the exit status of the last one."""
    baseline = Baseline()
    while order is not None:
        before = resource.getrusage(resource.RUSAGE_SELF)
        status, times = _fedpkg_main.run_task(order)
        status, clean = _finish(status)
        clean = baseline.restore(order["cwd"]) and clean
        times["finished"] = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rss = after.ru_maxrss * 1024
        send({"status": status, "clean": clean, "times": times, "cpu_s": cpu_s, "max_rss_bytes": rss})
        if status or not clean:
            return int(status)
        order = receive()
    return 0


def _finish(status: int) -> tuple[int, bool]:
    """What an interpreter does at its end, for the task alone; and whether it is still good for another."""
    try:
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
            # Only a real shutdown ends the threads of pools; it cannot be done twice.
            return _fedpkg_main.finish(status), False
        atexit._run_exitfuncs()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    return _fedpkg_main.flush(status), True


class Baseline:
    """The interpreter as it was before its first task."""

    def __init__(self) -> None:
        atexit._clear()  # what the imports registered is for the end of this process, not of a task
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
        self.streams = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD) for fd in (0, 1, 2)]
        self.modules = dict(sys.modules)
        self.module_ids = _ids(self.modules)
        self.num_importers = len(sys.path_importer_cache)
        self.lines = set(linecache.cache)
        self.names = vars(builtins)
        self.builtins = dict(self.names)
        self.sys = {name: _copied(getattr(sys, name)) for name in _SYS if hasattr(sys, name)}
        self.signals = {number: getsignal(number) for number in _SIGNALS}
        self.limits = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
        self.soft_limits = {name: resource.getrlimit(number)[0] for name, number in self.limits.items()}
        self.locale = locale.setlocale(locale.LC_ALL)
        self.umask = os.umask(0o022)
        os.umask(self.umask)
        self.recursion_limit = sys.getrecursionlimit()
        self.switch_interval = sys.getswitchinterval()
        self.filters = list(warnings.filters)
        self.loggers = {name: _logger_state(logger) for name, logger in _loggers().items()}
        self.log_disabled = logging.root.manager.disable
        self.libraries = _library_state()
        self.threads = set(threading.enumerate())
        gc.collect()
        gc.freeze()
        self.files = _open_files()

    def restore(self, folder: str) -> bool:
        """Put everything back; False if something of the task is still going on."""
        self._builtins()
        self._signals()
        self._modules(folder)
        self._interpreter()
        _restore_library_state(self.libraries)
        self._loggers()
        os.chdir("/")
        self._files()
        return set(threading.enumerate()) <= self.threads

    def _builtins(self) -> None:
        """The first to be put back: without calling any of them."""
        for name in self.names.keys() - self.builtins.keys():
            del self.names[name]
        self.names.update(self.builtins)

    def _signals(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.set_wakeup_fd(-1)
        for number, handler in self.signals.items():
            if getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _modules(self, folder: str) -> None:
        """Forget ``__main__`` and the package's own modules; what lies outside the task's copy was only imported."""
        main = sys.modules.get("__main__")
        if main is not self.modules["__main__"]:
            _empty(main)
            sys.modules["__main__"] = self.modules["__main__"]
        root = os.path.join(os.path.realpath(folder), "")
        if len(sys.path_importer_cache) != self.num_importers:
            for path in [path for path in sys.path_importer_cache if path.startswith(root[:-1])]:
                del sys.path_importer_cache[path]
            self.num_importers = len(sys.path_importer_cache)
        for path in linecache.cache.keys() - self.lines:
            del linecache.cache[path]
        if _ids(sys.modules) == self.module_ids:
            return  # as after most tasks: 2000 modules one by one take 0.4 ms
        for name, module in list(sys.modules.items()):
            if (known := self.modules.get(name)) is module:
                continue
            place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
            if place is None or os.path.realpath(place).startswith(root):
                del sys.modules[name]
                _empty(module)
            elif known is None:
                self.modules[name] = module
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        self.modules = dict(sys.modules)  # in its order
        self.module_ids = _ids(self.modules)

    def _interpreter(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        for name, value in self.sys.items():
            if isinstance(value, list):
                current = getattr(sys, name, None)
                if isinstance(current, list):
                    current[:] = value
                    continue
            setattr(sys, name, value)
        if sys.getrecursionlimit() != self.recursion_limit:
            sys.setrecursionlimit(self.recursion_limit)
        sys.setswitchinterval(self.switch_interval)
        if warnings.filters != self.filters:
            warnings.filters[:] = self.filters  # type: ignore[index]
            getattr(warnings, "_filters_mutated", lambda: None)()
        if locale.setlocale(locale.LC_ALL) != self.locale:
            locale.setlocale(locale.LC_ALL, self.locale)
        os.umask(self.umask)
        for name, number in self.limits.items():
            soft, hard = resource.getrlimit(number)
            if soft != self.soft_limits[name]:
                try:
                    resource.setrlimit(number, (self.soft_limits[name], hard))
                except (OSError, ValueError):
                    pass  # the task lowered the hard limit, too: it stays
        if not gc.isenabled():
            gc.enable()
        threading.settrace(None)
        threading.setprofile(None)
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            multiprocessing._exiting = False  # type: ignore[attr-defined]

    def _loggers(self) -> None:
        if logging.root.manager.disable != self.log_disabled:
            logging.disable(self.log_disabled)
        for name, logger in _loggers().items():
            was = self.loggers.get(name)
            if was is None:
                _close_handlers(logger, keep=())
                logging.root.manager.loggerDict.pop(name, None)
            elif (logger.level, logger.propagate, logger.disabled, logger.handlers, logger.filters) != was:
                _close_handlers(logger, keep=was[3])
                logger.setLevel(was[0])
                logger.propagate, logger.disabled = was[1], was[2]
                logger.handlers[:] = was[3]
                logger.filters[:] = was[4]

    def _files(self) -> None:
        for fd, kept in enumerate(self.streams):
            os.dup2(kept, fd)
        left = _open_files() - self.files
        if left:
            gc.collect()  # objects in a cycle close their own
            for fd in _open_files() - self.files:
                if _belongs_to_a_task(fd):
                    os.close(fd)


def _ids(modules: dict[str, Any]) -> list[int]:
    return list(map(id, modules.values()))


def _empty(module: Any) -> None:
    """Functions and their globals hold each other; what they refer to, such as open files, would stay."""
    if isinstance(getattr(module, "__dict__", None), dict):
        module.__dict__.clear()


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def _loggers() -> dict[str, logging.Logger]:
    found: dict[str, logging.Logger] = {"": logging.root}
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            found[name] = logger
    return found


def _logger_state(logger: logging.Logger) -> tuple[Any, ...]:
    return (logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters))


def _close_handlers(logger: logging.Logger, keep: Any) -> None:
    for handler in list(logger.handlers):
        if handler not in keep:
            logger.removeHandler(handler)
            handler.close()


def _library_state() -> dict[str, Any]:
    """Settings of NumPy and PyTorch that scripts like to change."""
    state: dict[str, Any] = {}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        state["numpy"] = (numpy.geterr(), numpy.get_printoptions())
    if torch is not None:
        state["torch"] = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.is_anomaly_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        )
    return state


def _restore_library_state(state: dict[str, Any]) -> None:
    now = _library_state()
    if "numpy" in state and now["numpy"] != state["numpy"]:
        numpy = sys.modules["numpy"]
        numpy.seterr(**state["numpy"][0])
        options = dict(state["numpy"][1])
        options.pop("override_repr", None)
        numpy.set_printoptions(**options)
    if "torch" in state and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.set_device(0)
    if "torch" in state and now["torch"] != state["torch"]:
        torch = sys.modules["torch"]
        dtype, grad, deterministic, warn_only, anomaly, benchmark, cudnn_deterministic, precision = state["torch"]
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cudnn.deterministic = cudnn_deterministic
        torch.set_float32_matmul_precision(precision)


def _open_files() -> set[int]:
    try:
        listed = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return set()
    return {fd for fd in listed if _is_open(fd)}  # the one that the listing itself was read from is closed again


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _belongs_to_a_task(fd: int) -> bool:
    """Files and folders do. Devices and events may be a GPU driver's; so may pipes and sockets, once CUDA is in use."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        torch = sys.modules.get("torch")
        return torch is None or not torch.cuda.is_initialized()
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
