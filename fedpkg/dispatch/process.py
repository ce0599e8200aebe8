"""The cold executor: a new interpreter, or whatever the command is, for every task. The reference for behaviour."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpkg.devices import Slot
from fedpkg.dispatch import isolation
from fedpkg.dispatch.base import Task
from fedpkg.dispatch.command import shell_line
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.keepers import Call, Keeper, Zygote
from fedpkg.dispatch.package_files import inventory
from fedpkg.dispatch.staging import StagedTask, base_environ, shared_files

COLD = "cold"


class ProcessLauncher:
    """Hands every command to bash. Its zygote imports nothing: it is there as the reaper of what tasks leave behind."""

    is_warming = False

    def __init__(self, environment: Mapping[str, str], log_folder: Path, *, isolated: bool = False) -> None:
        self.isolated = isolated
        environ = base_environ(environment, threads=1)
        environ = isolation.passed(environ, environment) if isolated else environ
        apart = isolated and isolation.means().cold == "namespaces"
        self._zygote = Zygote(sys.executable, [], environ=environ, log=log_folder / "cold.log", apart=apart)

    def prepare(self, task: Task, staged: StagedTask) -> tuple[str, Call]:
        return COLD, shell_call(task, staged)

    def keeper(self, key: str) -> Keeper:
        return self._zygote.keeper(warm=False)

    def close(self) -> None:
        self._zygote.close()


def shell_call(task: Task, staged: StagedTask) -> Call:
    """The task's command, as bash runs it."""
    command = task.package.spec.entry_point(task.entry_point).command
    return Call(
        cwd=staged.cwd,
        environ=staged.environ,
        stdout=staged.stdout,
        stderr=staged.stderr,
        log_bytes=task.log_bytes,
        timeout_s=task.timeout_s,
        limits=task.limits,
        folders=(task.folder, task.next_state),
        given_files=inventory(task.package.root).files,
        shared_inodes=[path.stat().st_ino for path in shared_files(task)],
        shell=shell_line(command, staged.appended),
    )


def process_executor(
    *, slots: Sequence[Slot], environment: Mapping[str, str], log_folder: Path, isolated: bool = False
) -> LocalExecutor:
    """An executor that starts a new process for every task; with ``isolated``, for isolated tasks only."""
    launcher = ProcessLauncher(environment, log_folder, isolated=isolated)
    return LocalExecutor(launcher, slots=slots, folder=log_folder)
