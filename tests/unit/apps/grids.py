"""A grid in memory: its nodes answer messages by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fedpkg.apps import Error, Message
from fedpkg.records import ArrayRecord, MetricRecord, RecordDict

Answer = Callable[[int, Message], RecordDict | Error]


class MemoryGrid:
    """Nodes from 1 on. Keeps all messages, and what strategies say about rounds."""

    def __init__(self, num_nodes: int, answer: Answer) -> None:
        self.nodes = list(range(1, num_nodes + 1))
        self.answer = answer
        self.sent: list[list[Message]] = []
        self.rounds: list[dict[str, Any]] = []

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        self.sent.append(sent)
        return [reply_to(message, self.answer(message.metadata.dst_node_id, message)) for message in sent]

    def end_round(self, arrays: ArrayRecord | None = None, metrics: Any = None) -> None:
        self.rounds.append({"arrays": arrays, "metrics": metrics})


def reply_to(message: Message, what: RecordDict | Error) -> Message:
    return Message(what, reply_to=message)


def content(arrays: Any, **metrics: Any) -> RecordDict:
    """A reply with arrays (a dictionary, or None) and metrics; ``n`` is the number of examples."""
    named = {("num-examples" if name == "n" else name): value for name, value in metrics.items()}
    records: dict[str, Any] = {"metrics": MetricRecord(named)}
    if arrays is not None:
        records["arrays"] = arrays if isinstance(arrays, ArrayRecord) else ArrayRecord(arrays)
    return RecordDict(records)


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def plain(record: ArrayRecord | None) -> dict[str, Any]:
    """The arrays of a record."""
    assert record is not None
    return {name: array.numpy() for name, array in record.items()}


def replies_to(strategy: Any, sent: dict[str, Any], answers: list[RecordDict | Error]) -> list[Message]:
    """The replies to the messages of a first round, one of each node."""
    from fedpkg.records import ConfigRecord

    grid = MemoryGrid(len(answers), lambda node, _: answers[node - 1])
    return grid.send_and_receive(strategy.configure_train(1, ArrayRecord(sent), ConfigRecord(), grid))
