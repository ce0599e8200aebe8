"""What this machine has and lacks: one finding after the other, each with what it is for and what to do."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from fedpkg.cli import output
from fedpkg.devices import Machine, Needs, describe, plan_slots, this_machine

LIBRARIES = ("numpy", "click", "filelock", "fire", "msgspec", "omegaconf", "psutil", "pyyaml", "rich")
_PR_GET_CHILD_SUBREAPER = 37


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``required``: without it fedpkg cannot run a federation."""

    name: str
    state: Literal["ok", "missing", "note"]
    found: str
    purpose: str
    advice: str = ""
    required: bool = False


def _finding(name: str, ok: bool, found: str, purpose: str, advice: str = "", *, required: bool = False) -> Finding:
    """``advice`` is for the case that it is not as it should be."""
    state: Literal["ok", "missing", "note"] = "ok" if ok else "missing" if required else "note"
    return Finding(name, state, found, purpose, "" if ok else advice, required)


def examine(home: Path, *, full: bool) -> Iterator[Finding]:
    """Everything, one after the other."""
    yield _python()
    yield _torch(full=full)
    machine = this_machine(with_gpus=True)
    yield from _cuda(machine, full=full)
    yield _libraries()
    learn, install = _version("scikit-learn"), "pip install 'fedpkg[datasets]'"
    yield _finding("scikit-learn", learn is not None, learn or "not installed", "datasets sklearn/digits …", install)
    bash = shutil.which("bash")
    yield _finding(
        "bash", bash is not None, bash or "not on PATH", "runs the commands of packages", "install bash", required=True
    )
    yield _subreaper()
    yield _huge_pages()
    yield Finding("processors", "ok", f"{machine.cpus} usable; {_auto(machine)}", "tasks at the same time")
    found = f"{output.size(machine.free_bytes)} of {output.size(machine.memory_bytes)} free"
    purpose, advice = "each task holds a model and its data", "if tasks are killed, lower executor.workers"
    yield _finding("memory", machine.free_bytes >= 1e9, found, purpose, advice)
    yield _limits()
    yield _isolation()
    place = _nearest_folder(home)
    yield _disk(home, place)
    yield from _file_system(place)
    yield from _environments()


def _python() -> Finding:
    from fedpkg.interpreters import naming

    also = ", in tasks also as python" if naming(Path(sys.executable)) else ""
    found = f"{platform.python_version()} ({sys.executable}{also})"
    return Finding("python", "ok", found, "runs fedpkg")  # an older one than 3.10 does not come so far


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _torch(*, full: bool) -> Finding:
    version, purpose = _version("torch"), "folds models"
    if version is None:
        return _finding("torch", False, "not installed", purpose, "pip install torch", required=True)
    if full:
        try:
            import torch
        except Exception as error:  # a broken installation can fail in any way
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return _finding("torch", False, f"{version}: {reason}", purpose, "install it again", required=True)
        version += f", {torch.get_num_threads()} threads"
    return _finding("torch", True, version, purpose, required=True)


def _cuda(machine: Machine, *, full: bool) -> Iterator[Finding]:
    purpose = "packages may compute on GPUs"
    if not machine.gpus:
        yield Finding("cuda", "note", f"no GPU: {machine.gpu_note}", purpose)
        return
    advice = "tasks see no GPU unless executor.needs.gpus gives them a number or a fraction of one"
    found = f"{len(machine.gpus)} GPU{'s' if len(machine.gpus) > 1 else ''}, {_auto(machine, gpus=1)}"
    if machine.gpu_note:
        found += f" ({machine.gpu_note})"
    if "+cpu" in (_version("torch") or ""):
        advice = "this PyTorch is built without CUDA: install another build for packages"
        yield Finding("cuda", "note", found, purpose, advice)
    elif full and "torch" in sys.modules and not sys.modules["torch"].cuda.is_available():
        yield Finding("cuda", "note", f"{found}; PyTorch sees none", purpose, "does the driver fit this PyTorch?")
    else:
        yield Finding("cuda", "ok", found, purpose, advice)
    for gpu in machine.gpus:
        yield Finding(f"gpu {gpu.visible_as}", "ok", describe(gpu), purpose)


def _auto(machine: Machine, *, gpus: float = 0) -> str:
    """What ``workers: auto`` gives."""
    workers = len(plan_slots(machine, Needs(gpus=gpus), "auto"))
    return f"executor.workers=auto is {workers}" + (f" with executor.needs.gpus={gpus:g}" if gpus else "")


def _libraries() -> Finding:
    absent = [name for name in LIBRARIES if _version(name) is None]
    found = f"without {', '.join(absent)}" if absent else f"numpy {_version('numpy')} and {len(LIBRARIES) - 1} more"
    advice = f"pip install {' '.join(absent)}"
    return _finding("libraries", not absent, found, "fedpkg needs them", advice, required=True)


def _subreaper() -> Finding:
    has_proc = Path("/proc/self/task").is_dir()
    try:
        flag = ctypes.c_int()
        answer = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    except (OSError, AttributeError):
        answer = -1
    lacks = "" if has_proc and answer == 0 else "no PR_SET_CHILD_SUBREAPER" if has_proc else "no /proc"
    advice = "daemons that a task starts may outlive it: use Linux with /proc mounted"
    found = lacks or "/proc and PR_SET_CHILD_SUBREAPER"
    return _finding("subreaper", not lacks, found, "ends all that a task leaves behind", advice)


def _huge_pages() -> Finding:
    purpose = "cheaper forks of big processes"
    try:
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        mode = modes[modes.index("[") + 1 : modes.index("]")]
    except (OSError, ValueError):
        return Finding("huge pages", "note", "unknown", purpose)
    advice = "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
    return _finding("huge pages", mode != "never", mode, purpose, advice)


def _limits() -> Finding:
    """Who holds a task to its limits."""
    ok = Path("/proc/self/stat").exists()
    found = "a supervisor (counts processes, bytes and seconds)" if ok else "files' size and number only: no /proc"
    purpose = "enforces the limits of tasks (limits: in run.yaml)"
    return _finding("limits", ok, found, purpose, "use Linux, mount /proc")


def _isolation() -> Finding:
    """What `--isolate` promises here."""
    from fedpkg.means import means

    here = means()
    has = [
        f"Landlock ABI {here.landlock}" if here.landlock else "no Landlock",
        "namespaces" if not here.why_not_namespaces else f"no namespaces ({here.why_not_namespaces})",
        "bwrap" if not here.why_not_bubblewrap else f"no bubblewrap ({here.why_not_bubblewrap})",
    ]
    found = f"cold tasks by {here.cold}, warm ones {f'by {here.warm}' if here.warm else 'run cold'}: "
    advice = (
        "allow user namespaces: without them, isolated tasks cannot change modes and times of files, cannot use Unix "
        "sockets and /dev/shm, and can find out whether a file exists"
    )
    if here.cold is None:
        found, advice = "", "use Linux, and install bubblewrap: until then --isolate is refused"
    ok = here.cold is not None and "landlock" not in (here.cold, here.warm)
    purpose = "with --isolate, clients see only their package and data"
    return _finding("isolation", ok, found + ", ".join(has), purpose, advice)


def _environments() -> Iterator[Finding]:
    """Where the packages' own environments are, and what makes them."""
    from fedpkg.environments.interpreter import find_uv
    from fedpkg.environments.make import environments_folder, has_pip, list_environments

    folder = environments_folder()
    there = f"{len(list_environments(folder))} in {output.near(folder)}"
    yield Finding("environments", "ok", there, "provide what packages require and this Python lacks")
    purpose, uv = "makes environments", find_uv()
    if uv is not None:
        yield Finding("uv", "ok", uv, purpose)
    elif has_pip():
        yield Finding("uv", "note", "not on PATH: venv and pip", purpose, "pip install uv: it is ten times as fast")
    else:
        advice = "pip install uv (or, on Debian: apt install python3-venv)"
        yield Finding("uv", "note", "not on PATH, and this Python has no ensurepip", purpose, advice)


def _nearest_folder(path: Path) -> Path:
    """The home, or where it would be made."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _disk(home: Path, place: Path) -> Finding:
    free, purpose = shutil.disk_usage(place).free, "models, logs and clients' folders"
    if not os.access(place, os.W_OK | os.X_OK):
        return _finding("home", False, f"{place} cannot be written", purpose, "name another --home", required=True)
    found = f"{output.size(free)} free at {output.near(home)}"
    if free < 2e9:
        return Finding("home", "note", found, purpose, "free space, or use another --home")
    return Finding("home", "ok", found, purpose, required=True)


def _file_system(place: Path) -> Iterator[Finding]:
    """What only a try in the home's file system tells."""
    copies, state = "copies of big packages take no space", "SQLite keeps sessions, rounds and tasks"
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".fedpkg-doctor-") as name:
            yield _try(lambda: _reflink(Path(name), copies), "reflink", copies)
            yield _try(lambda: _sqlite(Path(name), state), "sqlite", state)
    except OSError as error:
        yield Finding("sqlite", "note", f"cannot be tried: {error.strerror}", state)


def _try(check: Callable[[], Finding], name: str, purpose: str) -> Finding:
    try:
        return check()
    except (OSError, sqlite3.Error) as error:
        return Finding(name, "note", f"cannot be tried: {error}", purpose)


def _reflink(folder: Path, purpose: str) -> Finding:
    from fedpkg.files import reflink

    (folder / "a").write_bytes(bytes(1 << 16))
    with open(folder / "a", "rb") as source, open(folder / "b", "xb") as target:
        shares = reflink(source, target)
    return _finding("reflink", shares, "yes" if shares else "no: files are copied", purpose)


def _sqlite(folder: Path, purpose: str) -> Finding:
    connection = sqlite3.connect(folder / "try.db")
    try:
        mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
    finally:
        connection.close()
    found = f"{sqlite3.sqlite_version}, journal mode {mode}"
    if sqlite3.sqlite_version_info < (3, 24):
        advice = "3.24 or newer is needed: use a newer Python"
        return _finding("sqlite", False, found, purpose, advice, required=True)
    if mode != "wal":
        advice = "commands that show a session wait while it writes; put the home on a local disk"
        return Finding("sqlite", "note", found, purpose, advice, required=True)
    return Finding("sqlite", "ok", found, purpose, required=True)
