"""What an isolated task may see of this machine, and by which means it is isolated.

``runtime/path/_fedpkg_isolation.py`` sets up the walls in the task's own process, or bubblewrap does.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpkg.dispatch.keepers import Call
from fedpkg.dispatch.site import Job
from fedpkg.dispatch.staging import shared_files
from fedpkg.errors import NotIsolated
from fedpkg.fedn.names import DATA_PATHS
from fedpkg.files import remove_tree
from fedpkg.means import BARE, means
from fedpkg.waist.order import Isolation

RUNTIME = Path(__file__).resolve().parent.parent / "runtime"
OURS = tuple(
    str(RUNTIME.parent / name)
    for name in ("runtime", "client", "records", "apps", "analytics", "partitions", "errors.py", "__init__.py")
)  # what a task imports of fedpkg


# ---------------------------------------------------------------- what it may see

# Programs and libraries. Tasks do not need the rest of /etc, and some of it is secret.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone", "locale.alias"),
    *("passwd", "group", "nsswitch.conf", "os-release", "fonts", "mime.types", "R", "OpenCL", "ssl", "pki"),
    *("ca-certificates", "crypto-policies"),
)
_ETC_FOR_NETWORK = ("resolv.conf", "hosts", "host.conf", "gai.conf", "services", "protocols")
_SYS = ("/sys/devices/system", "/sys/kernel/mm/transparent_hugepage")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_DEVICES = ("nvidia", "kfd", "dri", "dxg")  # prefixes of names in /dev
_OF_A_PREFIX = ("bin", "lib", "lib64", "libexec", "include", "ssl", "pyvenv.cfg")  # the rest may be a project
# Variables of the user's environment that a task gets; others may be secrets. Variables of the run are all passed.
_PASSED = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TERM|USER|LOGNAME|HOSTNAME|SHELL|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX|PYTHON\w+"
    r"|(OMP|GOMP|KMP|MKL|OPENBLAS|NUMEXPR|VECLIB|BLIS|MALLOC|GLIBC|CUDA|CUBLAS|CUDNN|NVIDIA|NCCL|HIP|ROCR|PYTORCH"
    r"|TORCH|ATEN|NUMBA|XLA)_\w+|R_(HOME|LIBS\w*)|JAVA_HOME|SSL_CERT_(FILE|DIR)"
    rf"|{'|'.join(DATA_PATHS)}|FEDPKG_(TASK|STATE_DIR|SEED|PYTHON)"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)  # such as NVIDIA_API_KEY


@dataclass(frozen=True)
class View:
    """Files and folders by their real paths, and the symbolic links that lead to them.

    ``folders`` are passed on the way (``folder/../other``): they must exist, and can be empty.
    """

    read: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Reach:
    """What an isolated call may access besides the system's programs.

    Args:
        own: folders that it may write to.
        read: files and folders that it may read.
        wanted: environment variables that it gets in addition to harmless ones.
        guarded: files in its own folders that are read-only.
        links: absolute paths that lead to something that it may read.
    """

    own: Sequence[Path]
    read: Sequence[Path]
    wanted: Iterable[str]
    guarded: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)


class Walls:
    """Turns calls of an executor into isolated calls, and cleans up after them in its private ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = folder / "root"  # each task mounts its view here, in its own mount namespace
        self._gone: dict[str, list[Path]] = {}  # by task: folders to remove
        self._root.mkdir(parents=True, exist_ok=True)

    def confine(self, call: Call, job: Job) -> Call:
        """The call of a staged task, restricted to what the task may see.

        Raises:
            NotIsolated: the call cannot be isolated.
        """
        isolation = job.order.isolation
        assert isolation is not None
        data = [] if job.data_path is None else [job.data_path]
        data += [job.links[name] for name, to in job.order.links.items() if to.startswith("/")]
        # Links that are outside its folder.
        data += [Path(os.path.normpath(job.working_folder / name)) for name in job.linked if name.startswith("../..")]
        reach = Reach(
            own=(job.place.folder, job.place.version),
            read=data,
            wanted=job.order.environment,
            # The task, as their owner, could make them writable, and all clients share these files.
            guarded=[os.path.realpath(path) for path in shared_files(job)],
            links={name: str(target) for name, target in job.links.items() if name.startswith("/")},
        )
        call = self.around(call, isolation, reach, scratch=job.place.scratch)
        assert call.isolation is not None
        record = _note(job, call.isolation)
        file = _file(job.place.task_json)
        return dataclasses.replace(call, isolation={**call.isolation, "record": record, "record_file": file})

    def around(self, call: Call, isolation: Isolation, reach: Reach, *, scratch: Path) -> Call:
        """A call restricted to ``reach``; ``scratch``, below an own folder, holds its /tmp, /dev/shm and home.

        Raises:
            NotIsolated: the call cannot be isolated.
        """
        by = means().warm if call.shell is None else means().cold
        if by is None:
            raise NotIsolated("this machine cannot isolate tasks")
        programs = _system(call.environ["PATH"], call.environ.get("FEDPKG_PYTHON"), isolation.network)
        view = trace((*programs, *isolation.read, *map(str, (*reach.read, *reach.own))))
        write = [os.path.realpath(folder) for folder in reach.own]
        reads = _without(write, view.read)
        _check_links(reach.links, by, (*reads, *write, *view.folders, *(path for path, _ in view.links)))
        held = os.path.join(os.path.realpath(scratch.parent), scratch.name)
        for name in ("", "tmp", "shm", "home"):
            os.mkdir(os.path.join(held, name))
        walls: dict[str, Any] = {
            "by": by,
            "network": isolation.network,
            "read": reads,
            "links": (*view.links, *reach.links.items()),
            "folders": view.folders,
            "write": write,
            "guarded": reach.guarded,
            "devices": _devices(gpus=bool(call.environ.get("CUDA_VISIBLE_DEVICES"))),
            "empty": {"/tmp": os.path.join(held, "tmp"), "/dev/shm": os.path.join(held, "shm")},
            "root": os.path.realpath(self._root),
        }
        if by == "bubblewrap":
            walls["argv"] = _bubblewrap(walls, call.cwd)
        return _replace(call, walls, reach.wanted, held)

    def put_back(self, job: Job, call: Call) -> None:
        """Remove the scratch of a call whose processes have ended, and restore the task's record."""
        assert call.isolation is not None
        os.chmod(job.place.folder, 0o700)
        gone = self._folder / os.urandom(8).hex()
        self._gone.setdefault(job.task_id, []).append(gone)
        try:
            job.place.scratch.rename(gone)
        except OSError:  # the task has changed it, or it is on another file system
            remove_tree(job.place.scratch)
        path, record = job.place.task_json, call.isolation["record"]  # the user may repeat the task with it
        if _file(path) != call.isolation["record_file"] or path.read_bytes() != record.encode():
            remove_tree(path)
            path.write_text(record)

    def sweep(self, job: Job) -> None:
        """Remove the scratch of a task after its result was sent, as this may take long."""
        for gone in self._gone.pop(job.task_id, ()):
            with suppress(OSError):  # otherwise `clear` does it
                remove_tree(gone)

    def clear(self) -> None:
        remove_tree(self._folder)


def _without(own: Sequence[str], seen: Sequence[str]) -> list[str]:
    """What a task may only read. Raises NotIsolated if that includes one of its own folders."""
    reads = [path for path in seen if path not in own]
    for path in reads:
        for folder in own:
            if folder.startswith(path.rstrip("/") + "/"):
                raise NotIsolated(f"the task may read {path}, which holds its own folder {folder} and other clients'")
    return reads


def _check_links(links: Mapping[str, str], by: str, seen: Iterable[str]) -> None:
    """Raise NotIsolated if links are impossible at these paths, as the task sees something else there."""
    if links and by == "landlock":
        raise NotIsolated(f"{next(iter(links))}: data cannot be linked there if only Landlock isolates the task")
    taken = [path.rstrip("/") + "/" for path in (*seen, "/proc", "/dev", "/tmp")]
    for link in links:
        if other := next(
            (path for path in taken if (link + "/").startswith(path) or path.startswith(link + "/")), None
        ):
            raise NotIsolated(f"data cannot be linked at {link}: an isolated task sees {other.rstrip('/')} there")


def _file(path: Path) -> tuple[int, ...]:
    """Tells whether a path leads to the same file as before, with the same permissions and size, and no other links."""
    try:
        facts = path.lstat()
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_mode, facts.st_uid, facts.st_nlink, facts.st_size


def _note(job: Job, walls: Mapping[str, Any]) -> str:
    """Record in task.json how the task was isolated; its new content."""
    path = job.place.task_json
    what = {"by": walls["by"], "network": walls["network"], "landlock": means().landlock}
    record = json.dumps({**json.loads(path.read_bytes()), "isolation": what})
    path.write_text(record)
    return record


def _replace(call: Call, walls: dict[str, Any], wanted: Iterable[str], scratch: str) -> Call:
    environ = passed(call.environ, wanted)
    # A short path if possible, as paths of Unix sockets have at most 107 bytes.
    environ["TMPDIR"] = os.path.join(scratch, "tmp") if walls["by"] == "landlock" else "/tmp"
    environ.setdefault("HOME", os.path.join(scratch, "home"))
    if site.ENABLE_USER_SITE:  # which Python looks for in HOME
        environ.setdefault("PYTHONUSERBASE", site.getuserbase())
    return dataclasses.replace(call, environ=environ, isolation=walls)


def passed(environ: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """The variables that an isolated task gets: none that may be a secret, unless it is ``wanted``."""
    wanted = frozenset(wanted)
    harmless = (name for name in environ if _PASSED.fullmatch(name) and not _SECRET.search(name))
    return {name: environ[name] for name in dict.fromkeys((*harmless, *filter(environ.__contains__, wanted)))}


def remark(job: Job, log_tail: str) -> str:
    """An addition to the message of a failed task whose log contains an error that isolation can cause."""
    if job.order.isolation is not None:
        for number in (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.EXDEV):
            if os.strerror(number) in log_tail:
                return f"; the task was isolated, and its log contains {os.strerror(number)!r}"
    return ""


@functools.lru_cache(maxsize=16)
def _system(path: str, python: str | None, network: bool) -> tuple[str, ...]:
    """What every task may read: the system's programs, and the interpreters on ``path`` with their libraries."""
    names = (*_ETC, *(_ETC_FOR_NETWORK if network else ()))
    found = [*SYSTEM, *(f"/etc/{name}" for name in names), *_SYS, *OURS]
    for prefix in (sys.prefix, sys.base_prefix):
        found += [os.path.join(prefix, name) for name in _OF_A_PREFIX]
    found += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sys.executable]
    found += [folder for folder in sys.path if os.path.basename(folder) in ("site-packages", "dist-packages")]
    for name in filter(None, ("python", "python3", python)):
        if (program := shutil.which(name, path=path)) is not None:
            found += _of_python(Path(program))
    return tuple(dict.fromkeys(os.path.abspath(one) for one in found if os.path.lexists(one)))


def _of_python(python: Path) -> list[str]:
    """The folders of an interpreter, and of the interpreter that its virtual environment is based on."""
    found = [str(python)]
    homes = [python.parent, python.resolve().parent]
    try:
        for line in (python.parent.parent / "pyvenv.cfg").read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                homes.append(Path(value.strip()))
    except (OSError, UnicodeDecodeError):
        pass
    for home in homes:
        prefix = home.parent
        if (prefix / "pyvenv.cfg").exists() or any(prefix.glob("lib/python3*")):
            found += [str(prefix / name) for name in _OF_A_PREFIX]
    return found


def _devices(*, gpus: bool) -> list[str]:
    more = [entry.path for entry in os.scandir("/dev") if entry.name.startswith(_GPU_DEVICES)] if gpus else []
    return [path for path in (*_DEVICES, *sorted(more)) if os.path.exists(path)]


def trace(paths: Iterable[str]) -> View:
    """What these paths need: the links on the way, and the files and folders that they lead to."""
    links: dict[str, str] = {}
    folders: dict[str, None] = {}  # an ordered set
    real: dict[str, None] = {}
    for path in paths:
        found, passed_by, end = _way(path)
        links.update(found)
        folders.update(dict.fromkeys(passed_by))
        if end is not None:
            real[end] = None
    read: list[str] = []
    for path in sorted(real):
        if not (read and (path + "/").startswith(read[-1].rstrip("/") + "/")):  # a parent is included already
            read.append(path)
    below = [path.rstrip("/") + "/" for path in read]
    kept = ((path, target) for path, target in sorted(links.items()) if not path.startswith(tuple(below)))
    missing = (path for path in sorted(folders) if not (path + "/").startswith(tuple(below)))
    return View(tuple(read), tuple(kept), tuple(missing))


@functools.lru_cache(maxsize=512)
def _way(path: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...], str | None]:
    """The links on the way to ``path``, folders that are entered and left again, and the real path if it exists.

    As in the kernel, ``..`` after a link is the parent of the link's target.
    """
    links: list[tuple[str, str]] = []
    folders: list[str] = []
    done, left = "", os.path.join(os.getcwd(), path).split("/")[::-1]
    while left and len(links) < 40:
        part = left.pop()
        step = f"{done}/{part}"
        if part in ("", "."):
            continue
        if part == "..":
            folders.append(done)
            done = os.path.dirname(done).rstrip("/")
        elif os.path.islink(step):
            target = os.readlink(step)
            links.append((step, target))
            left += target.split("/")[::-1]
            done = "" if target.startswith("/") else done
        else:
            done = step
    folders = [folder for folder in folders if folder]
    return tuple(links), tuple(folders), done if os.path.exists(done) and not left else None


def _bubblewrap(walls: Mapping[str, Any], cwd: Path) -> list[str]:
    program = means().bubblewrap
    assert program is not None
    words = [program, *BARE, *(() if walls["network"] else ("--unshare-net",))]
    mounts: dict[str, tuple[str, ...]] = dict.fromkeys(walls["folders"], ("--dir",))
    mounts.update({path: ("--ro-bind", path) for path in (*walls["read"], *walls["guarded"])})
    mounts.update({path: ("--dev-bind", path) for path in walls["devices"] if path not in _DEVICES})
    mounts.update({path: ("--bind", path) for path in walls["write"]})
    mounts.update({path: ("--bind", source) for path, source in walls["empty"].items()})
    mounts.update({path: ("--symlink", target) for path, target in walls["links"]})
    for path, option in sorted(mounts.items()):  # folders come before their contents
        words += [*option, path]
    for path, is_folder in means().covered:
        words += ["--ro-bind", walls["root"] if is_folder else "/dev/null", path]
    # Root owns /proc/sys, also in bubblewrap's user namespace.
    return [*words, "--remount-ro", "/proc", "--remount-ro", "/", "--chdir", str(cwd)]
