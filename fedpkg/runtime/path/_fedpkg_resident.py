"""A resident interpreter: runs task after task, and puts itself back between them.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. What scripts often change is put
back. Of the rest a fingerprint is taken: if it differs, or if something of the task goes on (a thread, a function of
the package that a library still refers to), the interpreter says so and is replaced. ``docs/resident.md`` lists all
three, and what is neither put back nor detected.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import contextvars
import copyreg
import faulthandler
import fcntl
import gc
import linecache
import locale
import logging
import os
import resource
import signal
import socket
import stat
import sys
import threading
import time
import types
import warnings
import weakref
from _signal import getsignal  # type: ignore[import-not-found]  # signal.getsignal looks each up in an enumeration
from functools import partial

import _fedpkg_main  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SETTINGS_MODULES = (  # whose own names are settings, or are replaced by scripts
    *("sys", "os", "logging", "warnings", "threading", "socket", "random", "tempfile", "asyncio.events"),
    *("torch.multiprocessing", "torch.__future__"),
)
_STREAMS = ("stdin", "stdout", "stderr")
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_ARITHMETIC = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_FIRST_PRIVATE_FD = 200  # out of the way of what a task opens
_ONE, _SMALLEST = 1.0, 5e-324  # variables, lest the compiler computes with them
_TRACE = "__fedpkg_trace__"

# Of PyTorch: `torch._C._get_…` and `_set_…`; and functions whose answers are compared.
_TORCH_SETTINGS = (
    *("cudnn_enabled", "cudnn_benchmark", "cudnn_deterministic", "cudnn_allow_tf32", "cublas_allow_tf32"),
    *("mkldnn_enabled", "mkldnn_deterministic", "nnpack_enabled", "warnAlways", "float32_matmul_precision"),
    "deterministic_fill_uninitialized_memory",
)
_TORCH_FINGERPRINT = (
    *("_C._get_flash_sdp_enabled", "_C._get_math_sdp_enabled", "_C._get_mem_efficient_sdp_enabled"),
    *("_C._get_cudnn_sdp_enabled", "_C._is_any_autocast_enabled", "_C._is_multithreading_enabled"),
    *("_C._len_torch_function_stack", "_C._len_torch_dispatch_stack", "is_inference_mode_enabled"),
    *("is_anomaly_enabled", "is_anomaly_check_nan_enabled", "distributed.is_initialized"),
)
_PRECISIONS = [(device, of) for device in ("generic", "cuda", "mkldnn") for of in ("all", "matmul", "conv", "rnn")]


def serve(
    order: dict[str, Any] | None,
    receive: Callable[[], dict[str, Any] | None],
    send: Callable[[dict[str, Any]], None],
) -> int:
    """Run orders until there are none, or one fails or leaves something behind; the exit status of the last one."""
    baseline = Baseline()
    while order is not None:
        status, clean, times = _run(order)
        clean = baseline.restore(order["cwd"]) and clean
        times["finished"] = time.monotonic()
        answer = {"status": status, "clean": clean, "times": times, "imported": _fedpkg_main.imported()}
        send({"answer_to": order["answer_to"], **answer})
        if status or not clean:
            return int(status)
        order = receive()
    return 0


def _run(order: dict[str, Any]) -> tuple[int, bool, dict[str, float]]:
    context = contextvars.copy_context()  # NumPy's and decimal's settings are variables of it
    status, times = context.run(_fedpkg_main.run_task, order)
    status, clean = context.run(_finish, status)
    return status, clean, times


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


class _Trace:
    """Put among the names of a module that is forgotten: it lives as long as anything refers to these names."""


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
        self.spent = False
        if "torch" in sys.modules:
            self._watch_what_goes_once(sys.modules["torch"])
        self.traces: list[weakref.ref[_Trace]] = []  # of the modules forgotten after this task
        self.has_new_modules = False  # libraries' that tasks have imported since objects were frozen
        self.variables: set[bytes] = set()  # of the environment, that may have been set or unset
        self._watch_environment()
        self.pickling = dict(copyreg.dispatch_table)
        self.names = vars(builtins)
        self.builtins = dict(self.names)
        loaded = [sys.modules[name] for name in _SETTINGS_MODULES if name in sys.modules]
        self.settings_modules = [(vars(module), dict(vars(module)), _ids(vars(module))) for module in loaded]
        self.sys_lists = [(value, list(value)) for value in vars(sys).values() if isinstance(value, list)]
        self.stream_forms = {name: _form(getattr(sys, name)) for name in _STREAMS}
        self.signals = {number: getsignal(number) for number in _SIGNALS}
        self.limits_were = {number: resource.getrlimit(number) for number in _LIMITS}
        self.umask = os.umask(0o022)
        os.umask(self.umask)
        self.loggers = {name: _logger_state(logger) for name, logger in _loggers().items()}
        self.settings = [(setting, setting.told()) for setting in _settings()]
        self.fingerprint = _Fingerprint()
        self.threads = set(threading.enumerate())
        gc.collect()
        gc.freeze()
        self.files = _open_files()

    def restore(self, folder: str) -> bool:
        """Put everything back; False if something of the task is still going on, or cannot be put back."""
        root = os.path.join(os.path.realpath(folder), "")
        self._builtins()
        self._names()
        self._signals()
        self._modules(root)
        self._registrations()
        self._environment()
        self._interpreter()
        self._settings()
        self._loggers()
        os.chdir("/")
        is_gone = self._is_gone(root)
        has_streams = self._files()
        same = self.fingerprint.is_same() and all(setting.told() == was for setting, was in self.settings)
        return is_gone and has_streams and same and not self.spent and set(threading.enumerate()) <= self.threads

    def _watch_what_goes_once(self, torch: Any) -> None:
        set_for_good = torch.set_num_interop_threads

        def set_num_interop_threads(number: int) -> None:
            self.spent = True
            set_for_good(number)

        torch.set_num_interop_threads = set_num_interop_threads

    def _watch_environment(self) -> None:
        putenv, unsetenv = os.putenv, os.unsetenv

        def putenv_and_note(name: Any, value: Any) -> None:
            putenv(name, value)
            self.variables.add(os.fsencode(name))

        def unsetenv_and_note(name: Any) -> None:
            unsetenv(name)
            self.variables.add(os.fsencode(name))

        self.putenv, self.unsetenv = putenv, unsetenv
        os.putenv, os.unsetenv = putenv_and_note, unsetenv_and_note

    def _registrations(self) -> None:
        """Put back what was registered before; a function of the package that is new here is found by `_is_gone`."""
        copyreg.dispatch_table.update(self.pickling)
        typing: Any = sys.modules.get("typing")
        for forget in getattr(typing, "_cleanups", ()):  # Optional[Net] is remembered, and Net with it
            forget()
        mimetypes: Any = sys.modules.get("mimetypes")
        if getattr(mimetypes, "_db", None) is not None:  # who asks next reads the machine's files again
            mimetypes._default_mime_types()
            mimetypes._db, mimetypes.inited = None, False

    def _environment(self) -> None:
        """What ``os.putenv`` did without telling ``os.environ``, which is set up for the next task."""
        for name in self.variables:
            value = os.environb.get(name)
            self.unsetenv(name) if value is None else self.putenv(name, value)
        self.variables.clear()

    def _builtins(self) -> None:
        """The first to be put back: without calling any of them."""
        for name in self.names.keys() - self.builtins.keys():
            del self.names[name]
        self.names.update(self.builtins)

    def _names(self) -> None:
        for names, were, ids in self.settings_modules:
            if _ids(names) != ids:
                for name in names.keys() - were.keys():
                    if not isinstance(names[name], type(sys)):  # a module of the package that was imported only now
                        del names[name]
                names.update(were)
        for value, was in self.sys_lists:
            value[:] = was

    def _signals(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.set_wakeup_fd(-1)
        for number, handler in self.signals.items():
            if getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _modules(self, root: str) -> None:
        """Forget ``__main__`` and the package's own modules; what lies outside the task's copy was only imported."""
        main = sys.modules.get("__main__")
        if main is not self.modules["__main__"]:
            self._forget(main)
            sys.modules["__main__"] = self.modules["__main__"]
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
            place = _place(name, module)
            # Others hold these: the second kind is made by Cython's extension modules, without a file.
            shared = getattr(getattr(module, "__spec__", None), "origin", None) == "built-in"
            shared = shared or name == "cython_runtime" or name.startswith("_cython_")
            if not shared and (place is None or os.path.realpath(place).startswith(root)):
                del sys.modules[name]
                self._forget(module)
            elif known is None:
                self.modules[name] = module
                self.has_new_modules = True
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        self.modules = dict(sys.modules)  # in its order
        self.module_ids = _ids(self.modules)

    def _forget(self, module: Any) -> None:
        names = getattr(module, "__dict__", None)
        if isinstance(names, dict):
            names[_TRACE] = trace = _Trace()
            self.traces.append(weakref.ref(trace))

    def _is_gone(self, root: str) -> bool:
        """Whether nothing refers to the package's modules any more, nor to a function that was read from its files.

        A library that still does (``np.load`` was wrapped, a hook or class was registered) would call them in the next
        task. Objects of the libraries themselves are frozen, so collecting and listing take microseconds.
        """
        gc.collect()
        traces, self.traces = self.traces, []
        if any(trace() is not None for trace in traces):
            return False
        for living in gc.get_objects():
            if type(living) is types.FunctionType and living.__code__.co_filename.startswith(root):
                return False
        if self.has_new_modules:
            gc.freeze()
            self.has_new_modules = False
        return True

    def _interpreter(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        os.umask(self.umask)
        for number, were in self.limits_were.items():
            if resource.getrlimit(number) != were:
                with contextlib.suppress(OSError, ValueError):  # the task lowered the hard limit, too: `_fingerprint`
                    resource.setrlimit(number, were)
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            multiprocessing._exiting = False  # type: ignore[attr-defined]

    def _settings(self) -> None:
        for setting, was in self.settings:
            if setting.told() != was:
                setting.put_back(was)

    def _loggers(self) -> None:
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

    def _files(self) -> bool:
        """Whether the standard streams are good for the next task: one that Python has closed is not opened again."""
        for fd, kept in enumerate(self.streams):
            os.dup2(kept, fd)
        for fd in _open_files() - self.files:
            if _belongs_to_a_task(fd):
                os.close(fd)
        for name, form in self.stream_forms.items():
            stream = getattr(sys, name)
            if form is not None and (now := _form(stream)) != form:
                if now is None:
                    return False
                stream.reconfigure(**form)
        return True


class Setting:
    """What many scripts change, besides names of modules: how to tell it, and how to put it back."""

    def __init__(self, tell: Callable[[], Any], put: Callable[[Any], object]) -> None:
        self.tell = tell
        self.put = put

    def told(self) -> Any:
        return _told(self.tell)

    def put_back(self, was: Any) -> None:
        with contextlib.suppress(Exception):  # it is looked at once more
            self.put(was)


def _told(tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except Exception as error:  # so PyTorch answers where its older and newer ways to say something were mixed
        return type(error)


def _settings() -> list[Setting]:
    """Of the interpreter, of NumPy and of PyTorch, if they are there."""
    settings = [
        Setting(lambda: list(warnings.filters), _set_warning_filters),
        Setting(lambda: logging.root.manager.disable, logging.disable),
        Setting(sys.getrecursionlimit, sys.setrecursionlimit),
        Setting(lambda: locale.setlocale(locale.LC_ALL), lambda was: locale.setlocale(locale.LC_ALL, was)),
        Setting(socket.getdefaulttimeout, socket.setdefaulttimeout),
        Setting(gc.isenabled, lambda was: gc.enable() if was else gc.disable()),
        Setting(gc.get_threshold, lambda was: gc.set_threshold(*was)),
        Setting(faulthandler.is_enabled, lambda was: faulthandler.enable() if was else faulthandler.disable()),
        Setting(_start_method, _set_start_method),
    ]
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        settings.append(Setting(numpy.geterr, lambda was: numpy.seterr(**was)))
        settings.append(Setting(partial(_print_options, numpy), lambda was: numpy.set_printoptions(**was)))
    if "torch" in sys.modules:
        settings += _torch_settings(sys.modules["torch"])
    return settings


def _set_warning_filters(was: list[Any]) -> None:
    warnings.filters[:] = was  # type: ignore[index]
    getattr(warnings, "_filters_mutated", lambda: None)()


def _start_method() -> Any:
    """What multiprocessing was told, which it can be told once."""
    context = sys.modules.get("multiprocessing.context")
    return None if context is None else context._default_context._actual_context


def _set_start_method(was: Any) -> None:
    sys.modules["multiprocessing.context"]._default_context._actual_context = was


def _print_options(numpy: Any) -> dict[str, Any]:
    return {name: value for name, value in numpy.get_printoptions().items() if name != "override_repr"}


def _torch_settings(torch: Any) -> list[Setting]:
    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def default_device() -> Any:
        return getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)

    def cuda_device() -> int:
        return int(torch.cuda.current_device()) if torch.cuda.is_initialized() else 0

    settings = [
        Setting(torch.get_default_dtype, torch.set_default_dtype),
        Setting(default_device, lambda was: torch.set_default_device(was and was.device)),
        Setting(cuda_device, torch.cuda.set_device),
        Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        Setting(deterministic, lambda was: torch.use_deterministic_algorithms(was[0], warn_only=was[1])),
        Setting(lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), vars(torch._tensor_str.PRINT_OPTS).update),
    ]
    for name in _TORCH_SETTINGS:
        tell, put = getattr(torch._C, "_get_" + name, None), getattr(torch._C, "_set_" + name, None)
        if tell is not None and put is not None:
            settings.append(Setting(tell, put))
    if hasattr(torch._C, "_get_fp32_precision_getter"):  # since PyTorch 2.9
        tell, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
        settings += [Setting(partial(tell, *of), partial(put, *of)) for of in _PRECISIONS]
    return settings


class _Fingerprint:
    """What few scripts change, and what cannot be put back: it is only compared."""

    def __init__(self) -> None:
        self.tells = _of_the_process()
        if "decimal" in sys.modules:
            self.tells.append(partial(_arithmetic, sys.modules["decimal"].DefaultContext))
        if "numpy" in sys.modules:
            numpy = sys.modules["numpy"]
            self.tells += [numpy.geterrcall, numpy.getbufsize]
            if hasattr(numpy.random, "get_bit_generator"):  # since NumPy 1.24
                self.tells.append(numpy.random.get_bit_generator)
        if "torch" in sys.modules:
            self.tells += _of_torch(sys.modules["torch"])
        self.were = [_told(tell) for tell in self.tells]

    def is_same(self) -> bool:
        return all(_told(tell) == was for tell, was in zip(self.tells, self.were))


def _of_the_process() -> list[Callable[[], Any]]:
    tells: list[Callable[[], Any]] = [
        partial(os.nice, 0),
        lambda: (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()),
        lambda: [resource.getrlimit(limit)[1] for limit in _LIMITS],
        # Rounding, and whether the smallest numbers become 0. As text: where they do, they also equal 0.
        lambda: "%r %r %r" % (_SMALLEST * _ONE, _ONE / 3, 2 * _ONE / 3),
        lambda: dict(logging._levelToName),
        gc.get_debug,
        lambda: list(gc.callbacks),
        sys.getswitchinterval,
        sys.get_coroutine_origin_tracking_depth,
        sys.get_asyncgen_hooks,
        threading.stack_size,
    ]
    if hasattr(os, "sched_getaffinity"):
        tells.append(partial(os.sched_getaffinity, 0))
    if hasattr(sys, "get_int_max_str_digits"):
        tells.append(sys.get_int_max_str_digits)
    return tells


def _arithmetic(context: Any) -> list[Any]:
    """What new threads compute decimals with."""
    numbers = [getattr(context, name) for name in _ARITHMETIC]
    return [*numbers, dict(context.flags), dict(context.traps)]


def _of_torch(torch: Any) -> list[Callable[[], Any]]:
    tells = [_at(torch, path) for path in _TORCH_FINGERPRINT]
    tells.append(partial(torch._C._autograd._top_saved_tensors_default_hooks, True))
    for name in ("torch.nn.modules.module", "torch.optim.optimizer"):
        hooks = [value for key, value in vars(sys.modules[name]).items() if key.startswith("_global_") and value == {}]
        tells.append(lambda hooks=hooks: [list(kind) for kind in hooks])
    return [tell for tell in tells if tell is not None]


def _at(place: Any, path: str) -> Any:
    for name in path.split("."):
        place = getattr(place, name, None)
    return place


def _form(stream: Any) -> dict[str, Any] | None:
    """How a text stream is set up; None if it is closed, or is none of Python's."""
    try:
        if stream.closed:
            return None
        names = ("encoding", "errors", "line_buffering", "write_through")
        return {name: getattr(stream, name) for name in names}
    except (AttributeError, ValueError):  # it is None, or was detached
        return None


def _ids(modules: dict[Any, Any]) -> list[int]:
    return list(map(id, modules.values()))


def _place(name: str, module: Any) -> Any:
    """Where a module was read from; if code made it (``torch.classes``, ``six.moves``), its top package; else None."""
    for each in (module, sys.modules.get(name.partition(".")[0])):
        place = getattr(each, "__file__", None) or next(iter(getattr(each, "__path__", None) or ()), None)
        if place is not None and os.path.isabs(place):
            return place
    return None


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
    return (stat.S_ISREG(mode) and not _is_of_a_library(fd)) or stat.S_ISDIR(mode)


def _is_of_a_library(fd: int) -> bool:
    """Whether it is an installed file that is only read: matplotlib, for one, keeps its fonts open."""
    try:
        path = os.readlink("/proc/self/fd/%d" % fd)
        reads = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:
        return False
    places = {os.path.realpath(place) + os.sep for place in (sys.prefix, sys.base_prefix)}
    return reads and path.startswith(tuple(places))
