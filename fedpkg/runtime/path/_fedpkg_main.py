"""Runs a script or a module as ``__main__`` in an existing interpreter, like a new interpreter.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg.
"""

from __future__ import annotations

import atexit
import builtins
import io
import os
import sys
import time
import types

import _fedpkg_isolation  # type: ignore[import-not-found]
import _fedpkg_limits  # type: ignore[import-not-found]
import _fedpkg_task  # type: ignore[import-not-found]

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

# Set before the first fork:
COMPILED: dict[bytes, types.CodeType] = {}  # source → code of the package's files
SET_BY_IMPORTS: dict[str, str] = {}  # environment variables that libraries set when they are imported
THREADS_OF_SCRIPT: dict[str, str] = {}  # thread variables that the script sets before its imports

APART = ("_fedpkg_algorithm_node",)  # programs that import nothing from the package's folder before they say so

WATCHES: list[ImportWatch] = []  # of the running task, if its imports are watched


def run_task(
    order: dict[str, Any], before_its_code: Callable[[], object] = lambda: None
) -> tuple[int, dict[str, float]]:
    """Set up the environment of a new interpreter and run the script; its exit status, and times of the phases.

    ``before_its_code`` is called after the task was isolated. The caller must call `finish`.
    """
    times = {"order_received": time.monotonic()}
    _fedpkg_limits.apply(order["limits"], for_good=not order["resident"])
    if order.get("isolation") is not None:
        _fedpkg_isolation.enter(order["isolation"])
    before_its_code()
    set_environment({**SET_BY_IMPORTS, **order["env"]})
    os.chdir(order["cwd"])
    forget_the_parent()
    _fedpkg_task.set_loaded_thread_pools({**os.environ, **THREADS_OF_SCRIPT})
    _fedpkg_task.prepare(os.environ)
    WATCHES[:] = [ImportWatch(order["cwd"])] if order["watch_imports"] else []
    sys.meta_path[:0] = WATCHES
    times["script_started"] = time.monotonic()
    status = run_as_main(order)
    times["script_ended"] = time.monotonic()
    return status, times


class ImportWatch:
    """A finder that lets the others find modules, and times the imports of modules outside ``folder``."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(os.path.realpath(folder), "")
        self.seconds: dict[str, float] = {}
        self.busy = self.asking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if self.asking:  # another finder asks all finders
            return None
        self.asking = True
        try:
            finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            spec: Any = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        finally:
            self.asking = False
        if self.busy or spec is None or not hasattr(spec.loader, "exec_module"):
            return spec
        if os.path.realpath(spec.origin or "").startswith(self.folder):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            outermost, self.busy = not self.busy, True
            started = time.monotonic()
            try:
                execute(module)
            finally:
                if outermost:
                    self.busy = False
                    self.seconds[name] = time.monotonic() - started

        spec.loader.exec_module = exec_module
        return spec


def imported() -> dict[str, float]:
    """Modules that the task has imported and that were not preloaded, with their seconds, slowest first."""
    seconds = WATCHES[0].seconds if WATCHES else {}
    slowest = sorted(seconds.items(), key=lambda item: -item[1])[:20]
    return {name[:100]: round(value, 4) for name, value in slowest}  # a report has at most 4 kB


def set_environment(wanted: dict[str, str]) -> None:
    """Make ``os.environ`` equal to ``wanted``; most of it is already."""
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def forget_the_parent() -> None:
    """Reset what modules remember of the folder and environment in which they were imported."""
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
    time.tzset()


def run_as_main(order: dict[str, Any]) -> int:
    """Run a script or module like ``python``; its exit status."""
    main_module = types.ModuleType("__main__")
    main_module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main_module
    what = ["-m", order["module"]] if "module" in order else [order["script"]]
    sys.orig_argv = [sys.executable, *what, *order["args"]]
    sys.argv = [what[-1], *order["args"]]
    try:
        return run_module(order["module"]) if "module" in order else run_script(order["script"], main_module)
    except SystemExit as error:
        return exit_status(error.code)
    except BaseException as error:
        runpy = getattr(sys.modules.get("runpy"), "__file__", None)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>", runpy):
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1


def run_module(name: str) -> int:
    import runpy

    if not getattr(sys.flags, "safe_path", False) and name not in APART:
        sys.path.insert(0, os.getcwd())
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]
    return 0


def run_script(script: str, main_module: types.ModuleType) -> int:
    from importlib.machinery import SourceFileLoader

    path = os.path.join(os.getcwd(), script)
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print("%s: can't open file %r: %s" % (sys.executable, path, error), file=sys.stderr)
        return 2
    main_module.__file__ = path
    main_module.__cached__ = None  # type: ignore[attr-defined]
    main_module.__loader__ = SourceFileLoader("__main__", path)
    exec(compiled(source, path), main_module.__dict__)
    return 0


def precompile(sources: Iterable[str]) -> None:
    """Compile files that tasks will run or import, which saves each task 2 ms per file, as no bytecode is written.

    A copy that a client has changed is compiled when it is run.
    """
    from importlib.machinery import SourceFileLoader

    for path in sources:
        try:
            with io.open_code(path) as file:
                source = file.read()
            COMPILED[source] = compile(source, path, "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # the task itself will show the error
    compile_anew = SourceFileLoader.source_to_code

    def source_to_code(self: Any, data: Any, path: str, **more: Any) -> types.CodeType:
        if not more and isinstance(data, bytes) and data in COMPILED:
            return moved(COMPILED[data], path)
        return compile_anew(self, data, path, **more)

    # Python hides the steps of an import in tracebacks; with this file name the function is one of them.
    source_to_code.__code__ = moved(source_to_code.__code__, "<frozen importlib._bootstrap_external>")
    SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign, assignment]


def compiled(source: bytes, path: str) -> types.CodeType:
    """The code with the file name ``path``, a client's own copy of the script."""
    code = COMPILED.get(source)
    return compile(source, path, "exec", dont_inherit=True) if code is None else moved(code, path)


def moved(code: types.CodeType, path: str) -> types.CodeType:
    constants = tuple(moved(one, path) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_filename=path, co_consts=constants)


def exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def finish(status: int) -> int:
    """Do what an interpreter does at its end, except destroying its modules (0.4 s with PyTorch)."""
    try:
        import threading

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    return flush(status)


def flush(status: int) -> int:
    """Flush the standard streams; the exit status, which is 120 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            status = status or 120  # Python's own status if it cannot flush
    return status
