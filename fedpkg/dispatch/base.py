"""What is dispatched and what comes back: tasks, their results, and the seam behind which they run."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from fedpkg.shown import shown
from fedpkg.types import Json, ReplyKind, Use

if TYPE_CHECKING:
    from fedpkg.compute_package.spec import PackageSpec
    from fedpkg.transforms.chain import Chain
    from fedpkg.weights.weights import Weights


@dataclass(frozen=True)
class PackageOnDisk:
    """An unpacked compute package: ``root`` is copied for each client, ``folder`` inside it holds fedn.yaml.

    ``python`` is what its commands find as ``python``: by default the interpreter that runs fedpkg, or that of an
    environment of its own; None: whatever PATH says.
    """

    digest: str
    root: Path
    folder: Path
    spec: PackageSpec
    python: Path | None = Path(sys.executable)


@dataclass(frozen=True)
class Limits:
    """What one task may use; None: as much as there is. `LimitsConfig` says what each means."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    file_bytes: int | None = None
    folder_bytes: int | None = None
    folder_files: int | None = None
    open_files: int | None = None
    processes: int | None = None

    @property
    def threads(self) -> int | None:
        """Of all its processes together."""
        return None if self.processes is None else THREADS_EACH * self.processes

    @property
    def sessions(self) -> int | None:
        """Sessions (setsid) of its processes: Linux shares the processors among sessions, not among tasks."""
        return None if self.processes is None else max(LEAST_SESSIONS, self.processes // PROCESSES_EACH)


THREADS_EACH = 8  # on average: `processes` counts processes, but none may have threads without end
LEAST_SESSIONS, PROCESSES_EACH = 8, 32
NO_LIMITS = Limits()


@dataclass(frozen=True)
class Isolation:
    """That a task sees its package, its folders and its data only; what else it may have is said here."""

    network: bool = False
    read: tuple[Path, ...] = ()  # files and folders


@dataclass(frozen=True)
class Task:
    """One call of one entry point for one client. All its paths are known before it starts.

    ``folder`` is the task's own directory; ``state`` the client's current version folder (None: from the package),
    ``next_state`` the version folder that this attempt writes.
    """

    task_id: str
    session_id: str
    round_number: int
    client_id: str
    entry_point: str
    package: PackageOnDisk
    reply_kind: ReplyKind
    folder: Path
    next_state: Path
    state: Path | None = None
    attempt: int = 1
    position: int = 0  # in the round's cohort
    partition_id: int = 0
    num_partitions: int = 1
    model: Path | None = None  # the file to stage as input; None: the entry point takes only an output path
    suffix: str = ".npz"  # of the model files
    template: Weights | None = None  # what an update must fit
    content: str = "weights"  # what the tensors of an update are: weights, or a delta or gradient of the parameters
    transforms: Chain | None = None  # on an update's way to the controller
    sent_bytes: int | None = None  # what travelled to the client, if that was not the model's file as it is
    request_id: str | None = None  # of the strategy's request; None: it validates, or builds the seed
    use: Use = "averaged"  # what becomes of the reply's numbers, which says how large they may be
    # An update must say its num_examples, else all weigh the same, 1. Metrics may say it: then it must be usable.
    weighted: bool = True
    input_sets: tuple[str, ...] = ()  # names of the sets in ``model``, if it holds several
    # The sets that a reply of kind `sets` must hold; what each must fit, None: the template's parameters.
    sets: Mapping[str, Weights | None] = field(default_factory=dict)
    data_path: Path | None = None
    seed: int = 0
    arguments: Mapping[str, Json] = field(default_factory=dict)  # become --key=value
    parameters: Mapping[str, Json] = field(default_factory=dict)  # of the strategy; travel in task.json
    run_config: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    timeout_s: float | None = None
    limits: Limits = NO_LIMITS
    isolation: Isolation | None = None
    log_bytes: int = 1 << 20
    reply_bytes: int | None = None
    # The client's first task: where the package has an entry point `startup`, that runs before, in the same place.
    starts_up: bool = False
    # Links in the folder of fedn.yaml, for packages that look for their data there: name → where it leads.
    links: Mapping[str, Path] = field(default_factory=dict)


def working_folder(task: Task) -> Path:
    """The folder of fedn.yaml in a task's working copy, where it runs."""
    return task.next_state / "package" / task.package.folder.relative_to(task.package.root)


def leads_elsewhere(task: Task) -> bool:
    """Whether a task has put a link in the place of its working folder, or of one around it."""
    inside = os.path.relpath(working_folder(task), task.next_state)
    return os.path.realpath(working_folder(task)) != os.path.join(os.path.realpath(task.next_state), inside)


@dataclass(frozen=True)
class Failure:
    """Why a task did not give what was asked. ``kind`` is one word for machines, ``message`` is a line for people.

    The message may quote what the client wrote, so it is escaped here, before it reaches the store or a terminal.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shown(self.message))


def is_of_startup(message: str) -> bool:
    """Whether a failure's message says that `startup`, which comes before a client's first task, failed."""
    return message.startswith("'startup' ")


def told_in(folder: Path, message: str) -> Path:
    """The log of a failed task whose end is reported: stderr's, or stdout's where stderr has nothing."""
    call = "startup." if is_of_startup(message) else ""
    stdout, stderr = (folder / f"{call}{name}.log" for name in ("stdout", "stderr"))
    sizes = [path.stat().st_size if path.is_file() else 0 for path in (stdout, stderr)]
    return stdout if sizes[0] and not sizes[1] else stderr


@dataclass(frozen=True)
class TaskResult:
    """What became of a task; a value, also when it failed.

    An ``ok`` update has ``weights`` (mapped from ``reply``) and ``num_examples``; ``ok`` sets have ``sets`` likewise,
    in the task's order; ``ok`` metrics have ``metrics``.
    """

    task: Task
    status: Literal["ok", "failed", "cancelled"]
    failure: Failure | None = None
    reply: Path | None = None
    reply_bytes: int = 0
    reply_checksum: str = ""  # of the reply's folder
    sent_bytes: int | None = None  # what travelled from the client, if that was not the reply's file as it is
    converted: str | None = None  # which dtypes of the reply were not the global model's
    weights: Weights | None = None
    sets: Mapping[str, Weights] = field(default_factory=dict)
    num_examples: float | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    metrics: Json = None
    exit_code: int | None = None
    signal: int | None = None
    command: str = ""
    log_tail: str = ""
    keeps_state: bool = False  # ``task.next_state`` is there, and differs from the package as it was unpacked
    state_checksum: str = ""  # of ``task.next_state``, if it is kept
    started_at: float = 0.0  # seconds since the epoch
    wall_s: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds by what they were spent on

    def closed(self) -> TaskResult:
        """The same result without its weights: the file is mapped no more, and can be opened again."""
        return dataclasses.replace(self, weights=None, sets={})


class Executor(Protocol):
    """Runs tasks somewhere. The controller knows nothing else of processes, clusters or networks."""

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""
        ...

    @property
    def is_warming(self) -> bool:
        """Whether a task waits for an interpreter that does its imports. For people who wait."""
        ...

    def submit(self, task: Task) -> Future[TaskResult]:
        """Queue a task. Its future always gets a `TaskResult`, never an exception, unless fedpkg itself is at fault."""
        ...

    def cancel(self, task_id: str) -> None:
        """End a task that is queued or running; its result then says ``cancelled``. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """End every task and every process of this executor; returns when they are gone."""
        ...
