"""Receive an answer: its reply's files are fetched, decoded and checked in the background."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fedpkg.controller.vetting import check_name, failed, folder_name, vetted
from fedpkg.files import NO_SPACE, remove_tree, tree_checksum
from fedpkg.log import event
from fedpkg.replies.reading import Reading
from fedpkg.replies.travel import decode
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer, Failure, Refused, ReplyFile
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order
from fedpkg.waist.place import place_of, reply_of

if TYPE_CHECKING:
    from fedpkg.replies.reading import Sent

logger = logging.getLogger("fedpkg.controller")


@dataclass(frozen=True)
class Received:
    """An answer with its reply as a local file of the controller.

    Args:
        path: of the reply; None: no reply.
        size_bytes: of that file.
        checksum: of its folder, which contains its metadata as well.
        bytes_up: number of bytes received.
    """

    order: Order
    answer: Answer
    path: Path | None = None
    size_bytes: int = 0
    checksum: str = ""
    bytes_up: int = 0


@dataclass(frozen=True)
class Receiver:
    """Receives the answers to orders of one request.

    Args:
        session_folder: replies are kept below it until the round is committed.
        reading: how they are read.
        sent: the payload that the clients were sent.
    """

    executor: Executor
    session_folder: Path
    reading: Reading
    sent: Sent

    def __call__(self, order: Order, answer: Answer) -> Received:
        """The received answer. An invalid answer or reply becomes a failure."""
        is_ours, folder = self.executor.is_ours, None
        answer = answer if is_ours else vetted(order, answer)
        if answer.status != "ok":
            return Received(order, answer)
        try:
            if not is_ours:
                self._check(order, answer)
            if answer.reply is None:
                return Received(order, answer)
            folder = reply_folder(self.session_folder, order, answer.folder)
            self.executor.fetch(order, answer, folder)
            return self._opened(order, answer, answer.reply, folder)
        except Refused as refused:
            failure = refused.failure
        except OSError as error:
            failure = Failure("no_space" if error.errno in NO_SPACE else "executor", str(error))
        except Exception as error:  # any error in a client's reply is that client's failure, not the session's
            logger.exception("task.unreadable task=%s", order.task_id)
            failure = Failure("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}")
        drop(self.executor, order, answer)
        if folder is not None:
            remove_tree(folder)
        return Received(order, failed(answer, failure))

    def _check(self, order: Order, answer: Answer) -> None:
        """Raises Refused: a successful answer describes its reply or state wrongly, so nothing is fetched."""
        reply, kind = answer.reply, self.reading.spec.kind
        if (reply is None) != (kind is ReplyKind.NOTHING):
            what = "none was requested" if reply is not None else "its answer is ok, but has no reply"
            raise Refused("no_file", f"the answer has no reply of the requested kind: {what}")
        if reply is not None:
            check_name(reply.name, self.reading.spec)
            self._check_size(reply.name, reply.size_bytes)
        if answer.state is not None:
            states = self.executor.states
            damage = states.damage(order.session_id, order.client_id, answer.state, answer.state_checksum)
            if damage:
                raise Refused("bad_state", f"its state {damage}")

    def _check_size(self, name: str, size_bytes: int) -> None:
        if (most := self.reading.max_bytes) is not None and size_bytes > most:
            raise Refused("too_big", f"'{name}' has {size_bytes} bytes; the limit is {most} (limits.reply_bytes)")

    def _opened(self, order: Order, answer: Answer, reply: ReplyFile, folder: Path) -> Received:
        """The answer, with the reply's files in a folder."""
        path, checksum, bytes_up = folder / reply.name, reply.checksum, reply.size_bytes
        checked = None
        if not self.executor.is_ours:
            bytes_up = path.stat().st_size
            if checksum != tree_checksum(folder):
                raise Refused("bad_file", "its reply was damaged in transit")
            self._check_size(path.name, bytes_up)
        if self.reading.spec.transforms:
            path, checked = decode(self.reading, path, self.sent)
            checksum = tree_checksum(folder)
        elif not self.executor.is_ours:
            checked = self.reading.check(path, self.sent)
            answer = msgspec.structs.replace(answer, converted=checked.converted)
        if checked is not None:
            facts = {"metadata": dict(checked.metadata), "num_examples": checked.num_examples}
            answer = msgspec.structs.replace(answer, **facts, metrics=checked.metrics)
        return Received(order, answer, path, path.stat().st_size, checksum, bytes_up)


def drop(executor: Executor, order: Order, answer: Answer) -> None:
    """Tell an executor that an answer is not needed. If it cannot remove the answer's files, they are left."""
    try:
        executor.discard(order, answer)
    except OSError as error:
        event(logger, logging.WARNING, "task.files_left", task=order.task_id, error=error)


def reply_folder(session: Path, order: Order, folder: str) -> Path:
    """The path for the reply of a task; ``folder`` is the folder of its logs, as named in its answer."""
    return reply_of(place_of(session, order).folder.with_name(folder_name(order, folder)))
