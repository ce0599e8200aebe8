"""The warm executor: one interpreter per package runs the imports once and forks a child for every task."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpkg.compute_package.app import RUNNER, SERVER_RUNNER, module_called
from fedpkg.compute_package.arguments import without_braces
from fedpkg.compute_package.command import NotSimple, PythonCall, expand, is_python, python_call
from fedpkg.compute_package.imports import own_modules, sources_of
from fedpkg.devices import THREAD_VARIABLES, Gpu, Slot, visible_to
from fedpkg.dispatch import isolation
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.keepers import Call, Keeper
from fedpkg.dispatch.preload import LeftOut, Preload, is_slow, preloads_of
from fedpkg.dispatch.process import COLD, ProcessLauncher, shell_call
from fedpkg.dispatch.site import Job, PackageOnDisk, Site
from fedpkg.dispatch.staging import StagedTask, base_environ, of_clients
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError
from fedpkg.log import event
from fedpkg.means import means

logger = logging.getLogger("fedpkg.dispatch")

# Files that a library reads from the working directory at import; a zygote does not run in a client's directory.
READ_AT_IMPORT = {"matplotlibrc": "matplotlib", ".numba_config.yaml": "numba"}
NOT_SOURCE = (".pyc", ".pyz", ".zip")  # Python runs these too


class ForkserverLauncher:
    """Forks Python commands from a zygote; other commands run cold, and one warning gives the reason.

    With ``resident``, a forked interpreter runs one task after the other. ``gpus`` are the GPUs of all slots. With
    ``isolated``, only the interpreter that runs fedpkg is forked: modules of a package's own environment would run
    outside the walls while they are imported.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log_folder: Path,
        *,
        gpus: tuple[Gpu, ...] = (),
        resident: bool = False,
        isolated: bool = False,
    ) -> None:
        self.isolated = isolated
        self._gpus = gpus
        self._resident = resident
        self._environment = environment
        self._log_folder = log_folder
        self._lock = threading.Lock()
        self._preloads: dict[str, dict[str, Preload]] = {}  # by package
        self._zygotes: dict[str, Zygote] = {}
        self._calls: dict[tuple[str | None, ...], PythonCall] = {}
        self._cold: ProcessLauncher | None = None
        self._told: set[str] = set()
        self._closed = False

    def prestart(self, package: PackageOnDisk) -> None:
        """Start the package's zygotes in the background, before its first task arrives."""
        environ = base_environ(self._environment, threads=1, python=package.python)
        for call in calls_of(package, environ):
            if self._why_not_forked(call) is None:
                self._zygote(call, package)

    @property
    def is_warming(self) -> bool:
        return any(zygote.is_awaited for zygote in list(self._zygotes.values()))

    def prepare(self, job: Job, staged: StagedTask) -> tuple[str, Call]:
        command, cold = staged.command, shell_call(job, staged)
        try:
            python = self._read(job.command, command, staged.environ)
            if python.script and ((staged.cwd / python.script).is_dir() or python.script.endswith(NOT_SOURCE)):
                raise NotSimple(f"a script that is not Python source, {python.script!r}")
        except NotSimple as reason:
            if is_python(job.command):
                self._tell(f"'{job.command}' runs cold, with a new interpreter for every task, because of {reason}")
            return COLD, cold
        if why_cold := self._why_not_forked(python):
            self._tell(f"the package runs cold, with a new interpreter for every task: {why_cold}")
            return COLD, cold
        key, zygote, preload = self._zygote(python, job.package)
        greeting = zygote.ready()
        if self._closed:
            raise DispatchError("this executor is closed")
        if why_cold := greeting["why_cold"]:
            self._tell(f"the package runs cold, with a new interpreter for every task: {why_cold}")
            return COLD, cold
        slow = [one for one in preload.left_out if is_slow(one.module)]
        self._tell_what_is_left_out(slow, greeting["left_out"])
        return key, dataclasses.replace(
            cold,
            shell=None,
            script=python.script,
            module=python.module,
            args=(*python.args, *staged.appended),
            resident=self._resident and not slow and all(one["kind"] != "reads" for one in greeting["left_out"]),
            watch_imports=logger.isEnabledFor(logging.DEBUG),
        )

    def _read(self, given: str, command: str, environ: Mapping[str, str]) -> PythonCall:
        """A command as a call of Python, cached if it is the same in all calls.

        Raises NotSimple if it is something else.
        """
        if "$" in command or command != given:
            return python_call(expand(command, environ), environ)
        key = (command, environ.get("PATH"), environ.get("FEDPKG_PYTHON"))
        if key not in self._calls:
            self._calls[key] = python_call(expand(command, environ), environ)
        return self._calls[key]

    def warm_program(self, package: PackageOnDisk, call: Call) -> tuple[Zygote, Call] | None:
        """See `LocalExecutor.warm_program`. Only the program of a ServerApp is forked, from the zygote of its tasks."""
        try:
            program = python_call(expand(call.shell or "", call.environ), call.environ)
        except NotSimple:
            return None
        module = module_called(program.module, program.args)
        if self.isolated or program.module != SERVER_RUNNER or module is None:
            return None
        calls = calls_of(package, base_environ(self._environment, threads=1, python=package.python))
        task = next((one for one in calls if (one.module, one.interpreter) == (RUNNER, program.interpreter)), None)
        if task is None or not set(own_modules(call.cwd)) <= set(own_modules(package.folder)):
            return None
        _, zygote, preload = self._zygote(task, package)
        own = preloads_of(call.cwd, (), apps={SERVER_RUNNER: module})[f"-m {SERVER_RUNNER}"]
        if not preload.suits(own) or zygote.ready()["why_cold"]:
            return None
        return zygote, dataclasses.replace(call, shell=None, module=program.module, args=program.args)

    def keeper(self, key: str) -> Keeper:
        if key == COLD:
            with self._lock:
                if self._closed:
                    raise DispatchError("this executor is closed")
                if self._cold is None:
                    self._cold = ProcessLauncher(self._environment, self._log_folder, isolated=self.isolated)
            return self._cold.keeper(COLD)
        return self._zygotes[key].keeper(warm=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for zygote in self._zygotes.values():
                zygote.close()
            if self._cold is not None:
                self._cold.close()

    def _why_not_forked(self, python: PythonCall) -> str | None:
        """Why a task of that interpreter must not be forked, or None."""
        if not self.isolated:
            return None
        if Path(python.interpreter).parent != Path(sys.executable).parent:
            return f"its tasks are isolated, and {python.interpreter} is not the interpreter that runs fedpkg"
        return None if means().warm is not None else "its tasks are isolated, and only bubblewrap can do that here"

    def _zygote(self, python: PythonCall, package: PackageOnDisk) -> tuple[str, Zygote, Preload]:
        with self._lock:
            if self._closed:
                raise DispatchError("this executor is closed")
            if package.digest not in self._preloads:
                self._preloads[package.digest] = preloads_for(package, settings=not self.isolated)
            preload = self._preloads[package.digest].get(_name(python), NOTHING)
            key = f"{python.interpreter} {package.digest} {' '.join(preload.scripts)}"
            if key not in self._zygotes:
                scripts = scripts_of(package)
                environ = _zygote_environ(self._environment, self._gpus, package.python)
                self._zygotes[key] = Zygote(
                    python.interpreter,
                    preload.steps,
                    forbidden=[module for file, module in READ_AT_IMPORT.items() if (package.folder / file).exists()],
                    of_clients=of_clients(self._environment),
                    own=own_modules(package.folder, scripts),
                    sources=sources_of(package.folder, scripts),
                    environ=isolation.passed(environ, self._environment) if self.isolated else environ,
                    log=self._log_folder / f"warm-{len(self._zygotes)}.log",
                    apart=self.isolated and means().warm == "namespaces",
                )
            return key, self._zygotes[key], preload

    def _tell_what_is_left_out(self, by_reading: Sequence[LeftOut], by_trying: Sequence[Mapping[str, Any]]) -> None:
        """Log one warning for each reason why modules are not preloaded."""
        reasons: dict[tuple[str, bool], list[str]] = {}
        for one in by_reading:
            reasons.setdefault((one.because, one.nested), []).append(one.module)
        for (because, nested), modules in reasons.items():
            stays = ", and every task gets a new interpreter" if self._resident else ""
            what = f"every task {'that needs it ' * nested}imports {', '.join(modules)} again{stays}"
            hint = "move it below the imports if it does not have to come first"
            if nested:
                hint = "move the import out of its function, above that line, if every task needs it"
            self._tell(f"{what}, because {because}, which could change the import: {hint}", "executor.left_out")
        why_bad = {
            "threads": "and forking a process with threads is unsafe",
            "imports": "which reads a file in the package's folder",
            "reads": "which differs between clients",
        }
        for left in by_trying:
            if reason := why_bad.get(left["kind"]):
                place = "in every interpreter" if self._resident and left["kind"] == "threads" else "in every task"
                what = f"{left['module']} is imported again {place} (about {left['seconds']:.1f} s)"
                self._tell(f"{what}, because {left['why']}, {reason}; the other imports stay warm", "executor.left_out")
            else:
                event(logger, logging.DEBUG, "executor.left_out", module=left["module"], reason=left["why"])

    def _tell(self, message: str, what: str = "executor.cold") -> None:
        with self._lock:
            if message in self._told:
                return
            self._told.add(message)
        event(logger, logging.WARNING, what, reason=message)


NOTHING = Preload((), ())  # for scripts that are not found in the package's commands


def calls_of(package: PackageOnDisk, environ: Mapping[str, str]) -> list[PythonCall]:
    """The package's commands that are calls of Python."""
    found = []
    for entry_point in package.spec.entry_points.values():
        try:
            found.append(python_call(expand(without_braces(entry_point.command), environ), environ))
        except NotSimple:
            continue
    return found


def scripts_of(package: PackageOnDisk) -> list[str]:
    """Scripts that the package's Python commands name, relative to its folder."""
    calls = calls_of(package, base_environ({}, threads=1, python=package.python))
    named = [call.script for call in calls if call.script is not None and not Path(call.script).is_absolute()]
    return list(dict.fromkeys(named))


def preloads_for(package: PackageOnDisk, *, settings: bool = True) -> dict[str, Preload]:
    """What is preloaded for each script, and for each module (``-m name``), that the package's commands run."""
    calls = calls_of(package, base_environ({}, threads=1, python=package.python))
    modules = dict.fromkeys(call.module for call in calls if call.module is not None)
    called = {call.module: module_called(call.module, call.args) for call in calls if call.module is not None}
    apps = {program: module for program, module in called.items() if module is not None}
    return preloads_of(package.folder, scripts_of(package), modules, apps=apps, settings=settings)


def _name(call: PythonCall) -> str:
    return call.script or f"-m {call.module}"


def _zygote_environ(environment: Mapping[str, str], gpus: tuple[Gpu, ...], python: Path | None) -> dict[str, str]:
    environ = {**base_environ(environment, threads=1, python=python), **visible_to(gpus)}
    environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # threads do not survive a fork
    if gpus:  # otherwise torch.cuda.is_available() in an imported module would keep the children from using CUDA
        environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # malloc uses huge pages as it grows, which halves the memory that the zygote has to move into them at the end.
    tunables = [environ.get("GLIBC_TUNABLES", ""), "glibc.malloc.hugetlb=1"]
    environ["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
    return environ


def gpus_of(slots: Sequence[Slot]) -> tuple[Gpu, ...]:
    """The GPUs of all slots, each once."""
    return tuple(dict.fromkeys(gpu for slot in slots for gpu in slot.gpus))


def forkserver_executor(
    site: Site,
    *,
    slots: Sequence[Slot],
    environment: Mapping[str, str],
    log_folder: Path,
    package: PackageOnDisk,
    isolated: bool = False,
) -> LocalExecutor:
    """An executor that forks Python tasks from a warm interpreter, which starts in the background at once.

    With ``isolated`` it runs isolated tasks only.
    """
    launcher = ForkserverLauncher(environment, log_folder, gpus=gpus_of(slots), isolated=isolated)
    launcher.prestart(package)
    return LocalExecutor(site, launcher, slots=slots, folder=log_folder)
