"""The protocol of a coordinator: JSON frames with a length prefix, and tensors in files beside them.

A frame is 4 bytes of length (big-endian), then JSON. ``fedpkg/client/coordinator.py`` is the other end; it describes
the messages to the coordinator.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from fedpkg.errors import SessionFailed
from fedpkg.shown import shown

VERSION = 1
VARIABLE = "FEDPKG_COORDINATOR"  # environment variable: the file descriptor of the coordinator's end of the socket
MAX_MESSAGE_BYTES = 8 << 20
MAX_CHECKPOINT_BYTES = 16 << 20
MAX_REQUESTS = 10_000  # per message
ALIGNMENT = 64  # of the parts of a file, so that their tensors can be mapped
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_QUOTED = 300  # number of characters of a message in an error


class Hello(msgspec.Struct, tag="hello", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The first message."""

    protocol: int


class Mean(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mean of the arrays in replies of a message app: see `fedpkg.client.coordinator.Mean`."""

    arrays: str
    weight: str
    needs_sent: bool = False
    use: Literal["averaged", "stepped"] = "averaged"


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request: see `fedpkg.strategies.base.Request`. ``payload`` names a file of a model or of records; None: the
    round's model, or empty records if there is no model. ``payloads`` are records for single clients, each a part of a
    file: its name, and the offset and the length of the part.
    """

    id: str
    entry_point: str = "train"
    clients: list[str] | None = None
    group: str | None = None
    reply_kind: Literal["update", "sets", "metrics", "records"] = "update"
    reply: Literal["weights", "delta", "gradient"] = "weights"
    sets: list[str] = []
    parameters: dict[str, Any] = {}
    payload: str | None = None
    payload_kind: Literal["model", "records"] = "model"
    required: int | None = None
    wait: Literal["all", "nothing"] | int = "all"
    payloads: dict[str, tuple[str, int, int]] = {}
    timeout_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    phase: Literal["train", "validate"] | None = None
    mean: Mean | None = None


class Ask(msgspec.Struct, tag="ask", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Requests that are sent at once; the answer has the replies to all of them that do not stay outstanding."""

    requests: list[Wanted]


class Await(msgspec.Struct, tag="await", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Outstanding requests that have ended, in order of arrival: see `fedpkg.strategies.base.Arrived`."""

    number: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1


class Commit(msgspec.Struct, tag="commit", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The end of a round. ``model`` and ``checkpoint`` name files. ``mean_of`` is a request of this round, the mean of
    whose replies is the model. Without both, the model is unchanged.
    """

    model: str | None = None
    metrics: dict[str, Any] = {}
    finished: str | None = None
    checkpoint: str | None = None
    mean_of: str | None = None


class Log(msgspec.Struct, tag="log", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """A line for the session's log. Lines are not compared when messages are sent again."""

    text: str


class Announce(msgspec.Struct, tag="announce", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The number of rounds that the session will probably have. It is shown, and not compared."""

    rounds: Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Error(msgspec.Struct, tag="error", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The coordinator gives up, so the session fails."""

    text: str


Message: TypeAlias = Hello | Ask | Await | Commit | Log | Announce | Error
_decoder = msgspec.json.Decoder(Message)


def decode(body: bytes) -> Message:
    """Decode a message. Raises SessionFailed: it is not a message of the protocol."""
    try:
        message: Message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SessionFailed(f"not a message of the protocol: {error}; it sent {quoted(body)}") from error
    if isinstance(message, Ask) and not 0 < len(message.requests) <= MAX_REQUESTS:
        raise SessionFailed(f"it sends {len(message.requests)} requests at once; 1 to {MAX_REQUESTS} are allowed")
    for name in files_of(message):
        if not _NAME.fullmatch(name):
            raise SessionFailed(f"'{shown(name[:100])}' is not the name of a file in its folder for files")
    return message


def files_of(message: Message) -> list[str]:
    """The names of a message's files."""
    if isinstance(message, Ask):
        return list(dict.fromkeys([*models_of(message), *records_of(message)]))
    if isinstance(message, Commit):
        return list(dict.fromkeys(name for name in (message.model, message.checkpoint) if name is not None))
    return []


def models_of(message: Ask) -> list[str]:
    """The names of the files of models."""
    return [one.payload for one in message.requests if one.payload is not None and one.payload_kind == "model"]


def records_of(message: Ask) -> list[str]:
    """The names of the files of records."""
    whole = [one.payload for one in message.requests if one.payload is not None and one.payload_kind == "records"]
    return whole + [name for one in message.requests for name, _, _ in one.payloads.values()]


def quoted(body: bytes) -> str:
    """The first characters of a message, for errors."""
    text = body[:_QUOTED].decode(errors="replace")
    return shown(text) + (" …" if len(body) > _QUOTED else "")


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def send(fd: int, body: bytes) -> None:
    """Send a frame. Raises OSError: the other side has ended."""
    left = memoryview(struct.pack(">I", len(body)) + body)
    while left:
        left = left[os.write(fd, left) :]


def receive(read: Callable[[int], bytes]) -> bytes | None:
    """The next frame's body; None: the other side has ended.

    Raises:
        SessionFailed: the frame is too long.
    """
    header = _exactly(read, 4)
    if header is None:
        return None
    (length,) = struct.unpack(">I", header)
    if length > MAX_MESSAGE_BYTES:
        raise SessionFailed(f"a message of {length} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    return _exactly(read, length)


def _exactly(read: Callable[[int], bytes], count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        part = read(min(count - len(data), 1 << 16))
        if not part:
            return None
        data += part
    return bytes(data)
