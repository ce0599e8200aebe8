"""The run configuration: what a run.yaml can say, with types, bounds and defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from fedpkg.fedn.helpers import BareHelper, NpzHelper

if TYPE_CHECKING:
    from fedpkg.types import Json
else:
    Json = Any  # msgspec cannot follow a type that contains itself

PythonEnv = Literal["auto", "current", "none"]
NAMED_DATASETS = ("sklearn/digits", "sklearn/breast_cancer", "sklearn/wine", "sklearn/iris")

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
Width = Annotated[int, msgspec.Meta(ge=1, le=1024)]  # of what this machine does at the same time
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Spread = Annotated[float, msgspec.Meta(ge=0, le=10)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e8)]  # three years; clocks of the system end at 1e9 to 1e10
Files = Annotated[int, msgspec.Meta(ge=16)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, and a misspelt key is an error."""


class PartitionConfig(Section, frozen=True):
    """How one dataset is split among the clients."""

    name: Literal["iid", "dirichlet"] = "iid"
    alpha: Amount = 0.5  # Dirichlet concentration: small means skewed labels
    min_examples: Count = 1  # every client gets at least so many training examples
    seed: CountOrZero | None = None  # default: the run's seed


class DataConfig(Section, frozen=True):
    """One dataset that fedpkg splits: a file with x_train, y_train, x_test, y_test, or a named dataset."""

    dataset: str  # path of an .npz or .pt file, or a name such as sklearn/digits
    partition: PartitionConfig = PartitionConfig()


class ClientsConfig(Section, frozen=True):
    """Who takes part, and where each client's data is."""

    # So many clients, named client-0 …; with folders, the first so many.
    count: Annotated[int, msgspec.Meta(ge=1, le=10**6)] | None = None
    folders: str | None = None  # a pattern: one folder (or file) per client, the client is named after it
    data: DataConfig | None = None  # needs count
    # For packages that look for their data at a place of their own, as their program says it from the folder of
    # fedn.yaml (`data`, `../data`; isolated also `/app/data`): that place → the client's data, `.`, or something in it.
    # Each becomes a link in or around the client's working copy.
    links: dict[str, str] = {}
    # Names of groups → ids of their clients, or patterns of such. Some strategies ask them apart (vrcs: f, g, server).
    groups: dict[str, list[str]] = {}
    # Names of groups → environment variables of their clients' tasks, besides those of ``environment``.
    environment: dict[str, dict[str, str]] = {}


class RoundConfig(Section, frozen=True):
    required: Count = 1  # usable updates without which a round (or request) stops the session; a strategy may need more
    timeout_s: Seconds | None = None  # a round (each request of it) ends after so many seconds, with the updates it has
    weighting: Literal["examples", "equal"] = "examples"  # equal: all updates count alike, and need no num_examples


class ValidationConfig(Section, frozen=True):
    every: CountOrZero = 1  # validate every k rounds (and after the last one); 0: never
    fraction: Share = 1.0  # share of the clients asked; of those held out (sampler.held_out), the same share
    count: Count | None = None  # instead: so many, and so many of those held out


class ClockConfig(Section, frozen=True):
    """How long clients take, in virtual seconds: who answers first then follows from this, and not from the machine."""

    # Ids of clients, or patterns → seconds of a task; the first that matches counts, others take 1.
    seconds: dict[str, Amount] = {}
    spread: Spread = 0.5  # clients differ by exp(spread z), z ~ N(0, 1)
    jitter: Spread = 0.1  # and so do their tasks
    bytes_per_s: Annotated[float, msgspec.Meta(ge=1e-6, le=1e18)] | None = None  # the model's way down and up


class NeedsConfig(Section, frozen=True):
    """What one task needs, by which `workers: auto` counts. These only reserve; what ends a task is in `limits`."""

    gpus: float = 0  # a share of one (0.5: two tasks on each), or a whole number; with 0, tasks see no GPU
    gpu_memory_bytes: Count | None = None  # on each of its GPUs: a GPU gets no more tasks than its free memory holds
    memory_bytes: Count | None = None


class ExecutorConfig(Section, frozen=True):
    name: Literal["forkserver", "process", "resident"] = "forkserver"
    workers: Width | Literal["auto"] = "auto"  # tasks at the same time; auto: as many as fit
    threads: Width = 1  # threads of one task
    needs: NeedsConfig = NeedsConfig()
    timeout_s: Seconds | None = None  # wall time of one task


class LimitsConfig(Section, frozen=True):
    """What one task may use (the first seven; null: as much as there is), write, and unpack."""

    memory_bytes: Count | Literal["auto"] | None = "auto"  # of all its processes together; auto: 90 % of the machine's
    cpu_s: Seconds | None = None  # processor time of all its processes together
    file_bytes: Count | None = 8 << 30  # each file that it writes
    folder_bytes: Count | None = 16 << 30  # sizes of all files in its working copy, state and task folder together
    folder_files: Count | None = 50_000  # files and folders there, besides those of its package
    open_files: Files | None = None  # in each of its processes; null: the machine's own limit
    processes: Count | None = 512  # at the same time; they may have 8 threads each, on average
    log_bytes: CountOrZero = 1 << 20  # kept of each of a task's stdout and stderr
    reply_bytes: Count | None = None  # biggest file taken from a client; default: from the seed model's size
    package_bytes: Count = 4 << 30  # unpacked size of a package
    package_members: Count = 100_000


class IsolateConfig(Section, frozen=True):
    """Tasks that see nothing but their package, their folders and their data (Linux; not with `resident`)."""

    enabled: bool = False
    network: bool = False  # whether they may use the network
    read: list[str] = []  # files and folders that all may read besides


class KeepConfig(Section, frozen=True):
    """What stays after a round. A rule is ``all``, ``last N`` (rounds) or ``every N`` (rounds N, 2N …)."""

    updates: bool = False  # keep every client's update file after the round
    models: str = "all"  # global models; the seed, the latest and those of the strategy's state always stay
    task_folders: str = "all"  # tasks' logs and task.json; kept updates stay where they are


class TrustConfig(Section, frozen=True):
    """Which packages may run at all."""

    # sha256:<hex> of a package, ed25519:<base64> of who signed it, or the file of that public key; null: every package.
    allow: list[str] | None = None
    signature: str | None = None  # default: the file beside the package, package.tar.gz.sig


class RunConfig(Section, frozen=True):
    """Everything that decides a session's result. Paths are absolute after loading."""

    package: str  # folder with fedn.yaml, or its archive
    rounds: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    clients: ClientsConfig
    name: str = "session"
    seed: CountOrZero = 0
    # A session of the same home, package and seed: what depended on time there is repeated, which is the replies that
    # count and the order of those that arrived.
    replay: str | None = None
    seed_model: str | None = None  # default: made by the package's build entry point
    # The form of model files; default: as the seed model says itself, or a bare array if that is the one helper that
    # the package names.
    helper: NpzHelper | BareHelper | None = None
    # Patterns: tensors of the seed model that are buffers, besides those that its metadata or names tell; []: it has
    # none at all.
    buffers: list[str] | None = None
    # Who is asked in a round: a name and its parameters, and the options of all samplers (`fedpkg sampler list`).
    sampler: dict[str, Json] = msgspec.field(default_factory=lambda: {"name": "uniform"})
    clock: ClockConfig | None = None
    round: RoundConfig = RoundConfig()
    # A name and its parameters, or {aggregator: …, server_optimiser: …}; with `file`, one that a file registers.
    strategy: dict[str, Json] = msgspec.field(default_factory=lambda: {"name": "fedavg"})
    validation: ValidationConfig = ValidationConfig()
    executor: ExecutorConfig = ExecutorConfig()
    # auto: an environment of its own for a package that wants what the Python that runs fedpkg lacks; current: that
    # Python, whatever the package wants; none: `python` is whatever PATH says.
    python_env: PythonEnv = "auto"
    startup: Literal["run", "skip"] = "run"  # the package's entry point startup, before a client's first task
    # Per entry point, or under `all` for those that clients run (train, validate, predict): --key=value.
    arguments: dict[str, dict[str, Json]] = {}
    environment: dict[str, str] = {}  # environment variables of every task
    run_config: dict[str, Json] = {}  # free values, handed to every task in task.json
    limits: LimitsConfig = LimitsConfig()
    isolate: IsolateConfig = IsolateConfig()
    keep: KeepConfig = KeepConfig()
    trust: TrustConfig = TrustConfig()


@dataclass(frozen=True)
class KeepRule:
    """Which rounds' files stay. ``kind`` is all, last or every; ``number`` its N."""

    ALLOWED: ClassVar[str] = "'all', 'last N' or 'every N', N a whole number from 1"

    kind: str
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> KeepRule | None:
        """The rule that ``text`` says; None if it says none."""
        if text == "all":
            return cls("all")
        words = re.fullmatch(r"(last|every) ([1-9][0-9]{0,9})", text)
        return None if words is None else cls(words[1], int(words[2]))

    def keeps(self, round_number: int, *, done: int) -> bool:
        """Whether this round's files stay when ``done`` rounds are finished."""
        if self.kind == "last":
            return round_number > done - self.number
        return self.kind == "all" or round_number % self.number == 0

    def __str__(self) -> str:
        return "all" if self.kind == "all" else f"{self.kind} {self.number}"


def dump_config(config: RunConfig) -> dict[str, Json]:
    """Plain JSON values, all defaults included."""
    data: dict[str, Json] = msgspec.to_builtins(config)
    return data
