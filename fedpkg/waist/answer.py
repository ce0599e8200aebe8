"""The answer to an order, which may also be a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from fedpkg.shown import shown

Status: TypeAlias = Literal["ok", "failed", "cancelled"]
# The values of `Failure.kind`, with their meanings.
FAILURES: Mapping[str, str] = {
    "exit_code": "the command ended with an exit code other than 0",
    "signal": "a signal ended the command; also the kernel's, when the machine ran out of memory",
    "timeout": "the task ran longer than `executor.timeout_s`",
    "survivors": "the task left processes that cannot be killed",
    "no_file": "the task wrote no reply",
    "not_a_file": "the reply is a link, a folder, or a file with several names",
    "too_big": "the reply is larger than `limits.reply_bytes`",
    "bad_file": "the reply cannot be read, or was damaged on its way",
    "mismatch": "the names, dtypes or shapes of the reply's tensors are not those that were asked for",
    "not_finite": "the reply has NaN or infinite values",
    "too_large": "the reply has numbers too large for the strategy to add up or to square",
    "num_examples": "`num_examples` is missing, negative, not finite, or not a number",
    "bad_metadata": "the metadata beside the reply are not a JSON object that can be read",
    "bad_json": "the metrics are not JSON that can be read",
    "bad_answer": "the executor gave the answer of another task",
    "bad_state": "what the task left in its folders cannot be kept as the client's state",
    "not_allowed": "the policy of the algorithm's node does not allow the call",
    "combiner": "a combiner of a tree had too few replies, or its strategy made no model; no task has this word",
    "wrote_input": "the task changed its read-only input",
    "round_timeout": "the client did not answer within `round.timeout_s`",
    "dropout": "`sampler.dropout` made the client drop out; the task never ran",
    "no_space": "the disk is full; such a task is not recorded, and the session stops",
    "executor": "the executor could not run the task, for a reason that is not the client's",
    "isolation": "the task could not be isolated, and so it was not run",
    "memory": "the task exceeded `limits.memory_bytes`",
    "cpu_time": "the task exceeded `limits.cpu_s`",
    "file_size": "the task exceeded `limits.file_bytes`",
    "folder_size": "the task exceeded `limits.folder_bytes`",
    "folder_files": "the task exceeded `limits.folder_files`",
    "open_files": "the task exceeded `limits.open_files`",
    "processes": "the task exceeded `limits.processes`",
}


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason why a task failed. ``kind`` is one word for programs, ``message`` is a line for users.

    The message may quote text of the client, so it is escaped here, before it reaches the store or a terminal.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", shown(self.message))


class Refused(Exception):
    """A client's reply, or state, is not as requested; has the failure to record."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class ReplyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reply, where the task ran, until it is fetched.

    Args:
        name: The name of its file; its metadata file is beside it.
        size_bytes: The size of that file.
        checksum: The checksum of the files together.
    """

    name: str
    size_bytes: int
    checksum: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The resources that a task's processes used; None: unknown.

    Args:
        cpu_s: Processor seconds, in system and user mode.
        peak_memory_bytes: The peak of a single process; or of all together, if they exceeded the limit.
    """

    cpu_s: float | None = None
    peak_memory_bytes: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of an order; also of a task that failed.

    Args:
        reply: The reply of a task that is ok and had to write a file.
        num_examples: The weight of an update or of sets; None for other replies.
        metadata: The metadata of the reply.
        metrics: The metrics, if the reply is of that kind.
        converted: The dtypes of the reply that differ from the global model's, as text.
        state: The token of the client's state after the task; None: the next task starts from the package.
        state_checksum: The checksum of that state.
        folder: The folder of the task's logs, for users: a name below the home of the side that ran it.
        started_at: Seconds since the epoch.
        phases: The seconds spent on each phase.
    """

    task_id: str
    status: Status
    failure: Failure | None = None
    reply: ReplyFile | None = None
    num_examples: float | None = None
    metadata: dict[str, Any] = {}
    metrics: Any = None
    converted: str | None = None
    state: str | None = None
    state_checksum: str = ""
    exit_code: int | None = None
    signal: int | None = None
    command: str = ""
    log_tail: str = ""
    folder: str = ""
    started_at: float = 0.0
    wall_s: float = 0.0
    phases: dict[str, float] = {}
    usage: Usage = Usage()
