"""Errors in user code (a strategy, a sampler): reported with their place, and not as errors of fedpkg."""

from __future__ import annotations

import sys
import traceback

from fedpkg.errors import SessionFailed

_CALLED_BY_FEDPKG = ("dp_accounting", "scipy", "safetensors", "zstandard")  # called by fedpkg, not by user code
_OTHERS = frozenset({"fedpkg", "torch", "numpy", *_CALLED_BY_FEDPKG, *sys.stdlib_module_names})


def fault_of_own(error: BaseException, *, where: str, session_id: str) -> SessionFailed | None:
    """The error to raise for an error in user code; None if it is not in user code."""
    if (place := _place(error)) is None:
        return None
    return SessionFailed(
        f"{where}: {type(error).__name__}: {error}\n    {place}",
        hint=f"fix it, then run `fedpkg session resume {session_id}`",
        session_id=session_id,
    )


def _place(error: BaseException) -> str | None:
    """The innermost line outside fedpkg; None if the controller was called from there and failed itself."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if found is not None and module.startswith("fedpkg.controller."):
            return None
        if module.partition(".")[0] not in _OTHERS:
            found = f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}"
    return found
