"""What came of an order: an answer, also where the task failed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from fedpkg.shown import shown

Status: TypeAlias = Literal["ok", "failed", "cancelled"]


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a task did not give what was asked. ``kind`` is one word for machines, ``message`` is a line for people.

    The message may quote what the client wrote, so it is escaped here, before it reaches the store or a terminal.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "message", shown(self.message))


class Refused(Exception):
    """What a client sent, or left, is not as asked; carries the failure to record."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class ReplyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reply, as it lies where the task ran until it is fetched.

    Args:
        name: of its file; its metadata lie beside it.
        size_bytes: of that file.
        checksum: of the files together.
    """

    name: str
    size_bytes: int
    checksum: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a task's processes used; None: not known.

    Args:
        cpu_s: processor seconds, of the system and of the task's own.
        peak_memory_bytes: the most that a single one of them had; more, where all together were found over the limit.
    """

    cpu_s: float | None = None
    peak_memory_bytes: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of an order; a value, also when the task failed.

    Args:
        reply: of a task that is ok and was asked for a file.
        num_examples: the weight of an update or of sets; None: of other replies.
        metadata: that came beside the reply.
        metrics: of a reply of that kind.
        converted: which dtypes of the reply are not the global model's, in words.
        state: token of the state that the task left its client; None: none, the next task starts from the package.
        state_checksum: of that state.
        folder: where the task's logs are: a name for people, below the home of the side that ran it.
        started_at: seconds since the epoch.
        phases: seconds by what they were spent on.
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
