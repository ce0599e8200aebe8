"""What the state store keeps (rows), and what it can do (``StateStore``).

Times are seconds since the epoch. Rows are values: changing the store means recording another row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from fedpkg.rules import CURRENT
from fedpkg.types import Json

SessionStatus: TypeAlias = Literal["created", "running", "interrupted", "stopped", "failed", "finished"]
RoundStatus: TypeAlias = Literal["training", "aggregated", "finished", "failed"]
UNFINISHED: tuple[RoundStatus, ...] = ("training", "aggregated", "failed")
TaskStatus: TypeAlias = Literal["ok", "failed", "cancelled"]
RequestStatus: TypeAlias = Literal["asked", "answered", "failed"]
StrategyState: TypeAlias = "tuple[int, dict[str, Any]]"  # step, state
WeightSource: TypeAlias = Literal["reply", "split", "train", "equal", "default"]  # default: only with rules 1
HELD_OUT = "held_out/"  # before the names of a round's metrics of clients that never train
WEIGHTS_MARK = "$weights"  # in a strategy's state, {"$weights": digest} stands for a model file
ClientUpdate: TypeAlias = "tuple[str | None, float | None]"  # state_version, last_num_examples


@dataclass(frozen=True, kw_only=True)
class PackageRow:
    """A compute package that some session used."""

    digest: str
    name: str
    size_bytes: int
    entry_points: dict[str, str]
    created_at: float


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    session_id: str
    name: str
    config: dict[str, Any]
    package_digest: str
    seed: int
    num_rounds: int
    created_at: float
    updated_at: float
    status: SessionStatus = "created"
    error: str | None = None
    stop_requested: bool = False
    package_contents: str = ""  # digest of what the package unpacks to, so that its cache can be checked without it
    signatures: list[dict[str, str]] = field(default_factory=list)  # {signer, signature}: by which it was allowed
    rules: int = CURRENT  # of computation, see fedpkg/rules.py


@dataclass(frozen=True, kw_only=True)
class ClientRow:
    """A client of one session, and the state it would start its next task from."""

    session_id: str
    client_id: str
    position: int
    data_path: str | None = None  # from the home, where it lies there; else absolute
    num_examples: int | None = None  # from the data split
    last_num_examples: float | None = None  # what its last counted train reply said
    state_version: str | None = None

    @property
    def known_examples(self) -> float | None:
        """What it last said, else what its data was split to."""
        return self.num_examples if self.last_num_examples is None else self.last_num_examples


@dataclass(frozen=True, kw_only=True)
class ClientHistoryRow:
    """What a client has done in a session's committed rounds; there is none before it was asked or validated."""

    session_id: str
    client_id: str
    times_asked: int = 0  # rounds
    last_asked: int | None = None  # the round
    times_counted: int = 0
    last_counted: int | None = None
    train_metrics: dict[str, float] = field(default_factory=dict)  # numbers of its last reply that counted
    validation_metrics: dict[str, float] = field(default_factory=dict)  # … of its last validation


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A global model. Its bytes are in the ``ModelStore`` under ``digest``; round 0 is the seed model."""

    digest: str
    session_id: str
    round_number: int
    suffix: str
    keys: Literal["names", "positions"]
    size_bytes: int
    created_at: float
    parent_id: str | None = None
    contributors: list[dict[str, Any]] = field(default_factory=list)  # {client_id, num_examples}
    buffers: list[str] = field(default_factory=list)  # which of the file's tensors are no parameters
    model_id: str = ""  # always "<session_id>.<round_number>"
    pruned: str | None = None  # the rule under which its file was removed

    def __post_init__(self) -> None:
        model_id = f"{self.session_id}.{self.round_number}"
        if self.model_id not in ("", model_id):
            raise ValueError(f"model_id is {self.model_id!r}, expected {model_id!r}")
        object.__setattr__(self, "model_id", model_id)


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """A round. What it asked is in its requests; here, when it has ended, is what they come to together."""

    session_id: str
    round_number: int
    cohort: list[str]  # all who were asked
    target: int  # usable replies that its requests waited for
    started_at: float
    status: RoundStatus = "training"
    counted: list[str] | None = None  # all of whom a reply counts
    finished_at: float | None = None
    wall_s: float | None = None
    num_ok: int = 0
    num_failed: int = 0
    num_examples: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)  # averages over clients; None: there is none
    train_metrics: dict[str, Any] = field(default_factory=dict)
    strategy_metrics: dict[str, Any] = field(default_factory=dict)  # what the strategy tells of its step
    averages: dict[str, Any] = field(default_factory=dict)  # train, validate, held_out → how it was averaged
    model_id: str | None = None
    phases: dict[str, float] = field(default_factory=dict)  # seconds
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One question of a round's strategy to clients. It is recorded when it is asked, and when it is answered."""

    session_id: str
    round_number: int
    request_id: str
    number: int  # from 1, in the order in which the round asked
    entry_point: str
    reply_kind: str
    cohort: list[str]
    target: int  # usable replies that it waits for
    started_at: float
    client_group: str | None = None
    status: RequestStatus = "asked"
    counted: list[str] | None = None  # whose replies count; recorded before they are folded, replayed on resume
    wall_s: float | None = None
    num_ok: int = 0
    num_failed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One attempt at one entry-point call, and how it ended."""

    task_id: str
    session_id: str
    round_number: int
    client_id: str
    position: int  # in the cohort
    entry_point: str
    attempt: int
    status: TaskStatus
    started_at: float
    wall_s: float
    failure: str | None = None  # a word for machines: exit_code, signal, timeout, no_file …
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    folder: str | None = None  # from the home
    command: str | None = None
    log_tail: str | None = None
    state_version: str | None = None
    state_checksum: str = ""  # of that version's folder; "": the row is of an older fedpkg
    phases: dict[str, float] = field(default_factory=dict)  # seconds
    request_id: str | None = None  # of the strategy's request; None: it validates, or builds the seed
    bytes_down: int = 0  # of the input model
    bytes_up: int = 0  # of the reply


@dataclass(frozen=True, kw_only=True)
class UpdateRow:
    """The reply that a task left for the strategy."""

    task_id: str
    path: str  # from the home
    size_bytes: int
    num_examples: float
    metadata: dict[str, Any] = field(default_factory=dict)
    checksum: str = ""  # of the folder of ``path``; "": the row is of an older fedpkg


@dataclass(frozen=True, kw_only=True)
class ValidationRow:
    """What one client measured of one global model."""

    task_id: str
    session_id: str
    round_number: int
    model_id: str
    client_id: str
    metrics: Json
    weight: float
    weight_source: WeightSource  # until the round is finished: reply with what the client reported, else equal


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """All that one task leaves in the store; recorded together or not at all."""

    task: TaskRow
    update: UpdateRow | None = None
    validation: ValidationRow | None = None


class StateStore(Protocol):
    """Sessions, rounds, tasks and what came of them.

    Every method but ``record_task`` is one transaction; when it returns, a killed process loses nothing of it, and
    after ``commit_round`` a power cut does not either. Methods may be called from any thread. Floats in columns must
    not be NaN; inside JSON values (metrics, config, metadata, state) NaN and infinities survive.

    What lists rows gives those that pass all filters; of several values of a filter, one is enough. ``newest_first``
    turns the order around that the method says, and only ``limit`` rows are read.

    Raises (all methods):
        StoreError: the database is damaged, full, locked, not writable, or refuses the rows.
        NotFound: a session, round, client or model that a method names is not there.
    """

    def add_package(self, package: PackageRow) -> None:
        """Record a package; one with the same digest is kept as it is."""

    def create_session(
        self, session: SessionRow, clients: Iterable[ClientRow] = (), *, seed_model: ModelRow | None = None
    ) -> None:
        """Record a new session, its clients and its seed model; its package must be there."""

    def get_session(self, ref: str) -> SessionRow:
        """The session with this id, or the only one whose id starts so."""

    def list_sessions(self, *, newest_first: bool = False, limit: int | None = None) -> list[SessionRow]:
        """All sessions, oldest first."""

    def set_session_status(self, session_id: str, status: SessionStatus, *, error: str | None = None) -> None:
        """Set status and error."""

    def extend_session(self, session_id: str, config: dict[str, Any], num_rounds: int) -> None:
        """Give a session another number of rounds; ``config`` is its configuration with them."""

    def request_stop(self, session_id: str) -> None:
        """Ask whatever process runs the session to stop it. The request stays on record until it is withdrawn."""

    def withdraw_stop(self, session_id: str) -> None:
        """Forget earlier requests to stop: the session is to go on."""

    def stop_requested(self, session_id: str) -> bool: ...

    def list_clients(self, session_id: str) -> list[ClientRow]:
        """The session's clients in order of position."""

    def list_client_history(self, session_id: str) -> list[ClientHistoryRow]:
        """What those who were ever asked have done, by client id."""

    def begin_round(self, row: RoundRow) -> None:
        """Record that a round starts, or starts again."""

    def record_request(self, row: RequestRow) -> None:
        """Record that a round asks this, or which replies to it count: before they are folded."""

    def list_requests(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        entry_point: str | None = None,
        status: RequestStatus | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[RequestRow]:
        """Requests by round, in the order in which they were asked."""

    def record_task(
        self, task: TaskRow, *, update: UpdateRow | None = None, validation: ValidationRow | None = None
    ) -> None:
        """``record_tasks`` for one task, which is written within 50 ms, and before the next call reads or writes.

        Until then a killed process loses it: the task counts as in flight.
        """

    def record_tasks(self, records: Iterable[TaskRecord]) -> None:
        """Record tasks with their updates and validations, replacing all that is there under the same task ids."""

    def commit_round(
        self,
        row: RoundRow,
        model: ModelRow,
        *,
        strategy_state: StrategyState | None = None,
        clients: Mapping[str, ClientUpdate] | None = None,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Record an aggregated round at once: its row, model, strategy state and the clients' new state and history.

        It then survives a power cut. ``clients``: client_id → (state_version, last_num_examples), written as given.
        ``metrics``: numbers that the counted said, for their history. Committing again replaces. Of the strategy's
        states only the latest two steps are kept.
        """

    def finish_round(
        self,
        row: RoundRow,
        *,
        clients: Mapping[str, ClientUpdate] | None = None,
        requests: Iterable[RequestRow] = (),
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        validations: Iterable[ValidationRow] = (),
    ) -> None:
        """Record the round as it is after its validation, with the state that validating left and what it measured.

        Or after its failure, with the requests that failed. ``validations`` replace those on record: only when all
        clients have answered it is known what each weighs.
        """

    def list_rounds(
        self,
        session_id: str | None = None,
        *,
        status: RoundStatus | Sequence[RoundStatus] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[RoundRow]:
        """Rounds by session, in order."""

    def count_rounds(self, session_id: str, *, status: RoundStatus | Sequence[RoundStatus] | None = None) -> int: ...

    def get_round(self, session_id: str, round_number: int) -> RoundRow: ...

    def list_tasks(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        request_id: str | None = None,
        client_id: str | None = None,
        entry_point: str | None = None,
        status: TaskStatus | Sequence[TaskStatus] | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[TaskRow]:
        """Tasks by round, entry point, position and attempt."""

    def list_updates(
        self,
        session_id: str,
        round_number: int | None = None,
        *,
        request_id: str | None = None,
        client_id: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[UpdateRow]:
        """Updates by round, cohort position and attempt; ``request_id`` and ``client_id`` are those of their tasks."""

    def list_validations(
        self,
        session_id: str,
        *,
        round_number: int | None = None,
        model_id: str | None = None,
        client_id: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[ValidationRow]:
        """Validations by round and cohort position."""

    def get_model(self, ref: str) -> ModelRow:
        """The model with this id, a session's latest model, or the model whose digest starts so.

        Sessions, also in ``<session>.<round>``, may be shortened as far as they stay unique. Of several models with
        the same bytes a digest names the newest.
        """

    def list_models(
        self, session_id: str | None = None, *, newest_first: bool = False, limit: int | None = None
    ) -> list[ModelRow]:
        """Models of one session or of all, by session and round: the clock may have been set back."""

    def list_kept_models(self, *, session_id: str | None = None, digest: str | None = None) -> list[ModelRow]:
        """Models that are not pruned, of a session or with a digest, by session and round."""

    def state_digests(self, session_id: str | None = None) -> set[str]:
        """Digests of the model files that kept strategy states name, of one session or of any."""

    def set_pruned(self, models: Iterable[ModelRow]) -> None:
        """Mark models, by their ``pruned``, whose files are removed next.

        This survives a power cut: no row may promise a file that is gone.
        """

    def model_trail(self, model_id: str) -> list[ModelRow]:
        """The model, its parent, and so on back to its seed model."""

    def load_strategy_state(self, session_id: str) -> StrategyState | None:
        """The state after the latest committed step, or None before the first."""

    def check(self) -> list[str]:
        """What the database finds wrong with itself; nothing if it is sound."""

    def close(self) -> None:
        """Release the database. Closing twice is fine."""

    def __enter__(self) -> StateStore: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
