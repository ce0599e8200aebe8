"""Orders, each for one call of an entry point, and the specifications of their replies."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from fedpkg.types import Content, ReplyKind, Use
from fedpkg.waist.wire import to_json

THREADS_EACH = 8  # on average: `processes` limits processes, but the number of threads must be limited too
LEAST_SESSIONS, PROCESSES_EACH = 8, 32
# In place of a client's id, for a `startup` that is shared by all clients of a session. Client ids have no such prefix.
ALL = ".all"
SERVER = ".server"  # … for a measurement on the server's data


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one task; None: no limit. `LimitsConfig` describes each."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    file_bytes: int | None = None
    folder_bytes: int | None = None
    folder_files: int | None = None
    open_files: int | None = None
    processes: int | None = None

    @property
    def threads(self) -> int | None:
        """The number of threads of all its processes together."""
        return None if self.processes is None else THREADS_EACH * self.processes

    @property
    def sessions(self) -> int | None:
        """The number of sessions (setsid) of its processes: Linux divides processor time among sessions, not tasks."""
        return None if self.processes is None else max(LEAST_SESSIONS, self.processes // PROCESSES_EACH)


NO_LIMITS = Limits()


class Isolation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Isolation, in which a task sees only its package, its folders and its data; and exceptions from it."""

    network: bool = False
    read: tuple[str, ...] = ()  # files and folders


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One tensor of a reply: its name, dtype (PyTorch's name without ``torch.``), shape, and whether it is a buffer
    and not a parameter."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_buffer: bool = False


class ReplySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The specification of a reply. It is the same for all clients of a request, registered once, and identified by its
    digest.

    Args:
        tensors: The tensors of the input model, which an update must fit. None: unknown.
        reply: What an update consists of: ``weights``, or a ``delta`` or ``gradient``.
        sets: The sets in a reply of kind ``sets``, in this order, and the template of each; None: any tensors.
        transforms: The transforms of an update on its way, as sections of a run.yaml.
        weighted: Whether an update must have its num_examples; otherwise all have the weight 1. Metrics and records
            need not have it, but if they do, it must be usable.
        use: The use of the reply's values, which determines how large they may be.
        suffix: The suffix of the model files.
        max_bytes: The maximum size of the reply's file; None: it follows from the tensors.
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
        """Names of the model's tensors that are parameters; None if the model is unknown."""
        return None if self.tensors is None else [one.name for one in self.tensors if not one.is_buffer]

    @property
    def has_rest(self) -> bool:
        """Whether a delta also contains the tensors that are not parameters, unchanged."""
        return self.reply == "delta" and any(one.is_buffer for one in self.tensors or ())


def digest_of(spec: ReplySpec) -> str:
    """The digest by which orders refer to it: sha256, in hexadecimal."""
    return hashlib.sha256(to_json(spec)).hexdigest()


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that a task gets as its input model.

    Args:
        reference: Identifies the file to the side that sends the order. Its contents do not change while the executor
            exists; a later executor may find other bytes, unless it has a digest.
        size_bytes: The size of the file.
        digest: The sha256 of the file in hexadecimal; empty if unknown.
        sets: Names of the sets in it, if there are several.
        model: The one of these sets that is the model that an update must fit; empty: none, or the only set.
        records: Whether it is a file of records.
    """

    reference: str
    size_bytes: int
    digest: str = ""
    sets: tuple[str, ...] = ()
    model: str = ""
    records: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of one entry point for one client: everything that the side that runs it needs.

    Args:
        task_id: A unique id of this attempt.
        attempt: The number of calls of that entry point for that client in the round, including this one.
        request_id: The id of the strategy's request; None: it builds the seed, or is called by hand.
        partition_id: The client's position among the session's clients.
        attributes: Those of the client's entity (`clients.entities`), which are in task.json.
        package: The digest of the package.
        reply_spec: The digest of the `ReplySpec`.
        input: The input; None: the entry point takes only an output path.
        arguments: The arguments, which are appended to the command.
        argument_style: How they are written (`RunConfig.argument_style`); empty: as the package defines it.
        parameters: The parameters of the strategy, which are in task.json.
        data: The path of the client's data on the side that runs the task.
        links: Links for packages that expect their data beside fedn.yaml: the name, and the target inside the data.
        state: The token of the client's state; None: it starts from the package.
        starts_up: Whether it is the client's first task, before which ``startup`` runs in the same place.
        started: The token of the state that an order of the client `ALL` has left: clients start from it in place of
            the package, and share its big files.
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
    attributes: dict[str, Any] = {}
    input: Input | None = None
    arguments: dict[str, Any] = {}
    argument_style: str = ""
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
        """The name of this attempt in its round, for its client: ``train``, ``train-2`` …"""
        return name_of_call(self.entry_point, self.attempt)

    @property
    def is_for_all(self) -> bool:
        """Whether all clients of the session start from the state that it leaves."""
        return self.client_id == ALL


def name_of_call(entry_point: str, attempt: int) -> str:
    return entry_point if attempt == 1 else f"{entry_point}-{attempt}"
