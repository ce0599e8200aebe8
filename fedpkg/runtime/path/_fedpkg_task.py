"""Sets the seeds and thread counts of a task before the user's code runs, the same in cold and warm tasks.

Runs inside a task's interpreter: standard library only, imports nothing of fedpkg, and must stay fast to import.
"""

from __future__ import annotations

import os
import random
import sys

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Functions that PyTorch may delegate to oneMKL's vector math. Also in fedpkg/weights/vector_math.py.
VECTOR_MATH = (
    "acos asin atan ceil cos cosh erf erfc erfinv exp expm1 floor log log10 log1p log2 reciprocal round rsqrt sigmoid "
    "sin sinh sqrt tan tanh trunc"
)
# Set for sessions of older rules (fedpkg/rules.py), in which an import in a task could move the generators.
IMPORTS_DRAW = "FEDPKG_IMPORTS_DRAW"
_INSTALLED = tuple("%s%s%s" % (os.sep, name, os.sep) for name in ("site-packages", "dist-packages"))
_warmed: list[bool] = []


def prepare(environ: Mapping[str, str]) -> None:
    """Seed the global generators of random, NumPy and torch (FEDPKG_SEED), and set torch's threads (OMP_NUM_THREADS).

    This happens now for NumPy and torch if they are imported already (a warm task), otherwise after their import (a
    cold task). Imports of installed modules leave the generators as they are: see `_Undrawn`.
    """
    seed_text, threads_text = environ.get("FEDPKG_SEED", ""), environ.get("OMP_NUM_THREADS", "")
    if not seed_text.isdigit():
        return
    seed = int(seed_text)
    threads = int(threads_text) if threads_text.isdigit() else 0
    random.seed(seed)
    actions: dict[str, Callable[[ModuleType], None]] = {
        "numpy.random": lambda module: module.seed(seed % 2**32),
        "torch": lambda module: _prepare_torch(module, seed, threads),
    }
    later = {}
    for name, action in actions.items():
        if name in sys.modules:
            action(sys.modules[name])
        else:
            later[name] = action
    if later:
        sys.meta_path.insert(0, _AfterImport(later))
    if IMPORTS_DRAW not in environ:
        sys.meta_path.insert(0, _Undrawn(seed))


def _seed_torch(torch: ModuleType, seed: int) -> None:
    if torch.version.cuda or torch.version.hip or getattr(torch.version, "xpu", None):
        torch.manual_seed(seed)
    else:  # a build without accelerators does not have the other generators that manual_seed (slowly) prepares
        torch.default_generator.manual_seed(seed)


def _prepare_torch(torch: ModuleType, seed: int, threads: int) -> None:
    _seed_torch(torch, seed)
    warm_vector_math(torch)
    if threads:
        # Also in a cold task, where OMP_NUM_THREADS would suffice: this call disables MKL's own choice of threads.
        torch.set_num_threads(threads)


def warm_vector_math(torch: ModuleType) -> None:
    """Call each function of oneMKL's vector math once, on one thread.

    A function chooses its kernel in its first call. If several threads make that call at once, one of them may get a
    less accurate kernel for that call: rarely, a task's first square root differed in half of a tensor
    (https://github.com/pytorch/pytorch/issues/188792; oneMKL before 2025).
    """
    if _warmed:
        return
    _warmed.append(True)
    try:
        for dtype in (torch.float32, torch.float64):
            number = torch.full((1,), 0.5, dtype=dtype, device="cpu")
            for name in VECTOR_MATH.split():
                getattr(number, name)()
    except Exception:  # another module of that name, or a build without one of them: the task may not need it
        pass


class _AfterImport:
    """A finder that lets the others find a module, and calls a function after the module is imported."""

    def __init__(self, actions: dict[str, Callable[[ModuleType], None]]) -> None:
        self.actions = actions

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        spec = None
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    break
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                action = self.actions.pop(name, None)  # only now: a module can be found without being imported
                if action is not None:
                    action(module)
                if not self.actions and self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Undrawn:
    """A finder that lets the others find a module, and puts the global generators back after an installed one ran.

    Some modules draw when they are imported (rich, and so scikit-learn, which imports it). A warm interpreter has
    imported them before the seed is set, a cold one does later: what the user's code draws must not depend on that.
    The user's own modules are not touched, as they may set a seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asking = self.busy = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.asking or self.busy:  # another finder asks all finders; or a module is imported by an installed one
            return None
        self.asking = True
        try:
            finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        finally:
            self.asking = False
        loader: Any = None if spec is None else spec.loader
        if spec is None or not any(part in (spec.origin or "") for part in _INSTALLED):
            return spec
        if hasattr(loader, "exec_module") and not isinstance(loader, type):
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                before, self.busy = _states(), True
                try:
                    execute(module)
                finally:
                    self.busy = False
                    self.put_back(before)

            loader.exec_module = exec_module
        return spec

    def put_back(self, before: dict[str, Any]) -> None:
        """Restore these states, and seed the generators of a library that was imported since."""
        random.setstate(before["random"])
        numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
        if "numpy" in before:
            numpy.set_state(before["numpy"])  # type: ignore[union-attr]
        elif hasattr(numpy, "seed"):
            numpy.seed(self.seed % 2**32)  # type: ignore[union-attr]
        if "torch" in before:
            torch.default_generator.set_state(before["torch"])  # type: ignore[union-attr]
        elif hasattr(torch, "default_generator"):
            _seed_torch(torch, self.seed)  # type: ignore[arg-type]


def _states() -> dict[str, Any]:
    """The states of the global generators."""
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    states: dict[str, Any] = {"random": random.getstate()}
    if hasattr(numpy, "get_state"):
        states["numpy"] = numpy.get_state(legacy=False)  # type: ignore[union-attr]
    if hasattr(torch, "default_generator"):
        states["torch"] = torch.default_generator.get_state()  # type: ignore[union-attr]
    return states


def set_loaded_thread_pools(environ: Mapping[str, str]) -> None:
    """Set the number of threads of BLAS and OpenMP libraries that are loaded already (warm tasks; Linux).

    They read the environment once, when they are loaded in the zygote, where it is 1. If the loaded libraries cannot be
    listed, nothing is done.
    """
    variables = {"blas": "OPENBLAS_NUM_THREADS", "mkl_rt": "MKL_NUM_THREADS", "omp": "OMP_NUM_THREADS"}
    numbers = {kind: environ.get(name, "") for kind, name in variables.items()}
    threads = {kind: int(number) for kind, number in numbers.items() if number.isdigit() and number not in ("0", "1")}
    if not threads:
        return
    import ctypes

    setters = {
        "openblas_set_num_threads": "blas",
        "openblas_set_num_threads64_": "blas",
        "scipy_openblas_set_num_threads": "blas",
        "scipy_openblas_set_num_threads64_": "blas",
        "MKL_Set_Num_Threads": "mkl_rt",
        "omp_set_num_threads": "omp",
    }
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(None, 5)[-1].strip() for line in maps if ".so" in line}
    except OSError:
        return
    for path in sorted(paths):
        name = os.path.basename(path)
        if not any(kind in name for kind in variables):
            continue
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for setter, kind in setters.items():
            if kind in threads and hasattr(library, setter):
                getattr(library, setter)(ctypes.c_int(threads[kind]))
