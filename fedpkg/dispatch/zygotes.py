"""The controller's side of ``runtime/zygote.py``: start a zygote, and get keepers from it."""

from __future__ import annotations

import array
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpkg.dispatch.changes import Step
from fedpkg.dispatch.frames import NO_SIGPIPE, receive, send, shut
from fedpkg.dispatch.keepers import CLOSE_PATIENCE_S, Keeper, KeeperGone, kill_tree
from fedpkg.dispatch.preload import OPTIMISER
from fedpkg.errors import DispatchError

ZYGOTE = Path(__file__).resolve().parent.parent / "runtime" / "zygote.py"
# Imports that take longer (PyTorch needs 1 to 3 s) count as hanging; a task's time limit does not apply to them.
START_PATIENCE_S = 120.0
MOST_LEFT_OUT = 10  # imports for which a zygote starts again; after the next one, all later imports are left out, too


class Zygote:
    """One zygote process. It starts in the background; `ready` waits for it.

    Args:
        interpreter: the Python of the package's environment.
        steps: what it does before it forks, from `dispatch.preload`. If a step starts threads or fails half-way, the
            interpreter starts again without it.
        forbidden: names of modules that none of the steps may import.
        of_clients: variables that differ between clients, which none of the steps may read.
        own: names of the package's own modules, which none of the imports may use.
        sources: files of the package that tasks will run or import.
        environ: its environment (1 thread; a task sets its own number).
        log: file for the output of the imports.
        apart: each keeper and its task have a separate PID namespace.
    """

    def __init__(
        self,
        interpreter: str,
        steps: Sequence[Step],
        *,
        environ: Mapping[str, str],
        log: Path,
        forbidden: Sequence[str] = (),
        of_clients: Sequence[str] = (),
        own: Sequence[str] = (),
        sources: Sequence[Path] = (),
        apart: bool = False,
    ) -> None:
        self.interpreter = interpreter
        files = [str(source) for source in sources]
        self._steps = list(steps)
        self._left_out: list[dict[str, Any]] = []
        self._order = {
            "forbidden": list(forbidden),
            "of_clients": list(of_clients),
            "own": list(own),
            "sources": files,
            "apart": apart,
        }
        self._environ = dict(environ)
        self._log = log
        self._greeting_lock = threading.Lock()
        self._keeper_lock = threading.Lock()
        self._keepers: list[Keeper] = []
        self._closed = False
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._greeting: dict[str, Any] | None = None
        self._starts += 1
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as output:
            self._control, theirs = socket.socketpair()
            try:
                self._process = subprocess.Popen(
                    [self.interpreter, str(ZYGOTE), str(theirs.fileno())],
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # only the controller gets a Ctrl-C of the terminal
                )
            except OSError as error:
                self._control.close()
                raise DispatchError(f"cannot start the interpreter {self.interpreter}: {error}") from error
            finally:
                theirs.close()
        self._send_order()

    def _send_order(self) -> None:
        send(self._control, {**self._order, "steps": self._steps})

    def _leave_out(self, offence: dict[str, Any]) -> None:
        """Leave out a step, and the later steps that import the same module."""
        number, part = offence["step"], offence["part"]
        step = self._steps[number]
        module = "torch._dynamo" if step == OPTIMISER else f"{step[1]}.{part}" if part else step[1]
        kept = self._steps[:number]
        if part is not None:
            kept.append((*step[:2], tuple(name for name in step[2] if name != part)))
        if len(self._left_out) < MOST_LEFT_OUT:
            later = self._steps[number + 1 :]
            kept += [one for one in later if one[0] != "import" or not f"{one[1]}.".startswith(f"{module}.")]
        self._steps = kept
        self._left_out.append({"module": module, **offence})

    @property
    def is_awaited(self) -> bool:
        """Whether a thread waits in `ready`."""
        return self._greeting is None and self._greeting_lock.locked()

    def ready(self) -> dict[str, Any]:
        """Wait until the imports are finished; the result has ``why_cold`` and ``left_out``.

        With ``why_cold`` the zygote cannot fork or has ended, and has no keepers. ``left_out`` has the module, the
        kind and the reason of each step that was left out.
        """
        with self._greeting_lock:
            if self._greeting is None:
                self._greeting = self._await_greeting()
            return self._greeting

    def _await_greeting(self) -> dict[str, Any]:
        how = "ended while it started"
        try:
            self._control.settimeout(START_PATIENCE_S)
            while (greeting := receive(self._control)) is not None and "again" in greeting:
                self._leave_out(greeting["again"])
                self._send_order()
            if greeting is not None:
                self._control.settimeout(None)
                return {**greeting, "left_out": self._left_out}
        except TimeoutError:
            how = f"had not finished its imports after {START_PATIENCE_S:g} s"
            self._end()
        except OSError:
            pass
        tail = self._log.read_text(errors="replace")[-2000:].strip()
        why_cold = f"the interpreter {self.interpreter} {how}: {tail or 'no output'}"
        return {"why_cold": why_cold, "left_out": self._left_out}

    def keeper(self, *, warm: bool, given: Sequence[int] = ()) -> Keeper:
        """A new keeper for one slot. If the zygote was killed, it is started again.

        ``warm``: it forks the child of its first task at once. ``given``: an open file that its task inherits.

        Raises:
            KeeperGone: there is none now; another call may succeed.
            DispatchError: no keeper can be started.
        """
        with self._keeper_lock:
            may_start_again = self._starts > 1 or not self.ready()["why_cold"]
            if may_start_again and self._process.poll() is not None and not self._closed:
                with self._greeting_lock:
                    self._control.close()
                    self._start()
            if why_not := self.ready()["why_cold"]:
                raise KeeperGone(why_not) if self._starts > 1 else DispatchError(why_not)
            ours, theirs = socket.socketpair()
            keeper = Keeper(ours)
            self._keepers = [*(known for known in self._keepers if not known.closed), keeper]
            try:
                with theirs:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno(), *given]))]
                    self._control.sendmsg([b"k"], rights, NO_SIGPIPE)
                    if warm:
                        keeper.warm_up()
                keeper.greet()
            except (OSError, KeeperGone) as error:
                keeper.close()
                if not isinstance(error, KeeperGone):
                    raise KeeperGone(f"the interpreter {self.interpreter} is gone: {error}") from error
                if self._process.poll() is None:  # it cannot fork, or was stopped
                    self._process.kill()  # its keepers and tasks continue
                    self._process.wait()
                raise
            if self._closed:  # `close` may have missed the new keeper
                keeper.close()
                self._end()
                raise DispatchError("this executor is closed")
            return keeper

    def close(self) -> None:
        """End the zygote, its keepers and their tasks."""
        self._closed = True
        for keeper in list(self._keepers):
            keeper.hang_up()
        self._end()
        for keeper in list(self._keepers):
            keeper.close()

    def _end(self) -> None:
        # shutdown, not only close: another thread may wait in recv, and the zygote must see the end of file at once.
        shut(self._control, socket.SHUT_RDWR)
        self._control.close()
        importing = self._greeting is None  # it has no tasks yet, and would not read its socket for seconds
        try:
            self._process.wait(0 if importing else CLOSE_PATIENCE_S)
        except subprocess.TimeoutExpired:
            kill_tree(self._process.pid)
            self._process.wait()
