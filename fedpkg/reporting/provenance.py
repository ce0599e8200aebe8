"""What a session ran with: versions, and the git commit and uncommitted changes of the folder where it was started."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpkg.files import atomic_write, read_bounded

STARTS = "started-with.json"  # in a session's folder: a list, one entry for its start and for each resume
_PACKAGES = ("fedpkg", "torch", "numpy")
_GIT_S = 5.0  # a repository whose changes take longer is recorded without them
_MOST_CHANGES = 5_000_000  # bytes of uncommitted changes that are kept


def note_start(folder: Path) -> Callable[[], None]:
    """Record in a session's folder what it runs with, in a thread, as git may take a second; returns a function that
    waits for it.

    git is asked in the current folder, where the user works: not in that of a package, whose repository may be of
    another origin and can name programs that git would run.
    """
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        here = folder
    thread = threading.Thread(target=_note, args=(folder, here, time.time()), name="fedpkg-provenance", daemon=True)
    thread.start()
    return lambda: thread.join(2 * _GIT_S)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The entries for the start of a session and for each resume; sessions of an older fedpkg have none."""
    try:
        found = json.loads(read_bounded(folder / STARTS, 10_000_000))
    except (OSError, ValueError, RecursionError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def changes_of(folder: Path, entry: dict[str, Any]) -> Path | None:
    """The file with the uncommitted changes of a start."""
    name = entry.get("git", {}).get("changes") if isinstance(entry.get("git"), dict) else None
    path = folder / Path(str(name)).name
    return path if isinstance(name, str) and path.is_file() else None


def _note(folder: Path, here: Path, now: float) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a folder that was removed: the run itself tells of it
        entries = read_starts(folder)
        git, changes = git_state(here)
        if changes:
            git["changes"] = f"uncommitted-{len(entries) + 1}.diff"
            with atomic_write(folder / git["changes"], durable=False) as file:
                file.write(changes)
        entries.append({"at": now, "versions": versions(), "machine": _machine(), "folder": str(here), "git": git})
        with atomic_write(folder / STARTS, durable=False) as file:
            file.write(json.dumps(entries, indent=1).encode())


def versions() -> dict[str, str]:
    """Versions of Python and of what computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _machine() -> dict[str, Any]:
    return {"system": f"{platform.system()} {platform.release()}", "cpu": platform.machine(), "cores": os.cpu_count()}


def git_state(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Commit, branch and number of changed files of the repository around a folder, and the changes as a diff.

    Files that git does not track are counted and named, and are not in the diff. Empty: there is no repository or git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    root = _git(folder, "rev-parse", "--show-toplevel")
    if commit is None or root is None:
        return {}, b""
    status = (_git(folder, "status", "--porcelain", "-z", "--untracked-files=normal") or b"").decode(errors="replace")
    paths = [line for line in status.split("\0") if line]
    untracked = [line[3:] for line in paths if line.startswith("?? ")]
    branch = (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or b"").decode(errors="replace").strip()
    about: dict[str, Any] = {
        "commit": commit.decode().strip(),
        "branch": branch,
        "root": root.decode(errors="replace").strip(),
        "changed": len(paths) - len(untracked),
        "untracked": untracked[:100],
    }
    if not about["changed"]:
        return about, b""
    changes = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD") or b""
    if len(changes) > _MOST_CHANGES:
        about["too_large"] = len(changes)
        return about, b""
    return about, changes


def _git(folder: Path, *words: str) -> bytes | None:
    """The output of a git command that only reads; None: it failed."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
