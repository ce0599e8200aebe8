"""The rows of the state store (``StateStore``).

Times are seconds since the epoch. Rows are immutable: to change the store, record another row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fedpkg.rules import CURRENT
from fedpkg.types import Json

SessionStatus: TypeAlias = Literal["created", "running", "interrupted", "stopped", "failed", "finished"]
RoundStatus: TypeAlias = Literal["training", "aggregated", "finished", "failed"]
UNFINISHED: tuple[RoundStatus, ...] = ("training", "aggregated", "failed")
TaskStatus: TypeAlias = Literal["ok", "failed", "cancelled"]
RequestStatus: TypeAlias = Literal["asked", "answered", "failed"]
CombinerStatus: TypeAlias = Literal["ok", "failed"]
SweepKind: TypeAlias = Literal["grid", "zip", "random", "search"]
SweepStatus: TypeAlias = Literal["running", "interrupted", "failed", "finished"]
PointStatus: TypeAlias = Literal["waiting", "running", "finished", "failed", "pruned"]
StrategyState: TypeAlias = "tuple[int, dict[str, Any]]"  # step, state
WeightSource: TypeAlias = Literal["reply", "split", "train", "equal", "default"]  # default: only with rules 1
MetricPhase: TypeAlias = Literal["train", "validate", "held_out", "server", "before_training", "after_training"]
HELD_OUT = "held_out/"  # prefix of a round's metrics from clients that never train
SERVER = "server/"  # … on the server's data
TRAIN = "train/"  # prefix of metrics reported with updates, where names of several phases are mixed
OUTSTANDING = "$outstanding"  # key beside a strategy's state: the requests that were outstanding after its step
WEIGHTS_MARK = "$weights"  # in a strategy's state, {"$weights": digest} stands for a model file
ClientUpdate: TypeAlias = "tuple[str | None, float | None]"  # state_version, last_num_examples


@dataclass(frozen=True, kw_only=True)
class PackageRow:
    """A compute package that a session has used."""

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
    package_contents: str = ""  # digest of the unpacked files, to check the cache without the archive
    signatures: list[dict[str, str]] = field(default_factory=list)  # {signer, signature}: those that allowed it
    rules: int = CURRENT  # version of the rules of computation, see fedpkg/rules.py


@dataclass(frozen=True, kw_only=True)
class ClientRow:
    """A client of one session, and the state from which its next task starts."""

    session_id: str
    client_id: str
    position: int
    data_path: str | None = None  # relative to the home if it is inside, else absolute
    num_examples: int | None = None  # from the data split
    last_num_examples: float | None = None  # from its last counted reply to train
    state_version: str | None = None

    @property
    def known_examples(self) -> float | None:
        """The number that it last reported, else that of the data split."""
        return self.num_examples if self.last_num_examples is None else self.last_num_examples


@dataclass(frozen=True, kw_only=True)
class ClientHistoryRow:
    """A client's history in a session's committed rounds; the row exists once it was asked or has validated."""

    session_id: str
    client_id: str
    times_asked: int = 0  # number of rounds
    last_asked: int | None = None  # number of the round
    times_counted: int = 0
    last_counted: int | None = None
    train_metrics: dict[str, float] = field(default_factory=dict)  # numbers of its last reply that counted
    validation_metrics: dict[str, float] = field(default_factory=dict)  # … of its last validation


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A global model. Its bytes are in the ``ModelStore`` under ``digest``; round 0 is the seed model.

    A session may also have models of clusters of clients, which have a row for each round that changes them.
    """

    digest: str
    session_id: str
    round_number: int
    suffix: str
    keys: Literal["names", "positions"]
    size_bytes: int
    created_at: float
    parent_id: str | None = None
    contributors: list[dict[str, Any]] = field(default_factory=list)  # each {client_id, num_examples}
    buffers: list[str] = field(default_factory=list)  # the file's tensors that are not parameters
    model_id: str = ""  # always "<session_id>.<round_number>", of a cluster's model followed by "/<cluster>"
    pruned: str | None = None  # the rule under which its file was removed
    cluster: str = ""  # path of the cluster; of the session's global model: empty
    parents: list[str] = field(default_factory=list)  # of a cluster's model: all that it comes from; parent_id is first
    until_round: int | None = None  # … the round from which its cluster has another model, or none; None: it is current
    num_examples: float = 0.0  # … of what contributed to it in its round

    def __post_init__(self) -> None:
        model_id = f"{self.session_id}.{self.round_number}" + (f"/{self.cluster}" if self.cluster else "")
        if self.model_id not in ("", model_id):
            raise ValueError(f"model_id is {self.model_id!r}, expected {model_id!r}")
        object.__setattr__(self, "model_id", model_id)

    def is_current_at(self, round_number: int) -> bool:
        """Whether, after this round, it was the model of its cluster, or of its session."""
        end = self.until_round if self.cluster else self.round_number + 1
        return self.round_number <= round_number and (end is None or round_number < end)


@dataclass(frozen=True, kw_only=True)
class ClusterClientRow:
    """The cluster to which a client belongs from a round on, until its next row: the deepest one; empty: none."""

    session_id: str
    client_id: str
    round_number: int
    path: str


@dataclass(frozen=True, kw_only=True)
class ClusterChanges:
    """What a round changes in the models of a session's clusters.

    Args:
        models: the new rows.
        ended: ids of models that are not current any more.
        clients: the new cluster of each client that has another one than before; empty: none.
    """

    models: Sequence[ModelRow] = ()
    ended: Sequence[str] = ()
    clients: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """A round. Its requests have their own rows; this row has their totals once the round has ended."""

    session_id: str
    round_number: int
    cohort: list[str]  # all clients of the requests that were answered in it
    target: int  # number of usable replies that its requests waited for
    started_at: float
    status: RoundStatus = "training"
    counted: list[str] | None = None  # all clients with a reply that counts
    arrivals: list[list[Any]] = field(default_factory=list)  # by wait: outstanding requests as [round, request_id]
    finished_at: float | None = None
    wall_s: float | None = None
    num_ok: int = 0
    num_failed: int = 0
    num_examples: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)  # averages over clients; None: no finite average
    train_metrics: dict[str, Any] = field(default_factory=dict)
    strategy_metrics: dict[str, Any] = field(default_factory=dict)  # reported by the strategy's step
    averages: dict[str, Any] = field(default_factory=dict)  # train, validate, held_out → how its metrics were averaged
    model_id: str | None = None
    phases: dict[str, float] = field(default_factory=dict)  # seconds
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """A request of a round's strategy to clients. It is recorded when it is sent, and again when it is answered."""

    session_id: str
    round_number: int
    request_id: str
    number: int  # from 1, in the order of the round's requests
    entry_point: str
    reply_kind: str
    cohort: list[str]
    target: int  # number of usable replies that it waits for
    started_at: float
    client_group: str | None = None
    status: RequestStatus = "asked"
    counted: list[str] | None = None  # clients whose replies count; recorded before they are folded, replayed on resume
    wall_s: float | None = None
    num_ok: int = 0
    num_failed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One attempt at one call of an entry point, and how it ended."""

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
    failure: str | None = None  # for programs: exit_code, signal, timeout, no_file …
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    folder: str | None = None  # from the home
    command: str | None = None
    log_tail: str | None = None
    state_version: str | None = None
    state_checksum: str = ""  # of that version's folder; "": the row was written by an older fedpkg
    phases: dict[str, float] = field(default_factory=dict)  # seconds
    request_id: str | None = None  # of the strategy's request; None: the task validates, or builds the seed
    bytes_down: int = 0  # of the input model
    bytes_up: int = 0  # of the reply


@dataclass(frozen=True, kw_only=True)
class UpdateRow:
    """A task's reply for the strategy."""

    task_id: str
    path: str  # from the home
    size_bytes: int
    num_examples: float
    metadata: dict[str, Any] = field(default_factory=dict)
    checksum: str = ""  # of the folder of ``path``; "": the row was written by an older fedpkg


@dataclass(frozen=True, kw_only=True)
class ValidationRow:
    """One client's metrics of one global model: the session's, or that of the client's cluster."""

    task_id: str
    session_id: str
    round_number: int
    model_id: str
    client_id: str
    metrics: Json
    weight: float
    weight_source: WeightSource  # until the round is finished: "reply" if the client reported one, else "equal"
    phase: MetricPhase = "validate"  # also for held-out clients

    @property
    def cluster(self) -> str:
        """The path of the cluster whose model was measured; empty: it was the session's."""
        return self.model_id.partition("/")[2]


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """How one metric of a round is distributed over the clients that report it as a finite number.

    ``phase`` is what was measured: ``train`` (reported with the updates), ``validate`` (the new global model on the
    clients' data), ``held_out`` (the same on clients that never train), ``server`` (the same on the server's data),
    ``before_training`` (the global model that the clients of the round got) or ``after_training`` (their own updates).
    All clients count equally, except in ``weighted_mean``. None: unknown (an older fedpkg recorded only the weighted
    mean), or no client has a finite value.
    """

    session_id: str
    round_number: int
    phase: MetricPhase | Literal["strategy"]  # "strategy", what it reports, is in no database: RoundRow has it
    metric: str
    num_clients: int
    weighted_mean: float | None = None  # as in RoundRow.metrics
    mean: float | None = None
    std: float | None = None  # sqrt(mean((m - mean)^2)): 0 for one client
    min: float | None = None
    max: float | None = None
    deciles: list[float] = field(default_factory=list)  # 10 % … 90 %, interpolated linearly
    worst_tenth: float | None = None  # mean over the worst tenth of the clients, rounded up
    best_tenth: float | None = None
    cluster: str = ""  # of the clients in the aggregate, each of which measured this cluster's model; empty: of all


@dataclass(frozen=True, kw_only=True)
class CombinerRow:
    """What a combiner of a tree did in a round of its session.

    A combiner below one that runs several rounds is asked in each of them. ``bytes_down`` and ``bytes_up`` are the
    models between it and the combiner above; those of its clients are in the rows of its requests, whose
    ``client_group`` is its path.
    """

    session_id: str
    round_number: int
    path: str  # names from the root's child to itself, with "/" between them; of the root: empty
    status: CombinerStatus
    reason: str | None = None  # why it has failed, the last time that it has; or why it ended before its last round
    rounds: int = 1  # of its own
    num_asked: int = 0  # children, clients or combiners, in the last of them
    num_ok: int = 0
    num_examples: float = 0.0  # of the distinct clients below it that have contributed
    bytes_down: int = 0
    bytes_up: int = 0
    virtual_s: float | None = None  # of its rounds, by the virtual clock
    metrics: dict[str, Any] = field(default_factory=dict)  # means of what clients below it report of their training


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """A sweep: a set of sessions that differ in some keys of their configuration."""

    name: str  # unique in the home
    kind: SweepKind
    source: str  # the run.yaml or the folder of the experiment
    overrides: list[str]  # as they were given
    created_at: float
    updated_at: float
    options: dict[str, Any] = field(default_factory=dict)  # parallel; of a search also metric, mode, seed, prune …
    status: SweepStatus = "running"
    error: str | None = None
    stop_requested: bool = False
    process: str = ""  # "<pid>@<host>" of the process that runs it, or has run it last


@dataclass(frozen=True, kw_only=True)
class SweepPointRow:
    """A point of a sweep: one configuration, and the session that runs it."""

    sweep: str
    number: int  # from 0
    choices: dict[str, Any]  # the keys that were chosen for this point, with their values
    config: dict[str, Any] | None = None  # None: it could not be composed
    digest: str = ""  # of the configuration without its name; points of a sweep have different ones
    baseline: str = ""  # "", centralised or local
    status: PointStatus = "waiting"
    session_id: str | None = None  # None: no session has begun
    value: float | None = None  # of the metric of a search
    error: str | None = None
