"""Runs an algorithm's function in a process apart, so that what the runner checks is out of its reach.

The parent has read and checked the data; the child, a fork of it, shares them without a copy. What the child returns
comes through a pipe. Before the parent goes on, every process that the algorithm has left is ended, so none of them can
change what the parent writes then.
"""

from __future__ import annotations

import builtins
import ctypes
import gc
import json
import os
import select
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from fedpkg.analytics.noted import reason_of
from fedpkg.analytics.policy import NotAllowed
from fedpkg.client.errors import ClientError

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_HEADER = struct.Struct(">cQ")
_RESULT, _ERROR, _REFUSED = b"r", b"e", b"n"
_LOOK_S = 0.05  # between two looks whether a child that sends nothing has ended
_ERROR_CHARACTERS = 10_000


class AlgorithmFailed(ClientError):
    """The algorithm's function raised an exception, or its process ended without a result."""


def run_enclosed(
    function: Callable[[], bytes],
    *,
    max_bytes: int = 1 << 30,
    quiet: bool = False,
    show: Callable[[BaseException], str] | None = None,
) -> bytearray:
    """Call ``function`` in a child process, and return the bytes that it returns.

    This process gets every orphan of the algorithm, and kills them all when the function has returned. From now on no
    other process of the same user can read its memory, unless that has the powers of root, which isolation takes away.

    Args:
        max_bytes: Of a result.
        quiet: Whether the algorithm's output is dropped, and of an exception only the type is told: both may have data.
        show: The traceback of an exception as text, for the log; None: all of it.

    Raises:
        NotAllowed: The function raised it.
        AlgorithmFailed: An exception, another end of the process, or too many bytes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    gc.freeze()  # so that a collection in the child does not copy the pages of the data
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # libraries have started threads, but none has a lock
        pid = os.fork()
    if pid == 0:
        _child(function, tell, quiet, show)
    os.close(tell)
    try:
        return _receive(told, pid, max_bytes, quiet)
    finally:
        os.close(told)
        end_children()
        gc.unfreeze()


def end_children() -> None:
    """Kill every descendant of this process, also those that left their parent. AlgorithmFailed: some survive."""
    from _fedpkg_processes import kill_children  # type: ignore[import-not-found]

    if kill_children(()):
        raise AlgorithmFailed("the algorithm has left processes that cannot be killed")


def remove_planted(*paths: str) -> None:
    """Remove what an algorithm has put where the reply will be written, once its processes have ended."""
    import shutil

    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)


# ---------------------------------------------------------------- the child


def _child(
    function: Callable[[], bytes], tell: int, quiet: bool, show: Callable[[BaseException], str] | None
) -> NoReturn:
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        if quiet:
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
        os.closerange(3, tell)
        os.closerange(tell + 1, 1 << 16)
        _prctl(_PR_SET_DUMPABLE, 1)  # so that its memory can be measured
        kind, content = _outcome(function, quiet, show)
        sys.stdout.flush()
        sys.stderr.flush()
        _send(tell, _HEADER.pack(kind, len(content)))
        _send(tell, content)
        code = 0
    finally:
        os._exit(code)


def _outcome(
    function: Callable[[], bytes], quiet: bool, show: Callable[[BaseException], str] | None
) -> tuple[bytes, bytes]:
    try:
        return _RESULT, function()
    except SystemExit as error:
        return _ERROR, f"the function ended its process with exit code {error.code!r:.80}".encode(errors="replace")
    except NotAllowed as error:
        return _REFUSED, json.dumps([error.rule, error.why]).encode()
    except BaseException as error:
        if quiet:
            return _ERROR, type(error).__name__.encode(errors="replace")
        print(traceback.format_exc() if show is None else show(error), file=sys.stderr)
        return _ERROR, reason_of(error)[:_ERROR_CHARACTERS].encode(errors="replace")


def _send(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left[: 1 << 20]) :]


# ---------------------------------------------------------------- the parent


def _receive(told: int, pid: int, max_bytes: int, quiet: bool) -> bytearray:
    header = _exactly(told, pid, _HEADER.size)
    kind, size = _HEADER.unpack(header)
    if size > max_bytes:
        raise AlgorithmFailed(
            f"its result has {size} bytes, more than the {max_bytes} that a reply may have",
            "return aggregates",
        )
    content = _exactly(told, pid, size)
    if kind == _RESULT:
        return content
    text = content[:_ERROR_CHARACTERS].decode(errors="replace")
    # The algorithm can send texts of its own, and name an exception as it likes.
    if kind == _REFUSED:
        raise _refused(text, quiet)
    raise AlgorithmFailed(text if not quiet or hasattr(builtins, text) else "it raised an exception")


def _refused(text: str, quiet: bool) -> NotAllowed:
    try:
        rule, why = map(str, json.loads(text))
    except (ValueError, TypeError):
        rule, why = "", ""
    return NotAllowed("policy", "it refuses this") if quiet or not rule else NotAllowed(rule, why)


def _exactly(told: int, pid: int, size: int) -> bytearray:
    """Read ``size`` bytes. The pipe may stay open after the child's end, in a process that the algorithm has left."""
    found = bytearray()
    status: int | None = None
    while len(found) < size:
        is_ready = bool(select.select([told], [], [], 0 if status is not None else _LOOK_S)[0])
        if is_ready:
            part = os.read(told, min(size - len(found), 1 << 20))
            if part:
                found += part
                continue
        elif status is None:
            status = _status(pid)
            continue
        status = _waited(pid) if status is None else status
        raise AlgorithmFailed(f"its process {_ended(status)} without a result")
    return found


def _status(pid: int) -> int | None:
    """The exit status of a child, or None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return status if found else None


def _waited(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        names: Any = {one.value: one.name for one in signal.Signals}
        return f"was ended by the signal {names.get(number, number)}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        zero = ctypes.c_ulong(0)
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), zero, zero, zero)
