"""A resident interpreter: runs task after task, and puts itself back between them.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg. What scripts often change is put
back. Of the rest a fingerprint is taken: if it differs, or if something of the task goes on (a thread, a function of
the package that a library still refers to), the interpreter says so and is replaced. ``docs/reference/resident.md``
lists all three, and what is neither put back nor detected.
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

TYPE_CHECKING = False  # type checkers know the name; to import the one of typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Modules and objects whose names are put back, and the contents of lists and dictionaries among these.
_PLACES = """
sys os gc logging warnings threading socket random tempfile copyreg linecache mimetypes asyncio.events logging.root
logging.root.manager multiprocessing.context._default_context torch.multiprocessing torch.__future__
torch.nn.modules.module torch.optim.optimizer torch._tensor_str.PRINT_OPTS
"""
# Functions that tell a setting: what puts it back has the same name, with "set" for "get".
_PUT_BACK = """
sys.getrecursionlimit sys.gettrace sys.getprofile socket.getdefaulttimeout torch.get_default_dtype
torch._C._get_cudnn_enabled torch._C._get_cudnn_benchmark torch._C._get_cudnn_deterministic
torch._C._get_cudnn_allow_tf32 torch._C._get_cublas_allow_tf32 torch._C._get_float32_matmul_precision
torch._C._get_mkldnn_enabled torch._C._get_mkldnn_deterministic torch._C._get_nnpack_enabled
torch._C._get_warnAlways torch._C._get_deterministic_fill_uninitialized_memory
"""
# Functions that tell what few scripts change, or what cannot be put back.
_COMPARED = """
threading.enumerate threading.stack_size os.getresuid os.getresgid os.getgroups gc.get_debug sys.getswitchinterval
sys.get_coroutine_origin_tracking_depth sys.get_asyncgen_hooks sys.get_int_max_str_digits
numpy.geterrcall numpy.getbufsize numpy.random.get_bit_generator
torch._C._get_flash_sdp_enabled torch._C._get_math_sdp_enabled torch._C._get_mem_efficient_sdp_enabled
torch._C._get_cudnn_sdp_enabled torch._C._is_any_autocast_enabled torch._C._is_multithreading_enabled
torch._C._len_torch_function_stack torch._C._len_torch_dispatch_stack torch.is_inference_mode_enabled
torch.is_anomaly_enabled torch.is_anomaly_check_nan_enabled torch.distributed.is_initialized
"""
_FORM = ("encoding", "errors", "line_buffering", "write_through")  # of a text stream
_PRECISIONS = [("generic", "all"), *((on, of) for on in ("cuda", "mkldnn") for of in ("all", "matmul", "conv", "rnn"))]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_INSTALLED = tuple(os.path.join(os.path.realpath(place), "") for place in (sys.prefix, sys.base_prefix))
_FIRST_PRIVATE_FD = 200  # out of the way of what a task opens
_ONE, _SMALLEST = 1.0, 5e-324  # variables, lest the compiler computes with them


def serve(
    order: dict[str, Any] | None,
    receive: Callable[[], dict[str, Any] | None],
    send: Callable[[dict[str, Any]], None],
) -> int:
    """Run orders until there are none, or one fails or leaves something behind; the exit status of the last one."""
    baseline = Baseline()
    while order is not None:
        context = contextvars.copy_context()  # NumPy's and decimal's settings are variables of it
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
        self.handlers = list(logging._handlerList)  # type: ignore[attr-defined]
        atexit.register(self._at_exit)
        self.streams = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD) for fd in (0, 1, 2)]
        self.spent: list[Any] = []  # calls of what can be called once
        if "torch" in sys.modules:
            torch: Any = sys.modules["torch"]
            torch.set_num_interop_threads = _noting(torch.set_num_interop_threads, self.spent)
        self.modules = dict(sys.modules)
        self.traces: weakref.WeakSet[Any] = weakref.WeakSet()  # of what `_modules` forgets
        self.builtins = dict(vars(builtins))
        self.contents = _copied()
        self.settings = [(tell, put, _told(tell)) for tell, put in _settings()]
        gc.collect()
        gc.freeze()
        self.files = _fedpkg_isolation.open_files()

    def restore(self, folder: str) -> bool:
        """Put everything back; False if something of the task is still going on, or cannot be put back."""
        builtins.__dict__.update(self.builtins)  # before any of them is called
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
        except Exception:  # a task can break what any of these call
            return False

    def _at_exit(self) -> None:
        """What the standard library does at the exit of an interpreter, for what is the task's."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            util._exit_function()  # waits for processes
            util._exiting = False
        logging.shutdown([one for one in logging._handlerList if one not in self.handlers])  # type: ignore[attr-defined]

    def _modules(self, root: str) -> set[str]:
        """Forget ``__main__`` and the package's own modules; the names of the others that were imported only now."""
        new = set()
        known = self.modules.get
        for name in [name for name, module in sys.modules.items() if known(name) is not module]:
            module = sys.modules[name]
            if name == "__main__" or _is_own(name, module, root):
                del sys.modules[name]
                if isinstance(names := getattr(module, "__dict__", None), dict):
                    # It lives as long as anything refers to these names.
                    names["__fedpkg_trace__"] = trace = types.ModuleType("trace")
                    self.traces.add(trace)
            elif name not in self.modules:
                self.modules[name] = module
                new.add(name)
        sys.modules.update(self.modules)
        return new

    def _contents(self, new: set[str]) -> None:
        """Put lists and dictionaries back; what a library set when it was imported stays: it will not set it again."""
        for one, was in self.contents:
            if one == was:
                continue
            if isinstance(one, list):
                was += [value for value in one if _is_from(value, new) and value not in was]
                one[:] = was
                continue
            was.update({name: value for name, value in one.items() if name in new or _is_from(value, new)})
            for name in one.keys() - was.keys():
                if not isinstance(one[name], types.ModuleType):  # a module of the package that was imported only now
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
        for forget in getattr(sys.modules.get("typing"), "_cleanups", ()):  # Optional[Net] is remembered, and so Net is
            forget()

    def _is_gone(self, root: str) -> bool:
        """Whether nothing refers to the package's modules any more, nor to a function that was read from its files.

        A library that still does (``np.load`` was wrapped, a hook or class was registered) would call them in the next
        task. Objects of the libraries themselves are frozen, so collecting and listing take microseconds.
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
    """The names of `_PLACES` and of loggers, and the lists and dictionaries that are among them; with copies."""
    manager: Any = logging.root.manager
    manager._clear_cache()
    places = [*filter(None, map(_at, _PLACES.split())), *manager.loggerDict.values()]
    found = {id(vars(place)): vars(place) for place in places}
    for place in places:
        if place is not threading:  # which notes there what threads are running
            found.update({id(one): one for one in vars(place).values() if type(one) in (list, dict, OrderedDict)})
    del found[id(sys.modules)]
    return [(one, one.copy()) for one in found.values()]


def _settings() -> list[tuple[Any, Any]]:
    """Functions that tell a setting, and those that put it back. Without the second, it is only compared."""
    pairs = [(_at(tell), _at(tell.replace("get", "set"))) for tell in _PUT_BACK.split()]
    pairs += [(_at(tell), None) for tell in _COMPARED.split()]
    get_precision = _at("torch._C._get_fp32_precision_getter")  # since PyTorch 2.9
    set_precision = _at("torch._C._set_fp32_precision_setter")
    pairs += [(partial(get_precision, *of), partial(set_precision, *of)) for of in _PRECISIONS if get_precision]
    for one in filter(None, (sys.stdin, sys.stdout, sys.stderr)):
        pairs.append((partial(_form, one), lambda was, one=one: one.reconfigure(**dict(zip(_FORM, was)))))
    environ = _told(lambda: ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"))
    numpy, torch = _at("numpy"), _at("torch")  # where one is missing, all that is told of it is the same error
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
        # Rounding, and whether the smallest numbers become 0. As text: where they do, they also equal 0.
        (lambda: "%r %r %r" % (_SMALLEST * _ONE, _ONE / 3, 2 * _ONE / 3), None),
        (lambda: repr(sys.modules["decimal"].DefaultContext), None),  # what new threads compute decimals with
        # Whether ``os.environ``, which is set up for the next task, has it all: ``os.putenv`` does not tell it.
        (lambda: set(takewhile(bool, environ)) == {b"%s=%s" % one for one in os.environb.items()}, None),
    ]


def _told(tell: Callable[[], Any]) -> Any:
    try:
        return tell()
    except Exception as error:  # so PyTorch answers where its older and newer ways to say something were mixed
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
    """Whether a module is the package's: read from its files, or made by code of no library (as ``six.moves`` is)."""
    for each in (module, sys.modules.get(name.partition(".")[0])):
        place = getattr(each, "__file__", None) or next(iter(getattr(each, "__path__", None) or ()), "")
        if os.path.isabs(place):
            return os.path.realpath(place).startswith(root)
    # Libraries hold these: built-in ones, and those that Cython's extension modules make.
    is_built_in = getattr(getattr(module, "__spec__", None), "origin", None) == "built-in"
    return not is_built_in and not name.startswith(("cython_runtime", "_cython_"))


def _is_of_a_task(fd: int) -> bool:
    """Open files and folders are; but an installed file that is only read may be a library's (matplotlib's fonts).

    Devices and events may be a GPU driver's; so may pipes and sockets, once CUDA is in use.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        torch = sys.modules.get("torch")
        return torch is None or not torch.cuda.is_initialized()
    if stat.S_ISREG(mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return not os.readlink("/proc/self/fd/%d" % fd).startswith(_INSTALLED)
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
