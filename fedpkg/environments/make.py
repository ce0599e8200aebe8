"""Virtual environments, one for each set of contents, made once and shared by all homes.

An environment is made at its final path (it cannot be moved, as its scripts contain the path of the interpreter) and is
valid once its record, which is written last, exists. The programs that make it inherit its lock: if fedpkg is killed,
the next maker waits until these have ended, too, and starts again.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from fedpkg.environments.interpreter import Interpreter, find_uv
from fedpkg.environments.resolve import Run, explain, has_gpus, resolve, sources_of_pip
from fedpkg.environments.wanted import Item, Wanted
from fedpkg.errors import EnvironmentFailed, NotFound, StoreError
from fedpkg.files import NO_SPACE, atomic_write, remove_tree, sha256_file
from fedpkg.log import event

logger = logging.getLogger("fedpkg.environments")

VARIABLE = "FEDPKG_ENVIRONMENTS"
RECORD = "fedpkg-environment.json"
_USED = "fedpkg-used"  # an empty file; its mtime is the time of the last use
FORMAT = 1  # of the content that is digested
_ID = re.compile(r"[0-9a-f]{32}")
_TAIL_LINES = 15
_LOOKS_EVERY_S = 0.1  # between two calls of `check`
# Variables of the user that would interfere while an environment is made.
_BENDING = (
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
)
_OF_PIP = (
    "uv is not installed, so fedpkg uses pip, which cannot tell the download size, choose the PyTorch build for this "
    "machine or find an older Python that would work; `pip install uv` adds all three"
)


@dataclass(frozen=True)
class Environment:
    """The record of a finished environment."""

    environment_id: str
    python: str  # version
    requirements: tuple[str, ...]
    installed: tuple[str, ...]  # name==version
    source: str  # the package and file that it was first made for
    maker: str
    created_at: float
    seconds: float


def environments_folder() -> Path:
    """The folder of environments: ``$FEDPKG_ENVIRONMENTS``, or a folder in the user's cache."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "fedpkg" / "environments"


def environment_id(wanted: Wanted, interpreter: Interpreter, *, for_gpus: bool = False) -> str:
    """The digest of all that determines an environment: requirements, the bytes of wheels, the interpreter.

    ``for_gpus``: of a second environment beside one that was made on a machine without GPUs.
    """
    content = {
        "format": FORMAT,
        "requirements": sorted({_as_text(item) for item in (*wanted.build_items, *wanted.items)}),
        "python": [interpreter.version, *interpreter.build],
        **({"gpus": True} if for_gpus else {}),
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _as_text(item: Item) -> str:
    wheel = () if item.wheel is None else (item.wheel.name, sha256_file(item.wheel))
    return " ".join((str(item.requirement), *wheel, *item.hashes))


def have_environment(
    wanted: Wanted,
    interpreter: Interpreter,
    root: Path,
    *,
    package: str,
    only_wheels: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """The ``python`` of the environment with these requirements, which is made if it does not exist.

    Args:
        check: called repeatedly meanwhile. An exception that it raises stops the making.

    Raises:
        EnvironmentFailed: it cannot be made; with the end of the installer's output. Its files are removed.
    """
    name = environment_id(wanted, interpreter)
    if _has_no_cuda(root / name) and has_gpus():  # machines may share the user's folder
        name = environment_id(wanted, interpreter, for_gpus=True)
    folder = root / name
    if not _is_there(folder):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _lock(root / f"{name}.lock", folder, check):
                if not _is_there(folder):
                    run = functools.partial(_run, folder=folder, package=package, check=check)
                    _make(wanted, interpreter, folder, run, package=package, only_wheels=only_wheels)
        except OSError as error:
            what = "the disk is full" if error.errno in NO_SPACE else error.strerror or str(error)
            raise StoreError(
                f"the folder of environments {root} cannot be used: {what}",
                hint=f"free space, make the folder writable, or set {VARIABLE} to another folder",
                path=str(root),
            ) from error
    with suppress(OSError):  # the folder may belong to another user
        (folder / _USED).touch()
    return python_of(folder)


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def _is_there(folder: Path) -> bool:
    """Whether it is finished, and its interpreter has not been uninstalled since."""
    return (folder / RECORD).is_file() and os.access(python_of(folder), os.X_OK)


def _has_no_cuda(folder: Path) -> bool:
    """Whether its PyTorch is a build for machines without GPUs."""
    with suppress(OSError, ValueError):
        return re.search(r'"torch==[^"]*\+cpu"', (folder / RECORD).read_text()) is not None
    return False


@contextmanager
def _lock(path: Path, folder: Path, check: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock for making or removing that environment.

    It is not a lock of filelock, as the programs that make an environment must hold it, too (``_run``).

    Args:
        check: called repeatedly while another process holds the lock; None: do not wait for it.

    Raises:
        BlockingIOError: another process holds the lock, and there is no ``check``.
    """
    fd = _take(path, folder, check)
    _held[folder] = fd
    try:
        yield
    finally:
        del _held[folder]
        os.close(fd)
        with suppress(OSError):  # the file stays if a program that makes the environment is still running
            os.close(_take(path, folder, None, remove=True))


def _take(path: Path, folder: Path, check: Callable[[], None] | None, *, remove: bool = False) -> int:
    waits = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if check is None:
                raise
            if not waits:
                event(logger, logging.INFO, "environment.waiting", folder=folder, reason="another process is making it")
            waits = True
            check()
            time.sleep(_LOOKS_EVERY_S)
            continue
        if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
            if remove:
                path.unlink()
            return fd
        os.close(fd)  # the previous holder has removed the file


_held: dict[Path, int] = {}  # folder of an environment → its lock


def _make(
    wanted: Wanted,
    interpreter: Interpreter,
    folder: Path,
    run: Run,
    *,
    package: str,
    only_wheels: bool,
) -> None:
    uv = find_uv()
    maker = "uv" if uv else "pip"
    _tell_making(wanted, interpreter, folder, package=package, maker=maker)
    started = time.monotonic()
    try:
        remove_tree(folder)  # left by an interrupted making
        try:
            _fill(wanted, interpreter, folder, run, uv=uv, only_wheels=only_wheels)
        except EnvironmentFailed as error:
            explain(error, wanted, interpreter, folder, run, uv=uv, package=package)
            raise
        seconds = time.monotonic() - started
        made = Environment(
            environment_id=folder.name,
            python=interpreter.version,
            requirements=tuple(str(item) for item in wanted.items),
            installed=tuple(_installed(folder)),
            source=f"{package}: {wanted.source}",
            maker=maker,
            created_at=time.time(),
            seconds=seconds,
        )
        os.sync()  # its files must be on disk before its record; fsync of thousands of files would take longer
        with atomic_write(folder / RECORD) as file:
            file.write(json.dumps(asdict(made), indent=1).encode())
    except BaseException:
        remove_tree(folder)
        raise
    event(logger, logging.INFO, "environment.made", seconds=seconds, distributions=len(made.installed), folder=folder)


def _tell_making(wanted: Wanted, interpreter: Interpreter, folder: Path, *, package: str, maker: str) -> None:
    facts = {"asked_by": wanted.source, "python": interpreter.version, "requirements": str(len(wanted.items))}
    event(logger, logging.INFO, "environment.making", package=package, **facts, maker=maker, folder=folder)
    if maker == "pip":
        event(logger, logging.INFO, "environment.pip", about=_OF_PIP)


def _fill(
    wanted: Wanted,
    interpreter: Interpreter,
    folder: Path,
    run: Run,
    *,
    uv: str | None,
    only_wheels: bool,
) -> None:
    if uv:
        run([uv, "venv", "--quiet", "--no-project", "--python", str(interpreter.path), str(folder)])
    else:
        run([str(interpreter.path), "-I", "-m", "venv", str(folder)])
    asked = folder / "requirements.txt"
    asked.write_text("".join(f"{line}\n" for line in _lines((*wanted.build_items, *wanted.items))))
    python, what = str(python_of(folder)), ["-r", str(asked), *(["--only-binary=:all:"] if only_wheels else [])]
    if uv:  # compile now, as tasks write no bytecode, and each warm interpreter would need 6 s to compile PyTorch
        options = ["--quiet", "--compile-bytecode", "--python", python]
        options += resolve(uv, wanted, folder, run, only_wheels=only_wheels)
        run([uv, "pip", "install", *options, *what])
    else:
        pip = [python, "-I", "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
        run([*pip, "--progress-bar=off", *what])


def _lines(items: Iterable[Item]) -> Iterator[str]:
    """Lines of a requirements file. The installer gets only these, never the package's own files."""
    for item in items:
        requirement = item.requirement
        line = str(requirement)
        if item.wheel is not None:
            marker = f" ; {requirement.marker}" if requirement.marker else ""
            line = f"{requirement.name} @ {item.wheel.resolve().as_uri()}{marker}"
        yield " ".join((line, *(f"--hash={one}" for one in item.hashes)))


def _run(
    command: Sequence[str],
    environ: Mapping[str, str] = MappingProxyType({}),
    *,
    folder: Path,
    package: str,
    check: Callable[[], None],
) -> None:
    """Run a program that makes an environment, with the variables ``environ`` added.

    Raises:
        EnvironmentFailed: the program failed; with the end of its output.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        with ThreadPoolExecutor(1) as pool:  # in a thread, as a Ctrl-C during the start would lose the process
            pool.submit(int).result()  # now the thread has started
            pool.submit(lambda: started.append(_start(command, folder, environ))).result()
        (process,) = started
        output = _output_of(process, check)
    except BaseException:
        for process in started:
            with process, suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        said = output.decode(errors="replace").strip().splitlines() or ["(no output)"]
        tail = "\n".join(f"    {line}" for line in said[-_TAIL_LINES:])
        program = " ".join(Path(command[0]).name if word == command[0] else word for word in command)
        raise EnvironmentFailed(
            f"the environment of package {package} cannot be made: exit code {process.returncode} of\n"
            f"    {program}\n{tail}",
            hint="correct its requirements, or use `--env current` to run it with the Python that runs fedpkg",
            command=list(command),
            output=output.decode(errors="replace")[-4000:],
        )


def _start(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=folder.parent,  # not in the package, where uv would read its configuration
        env={n: v for n, v in os.environ.items() if n not in _BENDING} | sources_of_pip() | dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[_held[folder]],
        start_new_session=True,
    )


def _output_of(process: subprocess.Popen[bytes], check: Callable[[], None]) -> bytes:
    while True:
        check()
        with suppress(subprocess.TimeoutExpired):  # without a timeout, a Ctrl-C just before the read would be lost
            return process.communicate(timeout=_LOOKS_EVERY_S)[0]


def _installed(folder: Path) -> Iterator[str]:
    """``name==version`` of each distribution of an environment."""
    from importlib import metadata

    places = [str(path) for path in folder.glob("lib/python3*/site-packages")]
    yield from sorted(f"{one.metadata['Name']}=={one.version}" for one in metadata.distributions(path=places))


# ---- existing environments


def list_environments(root: Path) -> list[Environment]:
    """The finished environments, the oldest first."""
    found = []
    for record in root.glob(f"*/{RECORD}"):
        with suppress(OSError, ValueError, TypeError):  # just removed, or not made by fedpkg
            facts = json.loads(record.read_bytes())
            found.append(Environment(**{**facts, "environment_id": record.parent.name}))
    return sorted(found, key=lambda environment: environment.created_at)


def unfinished(root: Path) -> list[str]:
    """The ids of environments that are being made, or whose making was interrupted."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if _ID.fullmatch(path.name) and not (path / RECORD).exists())


def used_at(root: Path, made: Environment) -> float:
    """When an environment was last chosen for a package."""
    try:
        return (root / made.environment_id / _USED).stat().st_mtime
    except OSError:
        return made.created_at


def unused(root: Path, since: float) -> list[str]:
    """Environments that were last used before ``since``, and those whose making was interrupted.

    Environments that are being made, or in which a program runs, are left out.
    """
    old = [one.environment_id for one in list_environments(root) if used_at(root, one) < since]
    return [name for name in (*old, *unfinished(root)) if not _is_busy(root, name)]


def _is_busy(root: Path, name: str) -> bool:
    try:
        with _lock(root / f"{name}.lock", root / name):
            pass
    except BlockingIOError:
        return True
    folder = os.fsencode(root / name)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if (process / "cmdline").read_bytes().startswith(folder + b"/"):
                return True
            if b"\0VIRTUAL_ENV=" + folder + b"\0" in b"\0" + (process / "environ").read_bytes():
                return True
    return False


def remove_environment(root: Path, name: str) -> None:
    """Remove an environment. A session that needs it later makes it again.

    Raises:
        NotFound: it does not exist.
        StoreError: it is being made.
    """
    folder = root / name
    if not _ID.fullmatch(name) or not folder.is_dir():
        raise NotFound(f"there is no environment {name} in {root}", hint="`fedpkg environment list` lists them")
    try:
        with _lock(root / f"{name}.lock", folder):
            (folder / RECORD).unlink(missing_ok=True)  # first: an interrupted removal leaves nothing valid
            remove_tree(folder)
    except BlockingIOError:
        raise StoreError(f"environment {name} is being made", hint="wait until it is finished, or stop it") from None


def size_bytes(folder: Path) -> int:
    """The size of all its files, including files that uv shares with its cache."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def has_pip() -> bool:
    """Whether this Python can make environments without uv."""
    from importlib.util import find_spec

    return find_spec("venv") is not None and find_spec("ensurepip") is not None


def find_ids(root: Path, beginnings: Sequence[str]) -> list[str]:
    """The full ids of environments that are named by the beginning of their ids.

    Raises:
        NotFound: no id, or more than one, begins with a text.
    """
    known = [environment.environment_id for environment in list_environments(root)] + unfinished(root)
    ids = []
    for beginning in beginnings:
        matches = [one for one in dict.fromkeys(known) if one.startswith(beginning)]
        if len(matches) != 1:
            what = "no environment begins" if not matches else f"{len(matches)} environments begin"
            raise NotFound(f"{what} with '{beginning}' in {root}", hint="`fedpkg environment list` lists them")
        ids += matches
    return ids
