"""The nodes of a session as a ServerApp sees them: it sends them messages, and gets their replies in a fixed order.

Each node is a client of the session; its id is the position of the client, plus 1. A grid also decides where rounds of
the session end, as a message app does not say so: see `Grid`.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from fedpkg.apps import identity
from fedpkg.apps.message import LAST_CODE, Error, ErrorCode, Message, Metadata
from fedpkg.apps.message_file import read_reply
from fedpkg.client import arrays as array_files
from fedpkg.client.coordinator import Failure, Kept, Mean, Replies, Request, SessionEnded, Step, Written
from fedpkg.client.records import write_records_to
from fedpkg.records.array import Array
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.files import to_records
from fedpkg.records.record_dict import RecordDict

SERVER_NODE_ID = 0
ENDED = "ended"  # the reason that is committed with the last round of an app that has returned
_PHASES = {"train": "train", "evaluate": "validate"}  # of the metrics in replies, by the category of the message
_UNAVAILABLE = frozenset(("dropout", "not_asked"))
_LATE = frozenset(("round_timeout", "timeout"))
_log = logging.getLogger("fedpkg.apps")


@dataclass(frozen=True)
class NodeInfo:
    """What is known about a node. ``attributes`` are those of its entity (`clients.entities` of the run.yaml)."""

    node_id: int
    partition_id: int
    client_id: str
    groups: tuple[str, ...] = ()
    num_examples: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NodesMean:
    """The mean of the arrays in replies.

    Attributes:
        arrays: The mean; None: there is none.
        left_out: By node, why a reply is not used.
        converted: The first array whose precision was converted.
        is_other: The replies have other arrays than were sent.
        error: Why usable replies have no mean.
    """

    arrays: ArrayRecord | None
    left_out: Mapping[int, str]
    converted: str
    is_other: bool
    error: str


@dataclass(frozen=True)
class Run:
    """The run of the app."""

    run_id: int


class Grid:
    """Sends messages to nodes, and gives their replies.

    A session consists of rounds, which are recorded. A strategy says where they end (`announce`, `end_round`). Without
    one, a message of a type whose replies have been received in this round begins the next round. A round is recorded
    when the next one begins, or when the app returns.

    Args:
        rounds: those of `fedpkg.client.coordinator`.
    """

    def __init__(self, rounds: Iterator[Step], *, seed: int = 0) -> None:
        self._rounds = rounds
        self._ends: dict[str, Any] | None  # what the round is committed with, once it is ended
        self._answered: set[str]  # types of messages to which replies were received in this round
        self._mean: tuple[ArrayRecord, Kept] | None  # of replies in this round, which can be its model
        self._begin(next(rounds))
        self._run = Run(identity.run_id_of(f"run {seed}"))
        # The time of all messages: that of now would be another one when a resumed session sends them again.
        self._now = self._step.created_at
        identity.use(identity.Identity(self._run.run_id, SERVER_NODE_ID, now=lambda: self._now))
        self._left = 0  # rounds that a strategy has announced and not ended
        self._outstanding: dict[tuple[int | None, str], Message] = {}
        self._arrived: dict[str, Message] = {}
        self._pushed: set[str] = set()
        self._said: set[str] = set()

    # ---- nodes

    @property
    def run(self) -> Run:
        """The run of the app."""
        return self._run

    @property
    def run_id(self) -> int:
        """The id of the run. It follows from the seed of the session."""
        return self._run.run_id

    def set_run(self, run_id: int) -> None:
        """Nothing: a grid belongs to one run."""

    @property
    def round_number(self) -> int:
        """The number of the session's current round, from 1."""
        return self._step.round_number

    @property
    def run_config(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return self._step.run_config

    def get_nodes(self) -> list[NodeInfo]:
        """All nodes that can get messages, in the order of their ids."""
        found = (
            NodeInfo(
                one.position + 1, one.position, one.client_id, tuple(one.groups), one.num_examples, dict(one.attributes)
            )
            for one in self._step.clients
        )
        return sorted(found, key=lambda node: node.node_id)

    def get_node_ids(self) -> list[int]:
        """The ids of all nodes that can get messages, in order."""
        return [node.node_id for node in self.get_nodes()]

    # ---- messages

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Deprecated: ``Message(content, dst_node_id, message_type, group_id=…)``."""
        about = "grid.create_message is deprecated: Message(content, dst_node_id, message_type, group_id=group_id)"
        warnings.warn(about, DeprecationWarning, stacklevel=2)
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages, and wait for the replies: one for each message, in the order of the messages.

        Where a node has no usable reply, the reply has an error. ``timeout`` are seconds after which the nodes that
        have not answered have none.

        Raises:
            ValueError: A message is for a node that does not exist, or cannot be sent.
        """
        sent = self._checked(messages)
        if not sent:
            return []
        if self._are_busy(sent):
            return self._after_outstanding(sent, timeout)
        return self._exchanged(sent, timeout)[0]

    def send_and_average(
        self, messages: Sequence[Message], mean: Mean, *, timeout: float | None = None
    ) -> tuple[list[Message], NodesMean] | None:
        """As `send_and_receive`, but fedpkg averages the arrays of the replies, which then have none.

        None: these messages, or this session, do not allow it; nothing was sent.
        """
        sent = self._checked(messages)
        nodes = {message.metadata.dst_node_id for message in sent}
        is_one_request = len(_Contents(sent)) == 1 and len(nodes) == len(sent)
        if not is_one_request or not self._step.averages or self._are_busy(sent):
            return None
        replies, [told] = self._exchanged(sent, timeout, mean=mean)
        assert told.mean is not None
        arrays = None
        if told.mean.path is not None:
            found = array_files.open_file(told.mean.path)
            arrays = ArrayRecord({name: Array.from_plain(found[name]) for name in told.mean.names})
            self._mean = (arrays, self._step.keep_mean(told))
        left_out = {self._nodes[client_id]: reason for client_id, reason in told.mean.left_out.items()}
        return replies, NodesMean(arrays, left_out, told.mean.converted, told.mean.is_other, told.mean.error)

    def _are_busy(self, sent: Sequence[Message]) -> bool:
        """Whether nodes still have pushed messages to answer."""
        busy = {one.metadata.dst_node_id for one in self._outstanding.values()}
        return not busy.isdisjoint(one.metadata.dst_node_id for one in sent)

    def _exchanged(
        self, sent: Sequence[Message], timeout: float | None, **more: Any
    ) -> tuple[list[Message], list[Replies]]:
        self._begin_sending(sent)
        requests = self._requests(sent, timeout_s=timeout, **more)
        told = self._step.ask(*(request for request, _ in requests))
        self._answered.update(_types(sent))
        replies: dict[int, Message] = {}
        for (_, asked), came in zip(requests, told, strict=True):
            replies.update(self._replies(asked, came))
        return [replies[id(message)] for message in sent], told

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages without waiting, and return their ids. A node answers its messages one after another.

        Raises:
            ValueError: As `send_and_receive`.
        """
        sent = self._checked(messages)
        if not sent:
            return []
        self._begin_sending(sent)
        requests = [self._request([message], wait="nothing") for message in sent]
        for message, told in zip(sent, self._step.ask(*requests), strict=True):
            self._outstanding[told.round_number, told.request_id] = message
            self._pushed.add(message.metadata.message_id)
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have arrived to messages with these ids, without waiting; each is given once.

        Raises:
            ValueError: An id is not that of a message that was pushed.
        """
        ids = list(message_ids)
        if unknown := [one for one in ids if one not in self._pushed]:
            raise ValueError(f"no message with the id {unknown[0]!r:.80} was pushed")
        waits_for = {message.metadata.message_id for message in self._outstanding.values()}
        if not waits_for.isdisjoint(ids):
            self._take(self._step.arrived(0))
        return [self._arrived.pop(one) for one in ids if one in self._arrived]

    def _after_outstanding(self, sent: Sequence[Message], timeout: float | None) -> list[Message]:
        """Send to nodes that still have pushed messages to answer, which come first."""
        if timeout is not None and "timeout" not in self._said:
            self._said.add("timeout")
            _log.warning("timeout=%g has no effect for nodes that still have pushed messages to answer", timeout)
        ids = self.push_messages(sent)
        while not all(one in self._arrived for one in ids):
            if not (told := self._step.arrived(1)):
                break  # the time limit of the session's rounds is over
            self._take(told)
        late = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "no answer within round.timeout_s of the session")
        came = {one: self._arrived.pop(one) for one in ids if one in self._arrived}
        return [came.get(one.metadata.message_id) or self._reply(one, late) for one in sent]

    def _take(self, told: Sequence[Replies]) -> None:
        for came in told:
            message = self._outstanding.pop((came.round_number, came.request_id))
            [reply] = self._replies([message], came).values()
            self._arrived[message.metadata.message_id] = reply
            self._answered.add(message.metadata.message_type)

    # ---- rounds

    def announce(self, num_rounds: int) -> None:
        """Say that a strategy takes over: each of its next rounds ends with `end_round`. The number is shown."""
        before = self._step.round_number - (not self._answered and self._ends is None)
        if self._answered and self._ends is None:
            self._ends = {}
        self._left = max(0, num_rounds)
        if num_rounds > 0:
            self._step.announce(before + num_rounds)

    def stay(self) -> None:
        """Say that the messages so far belong to the round that comes next, such as a request for initial arrays."""
        self._answered.clear()

    def end_round(self, arrays: ArrayRecord | None = None, metrics: Mapping[str, Any] | None = None) -> None:
        """End the current round.

        Args:
            arrays: The global model after the round; None: it does not change.
            metrics: Numbers of the server to show with the round.
        """
        if self._ends is not None:
            self._next_round()
        self._left = max(0, self._left - 1)
        self._ends = {"model": self._kept(arrays), "metrics": _numbers(metrics or {})}

    def log(self, text: str) -> None:
        """Add a line to the session's log."""
        self._step.log(text)

    def finish(self) -> None:
        """End the session: the app has returned."""
        self._step.commit(**(self._ends or {}), finished=ENDED)
        self._ends = None

    def fail(self, reason: str) -> None:
        """End the session with an error, after the round that was ended."""
        if self._ends is not None:
            self._next_round()
        self._step.fail(reason)

    def _begin_sending(self, sent: Sequence[Message]) -> None:
        if self._ends is not None or (not self._left and not self._answered.isdisjoint(_types(sent))):
            self._next_round()

    def _next_round(self) -> None:
        self._step.commit(**(self._ends or {}))
        step = next(self._rounds, None)
        if step is None:
            raise SessionEnded("the session has ended")
        self._begin(step)

    def _begin(self, step: Step) -> None:
        self._step = step
        self._clients = {one.position + 1: one.client_id for one in step.clients}  # by node
        self._nodes = {client_id: node for node, client_id in self._clients.items()}  # by client
        self._ends, self._answered = None, set()
        self._mean = None

    def _kept(self, arrays: ArrayRecord | None) -> Kept | None:
        if not arrays:
            return None
        if self._mean is not None and self._mean[0] is arrays:
            return self._mean[1]
        plain = {name: one.plain() for name, one in arrays.items()}
        suffix = array_files.suffix_for(plain)
        return self._step.keep(Written(lambda file: array_files.write_to(file, plain, suffix=suffix), suffix))

    # ---- requests

    def _checked(self, messages: Iterable[Message]) -> list[Message]:
        sent = list(messages)
        for place, one in enumerate(sent):
            if not all(hasattr(one, name) for name in ("metadata", "has_error")):
                raise TypeError(f"messages[{place}] is a {type(one).__name__}, not a Message")
            if one.has_error():
                raise ValueError(f"messages[{place}] has an error, and only content can be sent to a node")
            if one.metadata.message_type.partition(".")[0] == "system":
                raise ValueError(f"messages[{place}]: messages of the type 'system' are not for apps")
        known = self._clients.keys()
        if unknown := sorted({one.metadata.dst_node_id for one in sent} - known):
            named = ", ".join(map(str, unknown[:5])) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            raise ValueError(
                f"there is no node {named}: grid.get_node_ids() gives the {len(known)} nodes, which have ids from "
                f"{min(known, default=0)} to {max(known, default=0)}"
            )
        if len({id(one) for one in sent}) < len(sent):
            raise ValueError("a message is sent twice at the same time: build another Message")
        return sent

    def _requests(self, sent: Sequence[Message], **more: Any) -> list[tuple[Request, list[Message]]]:
        """The fewest requests for these messages: one for each category, and for each further message of a node."""
        groups: dict[tuple[str, int], list[Message]] = {}
        times: Counter[tuple[str, int]] = Counter()
        for message in sent:
            category, node = message.metadata.message_type.partition(".")[0], message.metadata.dst_node_id
            groups.setdefault((category, times[category, node]), []).append(message)
            times[category, node] += 1
        return [(self._request(group, **more), group) for group in groups.values()]

    def _request(self, sent: Sequence[Message], **more: Any) -> Request:
        """One request for messages of a category to different nodes."""
        category = sent[0].metadata.message_type.partition(".")[0]
        contents = _Contents(sent)
        payloads = {self._clients[one.metadata.dst_node_id]: contents.written(one) for one in sent}
        is_shared = len(contents) == 1
        return Request(
            entry_point=category,
            clients=list(payloads),
            reply_kind="records",
            payload=next(iter(payloads.values())) if is_shared else None,
            payloads={} if is_shared else payloads,
            required=0,
            phase=_PHASES.get(category),
            **more,
        )

    # ---- replies

    def _replies(self, sent: Sequence[Message], told: Replies) -> dict[int, Message]:
        """The reply to each message, by the id of the message object."""
        found = {self._nodes[reply.client_id]: reply for reply in told}
        failures = {self._nodes[name]: one for name, one in told.failures.items() if name in self._nodes}
        replies = {}
        for message in sent:
            node = message.metadata.dst_node_id
            what: RecordDict | Error
            if node in found:
                what, _ = read_reply(*found[node].place)
            else:
                what = _error(failures.get(node))
            replies[id(message)] = self._reply(message, what)
        return replies

    def _reply(self, message: Message, what: RecordDict | Error) -> Message:
        about = message.metadata
        return Message(
            what,
            metadata=Metadata(
                run_id=self.run_id,
                message_id=f"{about.message_id}-reply",
                src_node_id=about.dst_node_id,
                dst_node_id=about.src_node_id,
                reply_to_message_id=about.message_id,
                group_id=about.group_id,
                created_at=self._now,
                ttl=about.ttl,
                message_type=about.message_type,
            ),
        )


def _types(messages: Sequence[Message]) -> set[str]:
    return {message.metadata.message_type for message in messages}


class _Contents:
    """The different contents of messages that are sent at once; those that are equal are written once."""

    def __init__(self, sent: Sequence[Message]) -> None:
        known: dict[int, object] = {}  # by identity: most messages of a send have one content
        self._keys = {}
        for message in sent:
            content = message.content
            if id(content) not in known:
                known[id(content)] = _key_of(content)
            about = message.metadata
            same = (about.message_type, about.group_id, about.ttl, about.created_at, known[id(content)])
            self._keys[id(message)] = same
        self._users = Counter(self._keys.values())
        self._written: dict[object, Written] = {}

    def __len__(self) -> int:
        return len(self._users)

    def written(self, message: Message) -> Written:
        key = self._keys[id(message)]
        if key not in self._written:
            about = message.metadata.as_dict()
            if self._users[key] > 1:
                about["dst_node_id"] = SERVER_NODE_ID  # the client knows better
            content = message.content

            def write(file: BinaryIO) -> None:
                write_records_to(file, to_records(content, message=about), suffix=".npz")

            self._written[key] = Written(write)
        return self._written[key]


def _key_of(content: RecordDict) -> object:
    """What is equal for contents that can share a file. Arrays are compared by the memory that they have."""
    return tuple(
        (name, "arrays", *((key, _identity(one)) for key, one in record.items()))
        if isinstance(record, ArrayRecord)
        else (name, type(record).__name__, repr(dict(record)))
        for name, record in content.items()
    )


def _identity(array: Any) -> object:
    plain = array.plain()
    return (plain.dtype, plain.values.shape, plain.values.__array_interface__["data"][0], plain.values.strides)


def _error(failure: Failure | None) -> Error:
    if failure is None:
        return Error(ErrorCode.NODE_UNAVAILABLE, "the node was not asked")
    code: int
    if failure.word in _UNAVAILABLE:
        code = ErrorCode.NODE_UNAVAILABLE
    elif failure.word in _LATE:
        code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
    elif failure.word == "exit_code":
        code = _code_of(failure.text)
    else:
        code = ErrorCode.CLIENT_APP_CRASHED
    return Error(code, f"{failure.word}: {failure.text}")


def _code_of(text: str) -> int:
    """The code of an error with which the program of a client ended: it is its exit code."""
    found = re.search(r"exited with code (\d+)", text)
    code = int(found[1]) if found else 0
    return code if 0 < code <= LAST_CODE else ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON, which has no NaN and no infinities."""
    return {str(name): _number(value) for name, value in metrics.items()}


def _number(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_number(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
