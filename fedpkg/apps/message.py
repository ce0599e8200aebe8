"""Messages between the server's program and its clients, and what is said about each."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from fedpkg.apps import identity
from fedpkg.records.record_dict import RecordDict

DEFAULT_TTL = 43200.0  # 12 hours
_TTL_TOLERANCE = 0.1  # seconds that pass between the construction of a message and that of its reply
_CATEGORIES = ("train", "evaluate", "query", "system")
_log = logging.getLogger("fedpkg.apps")


class MessageType:
    """The categories of messages. A type is a category, or a category and an action: ``"train.apply_gradients"``."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"
    SYSTEM = "system"


class MessageInitializationError(TypeError):
    """A Message was constructed from arguments that do not belong together."""


LAST_CODE = 125  # of an error that a client replies with: it is an exit code, and larger ones are shells' and signals'


class ErrorCode(IntEnum):
    """Why a message has an error instead of content."""

    UNKNOWN = 0
    LOAD_CLIENT_APP_EXCEPTION = 1
    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    MOD_FAILED_PRECONDITION = 6
    INVALID_FAB = 7
    CLIENT_APP_CRASHED = 8


@dataclass(frozen=True)
class Error:
    """Why there is no content: a code (see `ErrorCode`) and a text."""

    code: int
    reason: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.code, bool) or not isinstance(self.code, int):
            raise TypeError(f"Error: code must be int, got {type(self.code).__name__} ({self.code!r:.60})")
        if self.reason is not None and not isinstance(self.reason, str):
            raise TypeError(f"Error: reason must be str or None, got {type(self.reason).__name__}; write str(reason)")
        object.__setattr__(self, "code", int(self.code))


class Metadata:
    """What is said about a message.

    Equal if all fields are; it has no hash, as some of them can change.

    Attributes:
        run_id: The run that the message belongs to.
        message_id: The id of the message.
        src_node_id: The node that built the message.
        dst_node_id: The node that gets the message.
        reply_to_message_id: The id of the message that this one replies to, or ``""``.
        group_id: A name for messages that belong together, such as the number of a round.
        created_at: Seconds since 1970.
        ttl: The seconds after ``created_at`` in which a reply is wanted.
        message_type: A category, or a category and an action; see `MessageType`.
        delivered_at: When it was delivered, as text.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        run_id: int,
        message_id: str,
        src_node_id: int,
        dst_node_id: int,
        reply_to_message_id: str,
        group_id: str,
        created_at: float,
        ttl: float,
        message_type: str,
    ) -> None:
        self.run_id: Final = run_id
        self.message_id: Final = message_id
        self.src_node_id: Final = src_node_id
        self.reply_to_message_id: Final = reply_to_message_id
        self.dst_node_id = dst_node_id
        self.group_id = group_id
        self.created_at = created_at
        self.ttl = ttl
        self.message_type = message_type
        self.delivered_at = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in vars(self):
            raise AttributeError(f"the {name} of a message cannot be changed: build another Message")
        check = _CHECKS.get(name)
        object.__setattr__(self, name, check(name, value) if check else value)

    def as_dict(self) -> dict[str, Any]:
        """All fields, as `Metadata` takes them."""
        return {name: getattr(self, name) for name in FIELDS}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Metadata):
            return NotImplemented
        return (self.as_dict(), self.delivered_at) == (other.as_dict(), other.delivered_at)

    def __repr__(self) -> str:
        return f"Metadata({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


class Message:
    """A message: a RecordDict, or an error, and metadata.

        Message(content, dst_node_id, message_type)     an instruction to a node
        Message(content, reply_to=message)              the reply to a message; Message(error, reply_to=message)

    Messages are compared by identity: compare their ``content`` and ``metadata``.

    Args:
        content: A RecordDict, or an Error in place of it.
        ttl: Seconds in which a reply is wanted: 12 hours if None. A reply has what is left of its message's.
        group_id: A name for messages that belong together. A reply has its message's.

    Raises:
        MessageInitializationError: If the arguments do not belong together.
    """

    def __init__(
        self,
        content: RecordDict | Error | None = None,
        dst_node_id: int | None = None,
        message_type: str | None = None,
        *,
        ttl: float | None = None,
        group_id: str | None = None,
        reply_to: Message | None = None,
        metadata: Metadata | None = None,
        error: Error | None = None,
    ) -> None:
        given = [one for one in (content, error) if one is not None]
        if len(given) != 1:
            raise MessageInitializationError(f"a message has either content or an error; {_FORMS}")
        [what] = given
        if not isinstance(what, (RecordDict, Error)) or (error is not None and not isinstance(error, Error)):
            kind = type(what).__name__
            write = "RecordDict({'name': record})" if isinstance(what, dict) or "Record" in kind else "RecordDict()"
            raise MessageInitializationError(f"the content of a message is a RecordDict, got {kind}; write {write}")
        others = {"dst_node_id": dst_node_id, "message_type": message_type, "group_id": group_id}
        superfluous = [name for name, value in others.items() if value is not None]
        if metadata is not None:
            superfluous += [name for name, value in (("ttl", ttl), ("reply_to", reply_to)) if value is not None]
            if superfluous or not isinstance(metadata, Metadata):
                raise MessageInitializationError(f"metadata has all that is said about a message; {_FORMS}")
        elif reply_to is not None:
            if superfluous or not isinstance(reply_to, Message):
                named = f"; leave out {' and '.join(superfluous)}" if superfluous else ""
                raise MessageInitializationError(f"a reply takes these from its message{named}; {_FORMS}")
            metadata = _of_reply(reply_to.metadata, ttl)
        elif dst_node_id is None or message_type is None:
            raise MessageInitializationError(f"a message needs a node and a type, or reply_to; {_FORMS}")
        else:
            metadata = _of_instruction(dst_node_id, message_type, ttl, group_id)
        self._metadata = metadata
        self._what = what

    @property
    def metadata(self) -> Metadata:
        """What is said about the message."""
        return self._metadata

    @property
    def content(self) -> RecordDict:
        """What the message contains. Raises ValueError if it has an error instead."""
        if isinstance(self._what, Error):
            raise ValueError(f"the message has no content but an error ({self._what}); ask message.has_content() first")
        return self._what

    @content.setter
    def content(self, value: RecordDict) -> None:
        if isinstance(self._what, Error):
            raise ValueError("a message with an error cannot get content: build another Message")
        if not isinstance(value, RecordDict):
            raise TypeError(f"the content of a message is a RecordDict, got {type(value).__name__}")
        self._what = value

    @property
    def error(self) -> Error:
        """Why there is no content. Raises ValueError if there is."""
        if isinstance(self._what, Error):
            return self._what
        raise ValueError("the message has no error but content; ask message.has_error() first")

    @error.setter
    def error(self, value: Error) -> None:
        if not isinstance(self._what, Error):
            raise ValueError("a message with content cannot get an error: build another Message")
        if not isinstance(value, Error):
            raise TypeError(f"the error of a message is an Error, got {type(value).__name__}; write Error(0, reason)")
        self._what = value

    def has_content(self) -> bool:
        """Whether the message has content."""
        return not self.has_error()

    def has_error(self) -> bool:
        """Whether the message has an error in place of content."""
        return isinstance(self._what, Error)

    def create_reply(self, content: RecordDict, ttl: float | None = None) -> Message:
        """Deprecated: ``Message(content, reply_to=message)``."""
        warnings.warn("create_reply is deprecated: Message(content, reply_to=message)", DeprecationWarning, 2)
        return Message(content, reply_to=self, ttl=ttl)

    def create_error_reply(self, error: Error, ttl: float | None = None) -> Message:
        """Deprecated: ``Message(error, reply_to=message)``."""
        warnings.warn("create_error_reply is deprecated: Message(error, reply_to=message)", DeprecationWarning, 2)
        return Message(error, reply_to=self, ttl=ttl)

    def __repr__(self) -> str:
        what = f"error={self._what!r}" if self.has_error() else f"content={self._what!r}"
        return f"Message({what}, metadata={self._metadata!r})"


_FORMS = (
    "write Message(content, dst_node_id, message_type), Message(content, reply_to=message), or Error(code, reason) in "
    "place of the content"
)


def _of_instruction(dst_node_id: int, message_type: str, ttl: float | None, group_id: str | None) -> Metadata:
    me = identity.current()
    return Metadata(
        run_id=me.run_id,
        message_id=me.next_message_id(),
        src_node_id=me.node_id,
        dst_node_id=dst_node_id,
        reply_to_message_id="",
        group_id="" if group_id is None else group_id,
        created_at=me.now(),
        ttl=DEFAULT_TTL if ttl is None else ttl,
        message_type=message_type,
    )


def _of_reply(to: Metadata, ttl: float | None) -> Metadata:
    me = identity.current()
    now = me.now()
    left = to.created_at + to.ttl - now
    if ttl is not None and _seconds("ttl", ttl) - left > _TTL_TOLERANCE:
        _log.warning("ttl of a reply was reduced from %.2f s to the %.2f s that its message has left", ttl, left)
        ttl = None
    return Metadata(
        run_id=to.run_id,
        message_id=me.next_message_id(),
        src_node_id=to.dst_node_id,
        dst_node_id=to.src_node_id,
        reply_to_message_id=to.message_id,
        group_id=to.group_id,
        created_at=now,
        ttl=left if ttl is None else ttl,
        message_type=to.message_type,
    )


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be int, got {type(value).__name__} ({value!r:.60})")
    return int(value.__index__())


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, got {type(value).__name__} ({value!r:.60}); write {str(value)!r:.60}")
    return value


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise TypeError(f"{name} must be a number of seconds, got {type(value).__name__} ({value!r:.60})")
    return float(value)


def _type(name: str, value: object) -> str:
    category, dot, action = value.partition(".") if isinstance(value, str) else ("", "", "")
    if isinstance(value, str) and category in _CATEGORIES and (action.isidentifier() or not dot):
        return value
    better = action.replace("-", "_")
    write = f"; an action is a Python identifier, write '{category}.{better}'" if better.isidentifier() else ""
    raise ValueError(
        f"invalid message type {value!r:.80}: expected '<category>' or '<category>.<action>' with a category of "
        f"{', '.join(_CATEGORIES)}{write if category in _CATEGORIES else ''}"
    )


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "run_id": _integer,
    "message_id": _text,
    "src_node_id": _integer,
    "dst_node_id": _integer,
    "reply_to_message_id": _text,
    "group_id": _text,
    "created_at": _seconds,
    "ttl": _seconds,
    "message_type": _type,
}
_FIXED = ("run_id", "message_id", "src_node_id", "reply_to_message_id")
FIELDS = tuple(_CHECKS)
