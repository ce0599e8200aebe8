"""The process of a session's coordinator, if its strategy is one: it runs beside the slots, until the session ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from fedpkg.analytics.policy import Policy
from fedpkg.config import RunConfig
from fedpkg.coordinators.process import Averaged, Ending, Start, Workplace
from fedpkg.coordinators.protocol import Mean
from fedpkg.coordinators.saved import FOLDER
from fedpkg.coordinators.strategy import Coordinator
from fedpkg.dispatch.limits import exceeded
from fedpkg.dispatch.program import Program, start_program
from fedpkg.errors import ConfigError, SessionFailed
from fedpkg.fedn.names import DATA_PATHS
from fedpkg.rules import UNDRAWN, variables_of
from fedpkg.session.control import Control
from fedpkg.session.limits import isolation_of, limits_of
from fedpkg.stores.base import ClientRow, SessionRow
from fedpkg.stores.home import Home

if TYPE_CHECKING:
    from fedpkg.dispatch.keepers import Call, Outcome
    from fedpkg.dispatch.zygotes import Zygote
    from fedpkg.formats.base import ModelForm
    from fedpkg.strategies.base import Reply
    from fedpkg.waist.executor import Executor
    from fedpkg.waist.order import Limits

_FEDPKG = Path(__file__).resolve().parents[1]  # strategies of apps import it, wherever it is installed
_LOG_CHARACTERS = 2000
NO_POLICY = Policy()


def give_workplace(
    strategy: Any,
    session: SessionRow,
    config: RunConfig,
    home: Home,
    executor: Executor,
    form: ModelForm,
    control: Control,
    held: ExitStack,
    announce: Callable[[int], None],
    clients: Callable[[], Sequence[ClientRow]] = lambda: (),
    *,
    policy: Policy = NO_POLICY,
) -> None:
    """Let a coordinator start its process, which ends when ``held`` is closed. Other strategies have no process.

    ``announce`` is told the number of rounds that the coordinator says it will have. ``clients`` are those of the
    session, once it is on record. ``policy`` is that of the node whose data the process reads.

    Raises:
        ConfigError: the home is the coordinator's folder.
    """
    if not isinstance(strategy, Coordinator):
        return
    if home.root.resolve() == Path(strategy.folder).resolve():
        raise ConfigError(
            f"strategy.folder: {strategy.folder}, which is copied, is the home",
            hint="move the program to a separate folder",
            key="strategy.folder",
        )
    limits, isolation, digest = limits_of(config.limits), isolation_of(config), session.package_digest
    most, rule = policy.memory_bytes, ""
    if most is not None and (limits.memory_bytes is None or most < limits.memory_bytes):
        limits, rule = msgspec.structs.replace(limits, memory_bytes=most), "memory_bytes in the policy of its node"
    forks = getattr(executor, "warm_program", None) if session.rules >= UNDRAWN else None

    def warm(call: Call) -> tuple[Zygote, Call] | None:
        if forks is None:
            return None
        waiting = ThreadPoolExecutor(1)  # for the imports, during which the session can be stopped
        try:
            return cast("tuple[Zygote, Call] | None", control.follow(waiting.submit(forks, digest, call)).result())
        finally:
            waiting.shutdown(wait=False)

    def start(what: Start) -> _Started:
        own = {"FEDPKG_SEED": str(what.seed), **variables_of(session.rules)}
        data = None if strategy.data_of is None else _data_of(strategy.data_of, clients(), home)
        own |= {} if data is None else dict.fromkeys(DATA_PATHS, str(data))
        program = start_program(
            what.command,
            cwd=what.cwd,
            folder=what.folder,
            reads=(*what.reads, _FEDPKG, *(() if data is None else (data,))),
            writes=what.writes,
            fd=what.fd,
            connection=what.variable,
            variables={**config.environment, **own},
            threads=config.executor.threads,
            log_bytes=config.limits.log_bytes,
            limits=limits,
            isolation=isolation,
            warm=warm,
        )
        return _Started(program, limits, rule)

    strategy.workplace = Workplace(
        folder=home.session_folder(session.session_id) / FOLDER,
        form=form,
        start=start,
        seed=session.seed,
        follow=control.follow,
        run_config=config.run_config,
        max_bytes=config.limits.reply_bytes or config.limits.file_bytes,
        announce=announce,
        created_at=session.created_at,
        home=home.root.resolve(),
        average=_average,
    )
    held.callback(strategy.close)


def _data_of(client_id: str, clients: Sequence[ClientRow], home: Home) -> Path:
    """The data of a client, or of the first one; of all clients, the folder in which they are.

    Raises:
        SessionFailed: there is no such client, or it has no data.
    """
    found = next((one for one in clients if client_id in ("", "*", one.client_id)), None)
    if found is None or found.data_path is None:
        what = f"{client_id or 'no client'} has no data" if found else f"there is no client {client_id}"
        raise SessionFailed(f"the program of the strategy reads the data of one client, but {what}")
    path = home.root / found.data_path
    return path.parent if client_id == "*" else path


def _average(mean: Mean, sent: Path, replies: Iterable[Reply]) -> Averaged:
    from fedpkg.apps.strategy.averaging import averaged

    return averaged(
        sent, replies, arrays_key=mean.arrays, weight_key=mean.weight, needs_sent=mean.needs_sent, use=mean.use
    )


class _Started:
    """A running program; the way it ended is given in words."""

    def __init__(self, program: Program, limits: Limits, rule: str) -> None:
        self._program = program
        self.ended: Future[Ending] = Future()
        program.ended.add_done_callback(lambda done: self.ended.set_result(_ending(done, limits, rule)))

    def close(self) -> None:
        self._program.close()


def _ending(done: Future[Outcome], limits: Limits, rule: str) -> Ending:
    """How a program has ended. ``rule``: the policy's one that has set the limit of its memory, if one has."""
    if error := done.exception():
        return Ending(f"is gone: {error}")
    outcome = done.result()
    log = (outcome.stderr_tail or outcome.stdout_tail).strip()[-_LOG_CHARACTERS:]
    if outcome.limit is not None:
        how = exceeded("the program", outcome.limit, outcome.measured, limits).message
        if rule and outcome.limit == "memory_bytes":
            how = f"{how.partition(';')[0]}; {rule} is {limits.memory_bytes}"
        return Ending(how, log, is_final=True)
    if outcome.signal is not None:
        return Ending(f"ended with signal {outcome.signal}", log)
    return Ending(f"ended with code {outcome.exit_code}", log, is_final=outcome.exit_code == 0)
