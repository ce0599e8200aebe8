"""Control groups (Linux, version 2): a hard wall around a slot's tasks, where the system has given us the means.

A *delegated* cgroup is one in which we may make others that have the controllers ``memory`` or ``pids``. Those that we
did not make are read, never written. A keeper is moved once, into one of its own, and its tasks inherit that: to move a
process costs 12 ms. Without a delegated cgroup, or for what its controllers do not cover, the keepers watch alone.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedpkg.control_groups import own_groups
from fedpkg.waist.order import Limits

CONTROLLERS = ("memory", "pids")
PREFIX = "fedpkg-"  # then the process id of who made it
KEEPER_TASKS = 4  # itself, its next child; a controller counts threads
KEEPER_BYTES = 64 << 20
REMOVE_PATIENCE_S = 1.0

_numbers = itertools.count()


@dataclass(frozen=True)
class Delegated:
    """A cgroup in which we may make others, and what they can limit."""

    folder: Path
    controllers: tuple[str, ...]


def delegated() -> Delegated | None:
    """The nearest cgroup, from this process's own upwards, that gives those below it a controller of ours."""
    chain = list(own_groups())
    for number, folder in enumerate(chain):
        try:
            enabled = (folder / "cgroup.subtree_control").read_text().split()
        except OSError:
            return None
        if not (controllers := tuple(name for name in CONTROLLERS if name in enabled)):
            continue
        writable = all(os.access(folder / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))
        # Root may write everywhere: it needs the word of the system's manager, or to be at the top (of a container).
        if writable and (os.getuid() != 0 or len(chain) == 1 or any(map(_is_marked, chain[number:]))):
            return Delegated(folder, controllers)
    return None


def _is_marked(folder: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):  # systemd, Delegate=yes
        with suppress(OSError, AttributeError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def open_group(parent: Delegated | None) -> Group | None:
    """A group there, or none where that fails: then the keepers watch alone."""
    if parent is not None:
        with suppress(OSError):
            return Group(parent)
    return None


class Group:
    """A cgroup of our own in a delegated one, with one below it for each keeper.

    Args:
        parent: where; groups that were left there by processes that are no more are removed.
    """

    def __init__(self, parent: Delegated) -> None:
        clear(parent.folder)
        self.folder = parent.folder / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.folder.mkdir()
        if parent.controllers:
            (self.folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in parent.controllers))

    def slot(self, pid: int) -> Slot:
        """Put a keeper, which has no task yet, into a cgroup of its own."""
        return Slot(self.folder / f"keeper-{pid}", pid)

    def close(self) -> None:
        remove(self.folder)


class Slot:
    """The cgroup of one keeper and its task."""

    def __init__(self, folder: Path, pid: int) -> None:
        self._folder = folder
        self._limits = Limits()
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(pid))

    def hold(self, limits: Limits) -> None:
        """Set what a task may use."""
        if limits == self._limits:
            return
        self._limits = limits
        memory, threads = limits.memory_bytes, limits.threads
        self._write("memory.max", "max" if memory is None else str(memory + KEEPER_BYTES))
        self._write("memory.swap.max", "max" if memory is None else "0")
        self._write("pids.max", "max" if threads is None else str(threads + KEEPER_TASKS))

    def kills(self) -> int:
        """How many processes the kernel has ended here for want of memory."""
        try:
            words = (self._folder / "memory.events").read_text().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError):
            return 0

    def kill(self) -> None:
        """Kill all in it at once: it needs nobody's help, and nothing can fork away from it."""
        self._write("cgroup.kill", "1")

    def _write(self, name: str, text: str) -> None:
        with suppress(OSError):  # that controller is not there
            (self._folder / name).write_text(text)


def clear(parent: Path) -> None:
    """Remove groups that were left by processes that are no more."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            remove(folder, patience_s=0)


def remove(folder: Path, *, patience_s: float = REMOVE_PATIENCE_S) -> None:
    """Remove a cgroup of ours once nothing lives in it; what does (somebody's else, then) keeps it."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            for inner in folder.iterdir():
                if inner.is_dir():
                    inner.rmdir()
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.002)
