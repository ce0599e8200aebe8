"""A resident interpreter: runs task after task and restores its state between them.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. What scripts often change is
restored. Other state is compared: if it differs, or if something of the task remains (a thread, a function of the
package that a library still refers to), the interpreter reports that and is replaced. ``docs/reference/resident.md``
lists all of these, and what is neither restored nor detected.
"""

from __future__ import annotations

import atexit
import builtins
import contextvars
import ctypes
import faulthandler
import fcntl
import gc
import locale
import logging
import mimetypes  # noqa: F401  (some of `_PLACES` have to be here before tasks change them)
import multiprocessing.context  # noqa: F401
import os
import resource
import signal
import stat
import sys
import threading
import time
import types
import warnings
import weakref
from _signal import getsignal  # type: ignore[import-not-found]  # signal.getsignal looks each up in an enumeration
from collections import OrderedDict
from functools import partial, reduce
from itertools import takewhile

import _fedpkg_isolation  # type: ignore[import-not-found]
import _fedpkg_main  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Modules and objects whose attributes are restored, with the contents of lists and dictionaries among them.
_PLACES = """
sys os gc logging warnings threading socket random tempfile copyreg linecache mimetypes asyncio.events logging.root
logging.root.manager multiprocessing.context._default_context torch.multiprocessing torch.__future__
torch.nn.modules.module torch.optim.optimizer torch._tensor_str.PRINT_OPTS
"""
# Functions that return a setting; the function that restores it has "set" instead of "get" in its name.
_PUT_BACK = """
sys.getrecursionlimit sys.gettrace sys.getprofile socket.getdefaulttimeout torch.get_default_dtype
torch._C._get_cudnn_enabled torch._C._get_cudnn_benchmark torch._C._get_cudnn_deterministic
torch._C._get_cudnn_allow_tf32 torch._C._get_cublas_allow_tf32 torch._C._get_float32_matmul_precision
torch._C._get_mkldnn_enabled torch._C._get_mkldnn_deterministic torch._C._get_nnpack_enabled
torch._C._get_warnAlways torch._C._get_deterministic_fill_uninitialized_memory
"""
# Functions that return a setting that few scripts change, or that cannot be restored.
_COMPARED = """
threading.enumerate threading.stack_size os.getresuid os.getresgid os.getgroups gc.get_debug sys.getswitchinterval
sys.get_coroutine_origin_tracking_depth sys.get_asyncgen_hooks sys.get_int_max_str_digits
numpy.geterrcall numpy.getbufsize numpy.random.get_bit_generator
torch._C._get_flash_sdp_enabled torch._C._get_math_sdp_enabled torch._C._get_mem_efficient_sdp_enabled
torch._C._get_cudnn_sdp_enabled torch._C._is_any_autocast_enabled torch._C._is_multithreading_enabled
torch._C._len_torch_function_stack torch._C._len_torch_dispatch_stack torch.is_inference_mode_enabled
torch.is_anomaly_enabled torch.is_anomaly_check_nan_enabled torch.distributed.is_initialized
"""
_FORM = ("encoding", "errors", "line_buffering", "write_through")  # properties of a text stream
_PRECISIONS = [("generic", "all"), *((on, of) for on in ("cuda", "mkldnn") for of in ("all", "matmul", "conv", "rnn"))]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_INSTALLED = tuple(os.path.join(os.path.realpath(place), "") for place in (sys.prefix, sys.base_prefix))
_FIRST_PRIVATE_FD = 200  # higher than the files that a task opens
_ONE, _SMALLEST = 1.0, 5e-324  # variables, so that the compiler does not fold them


def serve(
    order: dict[str, Any] | None,
    receive: Callable[[], dict[str, Any] | None],
    send: Callable[[dict[str, Any]], None],
) -> int:
    """Run orders until there are no more, or one fails or leaves something behind; the last exit status."""
    baseline = Baseline()
    while order is not None:
        context = contextvars.copy_context()  # it contains settings of NumPy and decimal
        status, times = context.run(_fedpkg_main.run_task, order)
        status, clean = context.run(_finish, status)
        clean = baseline.restore(order["cwd"]) and clean
        times["finished"] = time.monotonic()
        answer = {"status": status, "clean": clean, "times": times, "imported": _fedpkg_main.imported()}
        send({"answer_to": order["answer_to"], **answer})
        if status or not clean:
            return int(status)
        order = receive()
    return 0


def _finish(status: int) -> tuple[int, bool]:
    """Do what an interpreter does at its end, for the task only; the status, and whether it can run another task."""
    try:
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
            # Only a real shutdown ends the threads of pools, and it can be done only once.
            return _fedpkg_main.finish(status), False
        atexit._run_exitfuncs()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    return _fedpkg_main.flush(status), True


class Baseline:
    """The state of the interpreter before its first task."""

    def __init__(self) -> None:
        atexit._clear()  # handlers that the imports registered are for the end of this process, not of a task
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
        self.handlers = list(logging._handlerList)  # type: ignore[attr-defined]
        atexit.register(self._at_exit)
        self.streams = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD) for fd in (0, 1, 2)]
        self.spent: list[Any] = []  # calls of functions that can be called once
        if "torch" in sys.modules:
            torch: Any = sys.modules["torch"]
            torch.set_num_interop_threads = _noting(torch.set_num_interop_threads, self.spent)
        self.modules = dict(sys.modules)
        self.traces: weakref.WeakSet[Any] = weakref.WeakSet()  # of modules that `_modules` forgets
        self.builtins = dict(vars(builtins))
        self.contents = _copied()
        self.settings = [(tell, put, _told(tell)) for tell, put in _settings()]
        gc.collect()
        gc.freeze()
        self.files = _fedpkg_isolation.open_files()

    def restore(self, folder: str) -> bool:
        """Restore everything; False if something of the task remains, or cannot be restored."""
        builtins.__dict__.update(self.builtins)  # first, as the rest calls them
        root = os.path.join(os.path.realpath(folder), "")
        try:
            new = self._modules(root)
            self._contents(new)
            for put, was in self._changed():
                if put is not None:
                    _told(partial(put, was))
            self._rest()
            is_gone = self._is_gone(root)
            self._files()
            if new:
                gc.freeze()
            return is_gone and not self._changed() and not self.spent
        except Exception:  # a task can break anything that this code calls
            return False

    def _at_exit(self) -> None:
        """Do what the standard library does at the exit of an interpreter, for objects of the task."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            util._exit_function()  # waits for processes
            util._exiting = False
        logging.shutdown([one for one in logging._handlerList if one not in self.handlers])  # type: ignore[attr-defined]

    def _modules(self, root: str) -> set[str]:
        """Forget ``__main__`` and the package's own modules; the names of other modules that are imported since."""
        new = set()
        known = self.modules.get
        for name in [name for name, module in sys.modules.items() if known(name) is not module]:
            module = sys.modules[name]
            if name == "__main__" or _is_own(name, module, root):
                del sys.modules[name]
                if isinstance(names := getattr(module, "__dict__", None), dict):
                    # It exists as long as anything refers to this namespace.
                    names["__fedpkg_trace__"] = trace = types.ModuleType("trace")
                    self.traces.add(trace)
            elif name not in self.modules:
                self.modules[name] = module
                new.add(name)
        sys.modules.update(self.modules)
        return new

    def _contents(self, new: set[str]) -> None:
        """Restore lists and dictionaries, except for what a library set at import, as it will not set that again."""
        for one, was in self.contents:
            if one == was:
                continue
            if isinstance(one, list):
                was += [value for value in one if _is_from(value, new) and value not in was]
                one[:] = was
                continue
            was.update({name: value for name, value in one.items() if name in new or _is_from(value, new)})
            for name in one.keys() - was.keys():
                if not isinstance(one[name], types.ModuleType):  # modules stay as attributes
                    del one[name]
            one.update(was)
        if new:
            self.contents = _copied()

    def _changed(self) -> list[tuple[Any, Any]]:
        return [(put, was) for tell, put, was in self.settings if _told(tell) != was]

    def _rest(self) -> None:
        signal.set_wakeup_fd(-1)
        os.chdir("/")
        atexit.register(self._at_exit)
        getattr(warnings, "_filters_mutated", lambda: None)()
        for forget in getattr(sys.modules.get("typing"), "_cleanups", ()):  # it caches Optional[Net], and so Net
            forget()

    def _is_gone(self, root: str) -> bool:
        """Whether nothing refers to the package's modules or functions any more.

        A library that does (``np.load`` was wrapped, a hook or class was registered) would call them in the next task.
        Objects of the libraries themselves are frozen, so collecting and listing take microseconds.
        """
        gc.collect()
        functions = (living for living in gc.get_objects() if type(living) is types.FunctionType)
        return not self.traces and not any(one.__code__.co_filename.startswith(root) for one in functions)

    def _files(self) -> None:
        for fd, kept in enumerate(self.streams):
            os.dup2(kept, fd)
        for fd in _fedpkg_isolation.open_files() - self.files:
            if _is_of_a_task(fd):
                os.close(fd)


def _noting(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        calls.append(given)
        return function(*given)

    return noted


def _copied() -> list[tuple[Any, Any]]:
    """The namespaces of `_PLACES` and loggers, and the lists and dictionaries in them, each with a copy."""
    manager: Any = logging.root.manager
    manager._clear_cache()
    places = [*filter(None, map(_at, _PLACES.split())), *manager.loggerDict.values()]
    found = {id(vars(place)): vars(place) for place in places}
    for place in places:
        if place is not threading:  # which stores the running threads there
            found.update({id(one): one for one in vars(place).values() if type(one) in (list, dict, OrderedDict)})
    del found[id(sys.modules)]
    return [(one, one.copy()) for one in found.values()]


def _settings() -> list[tuple[Any, Any]]:
    """Pairs of functions that return and restore a setting. Without the second, the setting is only compared."""
    pairs = [(_at(tell), _at(tell.replace("get", "set"))) for tell in _PUT_BACK.split()]
    pairs += [(_at(tell), None) for tell in _COMPARED.split()]
    get_precision = _at("torch._C._get_fp32_precision_getter")  # since PyTorch 2.9
    set_precision = _at("torch._C._set_fp32_precision_setter")
    pairs += [(partial(get_precision, *of), partial(set_precision, *of)) for of in _PRECISIONS if get_precision]
    for one in filter(None, (sys.stdin, sys.stdout, sys.stderr)):
        pairs.append((partial(_form, one), lambda was, one=one: one.reconfigure(**dict(zip(_FORM, was)))))
    environ = _told(lambda: ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"))
    numpy, torch = _at("numpy"), _at("torch")  # if a library is missing, its settings are always the same error
    return [pair for pair in pairs if pair[0]] + [
        (lambda: torch.is_grad_enabled(), lambda was: torch.set_grad_enabled(was)),
        (lambda: vars(torch._GLOBAL_DEVICE_CONTEXT).get("device_context"), lambda was: torch.set_default_device(None)),
        (lambda: torch.cuda.is_initialized() and torch.cuda.current_device(), lambda was: torch.cuda.set_device(was)),
        (
            lambda: torch.get_deterministic_debug_mode(),
            lambda was: torch.use_deterministic_algorithms(was > 0, warn_only=was == 1),
        ),
        (lambda: torch._C._autograd._top_saved_tensors_default_hooks(True), None),
        (lambda: numpy.geterr(), lambda was: numpy.seterr(**was)),
        (lambda: numpy.get_printoptions(), lambda was: numpy.set_printoptions(**was)),
        (_handlers, lambda was: [signal.signal(*one) for one in zip(_SIGNALS, was) if one[1] is not None]),
        (partial(signal.pthread_sigmask, signal.SIG_BLOCK, ()), partial(signal.pthread_sigmask, signal.SIG_SETMASK)),
        (lambda: list(map(signal.getitimer, _TIMERS)), lambda was: [signal.setitimer(timer, 0) for timer in _TIMERS]),
        (lambda: list(map(resource.getrlimit, _LIMITS)), lambda was: list(map(resource.setrlimit, _LIMITS, was))),
        (lambda: [was := os.umask(0o022), os.umask(was)][0], os.umask),
        (gc.isenabled, lambda was: gc.enable() if was else gc.disable()),
        (gc.get_threshold, lambda was: gc.set_threshold(*was)),
        (faulthandler.is_enabled, lambda was: faulthandler.enable() if was else faulthandler.disable()),
        (partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
        (lambda: (os.nice(0), os.sched_getaffinity(0)), None),
        # Rounding, and whether denormal numbers become 0. As text, because they then also compare equal to 0.
        (lambda: "%r %r %r" % (_SMALLEST * _ONE, _ONE / 3, 2 * _ONE / 3), None),
        (lambda: repr(sys.modules["decimal"].DefaultContext), None),  # the decimal context of new threads
        # Whether ``os.environ`` is complete: ``os.putenv`` does not change it.
        (lambda: set(takewhile(bool, environ)) == {b"%s=%s" % one for one in os.environb.items()}, None),
    ]


def _told(tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except Exception as error:  # PyTorch raises if its older and newer interfaces to a setting were mixed
        return type(error)


def _at(path: str) -> Any:
    module, *names = path.split(".")
    return reduce(lambda place, name: getattr(place, name, None), names, sys.modules.get(module))


def _form(stream: Any) -> list[Any]:
    return [getattr(stream, name) for name in (*_FORM, "closed")]


def _handlers() -> list[Any]:
    return [getsignal(number) for number in _SIGNALS]


def _is_from(value: Any, modules: set[str]) -> bool:
    return getattr(value, "__module__", None) in modules


def _is_own(name: str, module: Any, root: str) -> bool:
    """Whether a module belongs to the package: it is from its files, or was created outside of a library."""
    for each in (module, sys.modules.get(name.partition(".")[0])):
        place = getattr(each, "__file__", None) or next(iter(getattr(each, "__path__", None) or ()), "")
        if os.path.isabs(place):
            return os.path.realpath(place).startswith(root)
    # Libraries keep these: built-in modules, and those that extension modules of Cython create.
    is_built_in = getattr(getattr(module, "__spec__", None), "origin", None) == "built-in"
    return not is_built_in and not name.startswith(("cython_runtime", "_cython_"))


def _is_of_a_task(fd: int) -> bool:
    """Whether an open file belongs to a task. Installed files open for reading may belong to a library (fonts).

    Devices and events may belong to a GPU driver; pipes and sockets, too, after CUDA was initialised.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        torch = sys.modules.get("torch")
        return torch is None or not torch.cuda.is_initialized()
    if stat.S_ISREG(mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return not os.readlink("/proc/self/fd/%d" % fd).startswith(_INSTALLED)
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
