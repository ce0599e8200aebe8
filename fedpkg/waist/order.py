"""What is asked of one call of an entry point: an order, and what its reply must be."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from fedpkg.types import Content, ReplyKind, Use
from fedpkg.waist.wire import to_json

THREADS_EACH = 8  # on average: `processes` counts processes, but none may have threads without end
LEAST_SESSIONS, PROCESSES_EACH = 8, 32
# In the place of a client's id: of the one `startup` for all clients of a session. No client's id begins so.
ALL = ".all"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


NO_LIMITS = Limits()


class Isolation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a task sees its package, its folders and its data only; what else it may have is said here."""

    network: bool = False
    read: tuple[str, ...] = ()  # files and folders


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One tensor of a reply: its name, dtype (as PyTorch calls it, without ``torch.``), shape, and whether it is none
    of the parameters."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_buffer: bool = False


class ReplySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reply must be. Equal for all clients of a request, it is handed over once, and named by its digest.

    Args:
        tensors: of the model that the input stands for; an update must fit them. None: nothing is known of it.
        reply: what the tensors of an update are: ``weights``, or a ``delta`` or ``gradient``.
        sets: that a reply of kind ``sets`` holds, in this order, and what each must fit; None: anything.
        transforms: of an update on its way, as sections of a run.yaml.
        weighted: an update must say its num_examples, else all weigh the same, 1. Metrics and records may say it: then
            it must be usable.
        use: what becomes of the reply's numbers, which says how large they may be.
        suffix: of the model files.
        max_bytes: of the reply's file; None: it follows from the tensors.
    """

    kind: ReplyKind
    tensors: tuple[TensorSpec, ...] | None = None
    reply: Content = "weights"
    sets: dict[str, tuple[TensorSpec, ...] | None] = {}
    transforms: tuple[dict[str, Any], ...] = ()
    weighted: bool = True
    use: Use = "averaged"
    suffix: str = ".npz"
    max_bytes: int | None = None

    @property
    def parameter_names(self) -> list[str] | None:
        """Names of the model's tensors that are parameters; None: the model is not known."""
        return None if self.tensors is None else [one.name for one in self.tensors if not one.is_buffer]

    @property
    def has_rest(self) -> bool:
        """Whether a delta comes with the tensors that are no parameters, as they are."""
        return self.reply == "delta" and any(one.is_buffer for one in self.tensors or ())


def digest_of(spec: ReplySpec) -> str:
    """By which orders name what their reply must be: sha256, in hexadecimal."""
    return hashlib.sha256(to_json(spec)).hexdigest()


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a task gets as its input model.

    Args:
        reference: names the file to the side that asks. What is under it does not change while the executor lives; a
            later one may find other bytes there, unless it has a digest.
        size_bytes: of the file.
        digest: of the file, sha256 in hexadecimal; empty where it is not known.
        sets: names of the sets in it, if it holds several.
        model: which of these is the model that an update must fit; empty: none, or the file has one set only.
        records: it is a file of records.
    """

    reference: str
    size_bytes: int
    digest: str = ""
    sets: tuple[str, ...] = ()
    model: str = ""
    records: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of one entry point for one client: everything that the side which runs it has to know.

    Args:
        task_id: of this attempt; no other has it.
        attempt: how often the round has called that entry point for that client, this call included.
        request_id: of the strategy's request; None: it builds the seed, or is called by hand.
        partition_id: the client's place among the session's clients.
        package: its digest.
        reply_spec: digest of the `ReplySpec`.
        input: None: the entry point takes only an output path.
        arguments: become ``--key=value``.
        parameters: of the strategy; they travel in task.json.
        data: names the client's data to the side that runs the task: a path, there.
        links: in the folder of fedn.yaml, for packages that look for their data there: name, and where inside the
            data it leads.
        state: token of the client's state; None: it starts from the package.
        starts_up: the client's first task: the package's entry point ``startup`` runs before, in the same place.
        started: token of the state that an order of the client `ALL` has left: clients start from it in place of the
            package, and share its big files.
    """

    task_id: str
    session_id: str
    round_number: int
    client_id: str
    entry_point: str
    package: str
    reply_spec: str
    attempt: int = 1
    request_id: str | None = None
    partition_id: int = 0
    num_partitions: int = 1
    input: Input | None = None
    arguments: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    run_config: dict[str, Any] = {}
    environment: dict[str, str] = {}
    seed: int = 0
    data: str | None = None
    links: dict[str, str] = {}
    state: str | None = None
    starts_up: bool = False
    started: str | None = None
    threads: int = 1
    timeout_s: float | None = None
    limits: Limits = NO_LIMITS
    isolation: Isolation | None = None
    log_bytes: int = 1 << 20

    @property
    def call(self) -> str:
        """The name of this attempt in its round and client: ``train``, ``train-2`` …"""
        return name_of_call(self.entry_point, self.attempt)

    @property
    def is_for_all(self) -> bool:
        """Whether all clients of the session start from what it leaves."""
        return self.client_id == ALL


def name_of_call(entry_point: str, attempt: int) -> str:
    return entry_point if attempt == 1 else f"{entry_point}-{attempt}"
