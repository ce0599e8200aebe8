"""Runs at the start of every Python of a task, as it is first on PYTHONPATH, and then runs the machine's own one."""

import importlib.machinery
import importlib.util
import os
import sys

import _fedpkg_compat  # type: ignore[import-not-found]


def _run_shadowed() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_fedpkg_compat.install()
if os.environ.get("FEDPKG_SEED"):
    import _fedpkg_task  # type: ignore[import-not-found]

    _fedpkg_task.prepare(os.environ)
if "_fedpkg_algorithm_node" in getattr(sys, "orig_argv", ()):
    import runpy  # noqa: F401 - now, as `python -m` would find both in the working folder first

    import _fedpkg_algorithm_node  # type: ignore[import-not-found]  # noqa: F401
_run_shadowed()
