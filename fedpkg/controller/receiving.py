"""An answer as it arrives: its reply's files brought here, decoded, and checked, before anybody waits for them."""

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
    """An answer, and its reply as a file of the controller's own.

    Args:
        path: of the reply; None: there is none.
        size_bytes: of that file.
        checksum: of its folder, which has its metadata as well.
        bytes_up: what travelled.
    """

    order: Order
    answer: Answer
    path: Path | None = None
    size_bytes: int = 0
    checksum: str = ""
    bytes_up: int = 0


@dataclass(frozen=True)
class Receiver:
    """Takes in the answers to orders of one request.

    Args:
        session_folder: replies are kept below it until the round commits.
        reading: how they are read.
        sent: what the clients were sent.
    """

    executor: Executor
    session_folder: Path
    reading: Reading
    sent: Sent

    def __call__(self, order: Order, answer: Answer) -> Received:
        """The answer taken in. What is wrong with it, or with its reply, becomes a failure."""
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
        except Exception as error:  # whatever a client sent, it is that client's failure and not the session's
            logger.exception("task.unreadable task=%s", order.task_id)
            failure = Failure("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}")
        drop(self.executor, order, answer)
        if folder is not None:
            remove_tree(folder)
        return Received(order, failed(answer, failure))

    def _check(self, order: Order, answer: Answer) -> None:
        """Raises Refused: what an answer that is ok says of its reply or state cannot be, so nothing is fetched."""
        reply, kind = answer.reply, self.reading.spec.kind
        if (reply is None) != (kind is ReplyKind.NOTHING):
            what = "it was asked for none" if reply is not None else "its answer is ok, but has none"
            raise Refused("no_file", f"there is no reply as it was asked for: {what}")
        if reply is not None:
            check_name(reply.name, self.reading.spec)
            self._check_size(reply.name, reply.size_bytes)
        if answer.state is not None:
            states = self.executor.states
            damage = states.damage(order.session_id, order.client_id, answer.state, answer.state_checksum)
            if damage:
                raise Refused("bad_state", f"the state that it left {damage}")

    def _check_size(self, name: str, size_bytes: int) -> None:
        if (most := self.reading.max_bytes) is not None and size_bytes > most:
            raise Refused("too_big", f"'{name}' has {size_bytes} bytes; at most {most} are taken (limits.reply_bytes)")

    def _opened(self, order: Order, answer: Answer, reply: ReplyFile, folder: Path) -> Received:
        """The answer, with the reply's files in a folder."""
        path, checksum, bytes_up = folder / reply.name, reply.checksum, reply.size_bytes
        checked = None
        if not self.executor.is_ours:
            bytes_up = path.stat().st_size
            if checksum != tree_checksum(folder):
                raise Refused("bad_file", "its reply was damaged on its way")
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
    """Tell an executor that nobody needs an answer. Where it cannot remove what came of it, that stays."""
    try:
        executor.discard(order, answer)
    except OSError as error:
        event(logger, logging.WARNING, "task.files_left", task=order.task_id, error=error)


def reply_folder(session: Path, order: Order, folder: str) -> Path:
    """Where the reply of a task is kept; ``folder``: as its answer names the place of its logs."""
    return reply_of(place_of(session, order).folder.with_name(folder_name(order, folder)))
