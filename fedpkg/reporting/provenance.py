"""What a session ran with: versions, the git commit and uncommitted changes of the folder where it was started, and the
origins of its configuration."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedpkg.files import atomic_write, read_bounded

STARTS = "started-with.json"  # in a session's folder: a list, one entry for its start and for each resume
ORIGINS = "origins.json"  # in a session's folder: of each key of its configuration, as ``run.yaml:12``
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


def note_origins(folder: Path, origins: Mapping[str, str]) -> None:
    """Add to the origins of a session's configuration, of which the names of files are kept without their folders."""
    if not origins:
        return
    told = {**read_origins(folder), **{key: origin.rpartition("/")[2] for key, origin in origins.items()}}
    with contextlib.suppress(OSError), atomic_write(folder / ORIGINS, durable=False) as file:
        file.write(json.dumps(told, indent=1).encode())


def read_origins(folder: Path) -> dict[str, str]:
    """Origins of values by key; none for sessions that had no file, or were run by an older fedpkg."""
    try:
        found = json.loads(read_bounded(folder / ORIGINS, 10_000_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: str(origin) for key, origin in found.items()} if isinstance(found, dict) else {}


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
    told = _git(folder, "status", "--porcelain=v2", "--branch", "-z", "--ignore-submodules=dirty")  # one process
    if told is None:
        return {}, b""
    lines = iter(told.decode(errors="replace").split("\0"))
    about: dict[str, Any] = {"commit": "", "branch": "", "changed": 0, "untracked": []}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "#" and rest.startswith(("branch.oid ", "branch.head ")):
            name, _, value = rest.partition(" ")
            about["commit" if name == "branch.oid" else "branch"] = value
        elif kind == "?":
            about["untracked"].append(rest)
        elif kind in ("1", "2", "u"):
            about["changed"] += 1
            if kind == "2":  # a renamed file: its former name is the next line
                next(lines, None)
    about["untracked"] = about["untracked"][:100]
    if not about["changed"]:
        return about, b""
    changes = (
        _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "--binary", "HEAD") or b""
    )
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
