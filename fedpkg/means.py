"""Detects, by trying, the means by which a task can be isolated on this machine."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = Path(__file__).resolve().parent / "runtime" / "path" / "_fedpkg_isolation.py"
PROBE_PATIENCE_S = 30.0
LEAST_LANDLOCK = 3  # without namespaces: read access to a file must not allow truncating it
BARE = (
    *("--unshare-user-try", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"),
)


@dataclass(frozen=True)
class Means:
    """The means of this machine; ``why_not_…`` is the reason why one is unavailable, or empty."""

    landlock: int  # its ABI version; 0: not supported
    why_not_landlock: str
    why_not_namespaces: str
    bubblewrap: str | None  # its path
    why_not_bubblewrap: str
    covered: Sequence[
        tuple[str, bool]
    ] = ()  # parts of /proc that are hidden from a task, and those of them that are folders

    @property
    def warm(self) -> str | None:
        """How forked tasks are isolated: namespaces, landlock, or not at all."""
        if not self.why_not_namespaces:
            return "namespaces"
        return "landlock" if self.landlock >= LEAST_LANDLOCK and not self.why_not_landlock else None

    @property
    def cold(self) -> str | None:
        """How executed commands are isolated."""
        return "bubblewrap" if self.bubblewrap is not None and not self.why_not_bubblewrap else self.warm


def means() -> Means:
    """What this machine has."""
    return find()


@functools.cache
def find() -> Means:
    """The means of this machine, detected once, by trying them."""
    bubblewrap = shutil.which("bwrap")
    try:
        with tempfile.TemporaryDirectory(prefix="fedpkg-") as folder:
            done = _run([sys.executable, "-I", str(PROBE), folder])
        found: Mapping[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = f"it cannot be tried: {error}"
        found = {"landlock": 0, "why_not_landlock": reason, "why_not_namespaces": reason}
    return Means(**found, bubblewrap=bubblewrap, why_not_bubblewrap=_why_not_bubblewrap(bubblewrap))


def _why_not_bubblewrap(program: str | None) -> str:
    if program is None:
        return "bwrap is not on PATH"
    bindings = [word for folder in ("/usr", "/lib", "/lib64", "/bin") for word in ("--ro-bind-try", folder, folder)]
    try:
        done = _run([program, *BARE, "--unshare-net", *bindings, "--", "/bin/sh", "-c", ":"])
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PROBE_PATIENCE_S, stdin=subprocess.DEVNULL)
