"""A user's program that runs beside the slots, in its own keeper, with the limits and isolation of tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import msgspec

from fedpkg.dispatch.isolation import Reach, Walls
from fedpkg.dispatch.keepers import OVERDUE_S, Call, KeeperGone, Outcome
from fedpkg.dispatch.staging import base_environ
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError
from fedpkg.means import means
from fedpkg.waist.order import Isolation, Limits


class Program:
    """A command that runs in the background.

    Args:
        call: the command.
        apart: it gets a separate PID namespace.

    Attributes:
        ended: its outcome, after all its processes have ended.

    Raises:
        DispatchError: the command cannot be started; `NotIsolated` if it cannot be isolated.
    """

    def __init__(self, call: Call, *, apart: bool) -> None:
        self.ended: Future[Outcome] = Future()
        log = call.stderr.with_name("keeper.log")
        self._zygote = Zygote(sys.executable, [], environ=call.environ, log=log, apart=apart, fds=call.fds)
        try:
            self._keeper = self._zygote.keeper(warm=False)
            self._keeper.start(call)
        except KeeperGone as error:
            self._zygote.close()
            raise DispatchError(f"cannot start '{call.shell}': {error}") from error
        except BaseException:
            self._zygote.close()
            raise
        self._thread = threading.Thread(target=self._wait, name="fedpkg-program", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self.ended.set_result(self._keeper.outcome())
        except BaseException as error:
            self.ended.set_exception(error)

    def close(self) -> None:
        """End the program and all processes that it has started."""
        self._keeper.hang_up()
        self._thread.join(OVERDUE_S)
        self._zygote.close()
        self._thread.join()


def start_program(
    command: str,
    *,
    cwd: Path,
    folder: Path,
    reads: tuple[Path, ...],
    writes: tuple[Path, ...],
    fd: int,
    variables: Mapping[str, str],
    threads: int,
    log_bytes: int,
    limits: Limits,
    isolation: Isolation | None,
) -> Program:
    """Start a command in the background.

    Args:
        command: a line for bash.
        cwd: its working directory, which is writable.
        folder: for its logs.
        reads, writes: further folders that it may read, or read and write, if it is isolated.
        fd: an open file that it inherits.
        variables: environment variables added to those of this process (if it is isolated, to the harmless ones).
        limits: its limits; processor time is not limited, as the program runs as long as the session.

    Raises:
        DispatchError: as for `Program`.
    """
    call = Call(
        cwd=cwd,
        environ=base_environ(variables, threads=threads),
        stdout=folder / "stdout.log",
        stderr=folder / "stderr.log",
        log_bytes=log_bytes,
        timeout_s=None,
        limits=msgspec.structs.replace(limits, cpu_s=None),
        folders=(cwd, *writes),
        shell=command,
        fds=(fd,),
    )
    if isolation is None:
        return Program(call, apart=False)
    private = folder / "private"
    private.mkdir()
    reach = Reach(own=(*call.folders, private), read=reads, wanted=variables)
    call = Walls(folder / "walls").around(call, isolation, reach, scratch=private / "scratch")
    return Program(call, apart=means().cold == "namespaces")
