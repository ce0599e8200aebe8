"""A user's program that runs beside the slots, in its own keeper, with the limits and isolation of tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path

import msgspec

from fedpkg.dispatch.isolation import Reach, Walls
from fedpkg.dispatch.keepers import OVERDUE_S, Call, Keeper, KeeperGone, Outcome
from fedpkg.dispatch.staging import base_environ
from fedpkg.dispatch.zygotes import Zygote
from fedpkg.errors import DispatchError
from fedpkg.means import means
from fedpkg.waist.order import Isolation, Limits


class Program:
    """A command that runs in the background.

    Args:
        call: the command.
        given: an open file that it inherits; its number is in the variable ``call.connection``.
        apart: it gets a separate PID namespace.
        warm: the interpreter in which it is run, and the call for that.

    Attributes:
        ended: its outcome, after all its processes have ended.

    Raises:
        DispatchError: the command cannot be started; `NotIsolated` if it cannot be isolated.
    """

    def __init__(self, call: Call, *, given: int, apart: bool, warm: tuple[Zygote, Call] | None = None) -> None:
        self.ended: Future[Outcome] = Future()
        self._zygote: Zygote | None = None  # if it is only for this program
        keeper = None if warm is None else _started_in(*warm, given)
        if keeper is None:
            log = call.stderr.with_name("keeper.log")
            self._zygote = Zygote(sys.executable, [], environ=call.environ, log=log, apart=apart)
            try:
                keeper = self._zygote.keeper(warm=False, given=[given])
                keeper.start(call)
            except KeeperGone as error:
                self._zygote.close()
                raise DispatchError(f"cannot start '{call.shell}': {error}") from error
            except BaseException:
                self._zygote.close()
                raise
        self._keeper = keeper
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
        if self._zygote is None:
            self._keeper.close()
        else:
            self._zygote.close()
        self._thread.join()


def _started_in(zygote: Zygote, call: Call, given: int) -> Keeper | None:
    """The keeper that runs the call; None if none could be started, or if its forks could not use CUDA."""
    try:
        keeper = zygote.keeper(warm=False, given=[given])
        if keeper.has_cuda:
            keeper.start(call)
            return keeper
    except KeeperGone:
        return None
    keeper.close()
    return None


def start_program(
    command: str,
    *,
    cwd: Path,
    folder: Path,
    reads: tuple[Path, ...],
    writes: tuple[Path, ...],
    fd: int,
    connection: str,
    variables: Mapping[str, str],
    threads: int,
    log_bytes: int,
    limits: Limits,
    isolation: Isolation | None,
    warm: Callable[[Call], tuple[Zygote, Call] | None],
) -> Program:
    """Start a command in the background.

    Args:
        command: a line for bash.
        cwd: its working directory, which is writable.
        folder: for its logs.
        reads, writes: further folders that it may read, or read and write, if it is isolated.
        fd: an open file that it inherits; its number is in the environment variable ``connection``.
        variables: environment variables added to those of this process (if it is isolated, to the harmless ones).
        limits: its limits; processor time is not limited, as the program runs as long as the session.
        warm: finds a warm interpreter for a call, in which it is run unless it is isolated.

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
        connection=connection,
    )
    if isolation is None:
        return Program(call, given=fd, apart=False, warm=warm(call))
    private = folder / "private"
    private.mkdir()
    reach = Reach(own=(*call.folders, private), read=reads, wanted=variables)
    call = Walls(folder / "walls").around(call, isolation, reach, scratch=private / "scratch")
    return Program(call, given=fd, apart=means().cold == "namespaces")
