"""The cold executor: a new process for every task. It is the reference for the behaviour of all executors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpkg.compute_package.command import shell_line
from fedpkg.devices import Slot
from fedpkg.dispatch import isolation
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.keepers import Call, Keeper
from fedpkg.dispatch.package_files import inventory
from fedpkg.dispatch.site import Job, PackageOnDisk, Site
from fedpkg.dispatch.staging import StagedTask, base_environ, shared_files
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.means import means

COLD = "cold"


class ProcessLauncher:
    """Runs every command in bash. Its zygote imports nothing and only starts keepers."""

    is_warming = False

    def __init__(self, environment: Mapping[str, str], log_folder: Path, *, isolated: bool = False) -> None:
        self.isolated = isolated
        environ = base_environ(environment, threads=1)
        environ = isolation.passed(environ, environment) if isolated else environ
        apart = isolated and means().cold == "namespaces"
        self._zygote = Zygote(sys.executable, [], environ=environ, log=log_folder / "cold.log", apart=apart)

    def prepare(self, job: Job, staged: StagedTask) -> tuple[str, Call]:
        return COLD, shell_call(job, staged)

    def warm_program(self, package: PackageOnDisk, call: Call) -> None:
        """There are no warm interpreters."""

    def keeper(self, key: str) -> Keeper:
        return self._zygote.keeper(warm=False)

    def close(self) -> None:
        self._zygote.close()


def shell_call(job: Job, staged: StagedTask) -> Call:
    """The task's command as a call of bash."""
    order, place = job.order, job.place
    return Call(
        cwd=staged.cwd,
        environ=staged.environ,
        stdout=staged.stdout,
        stderr=staged.stderr,
        log_bytes=order.log_bytes,
        timeout_s=order.timeout_s,
        limits=order.limits,
        folders=(place.folder, place.version),
        given_files=inventory(job.package.root).files,
        shared_inodes=[path.stat().st_ino for path in shared_files(job)],
        shell=shell_line(staged.command, staged.appended),
    )


def process_executor(
    site: Site, *, slots: Sequence[Slot], environment: Mapping[str, str], log_folder: Path, isolated: bool = False
) -> LocalExecutor:
    """An executor that starts a new process for every task; with ``isolated``, for isolated tasks only."""
    launcher = ProcessLauncher(environment, log_folder, isolated=isolated)
    return LocalExecutor(site, launcher, slots=slots, folder=log_folder)
