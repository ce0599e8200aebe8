"""An answer as it arrives: its reply's files brought here, decoded, and checked, before anybody waits for them."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fedpkg.files import NO_SPACE, remove_tree, tree_checksum
from fedpkg.replies.reading import Reading
from fedpkg.replies.travel import decode
from fedpkg.types import Json
from fedpkg.waist.answer import Answer, Failure, Refused
from fedpkg.waist.executor import Executor
from fedpkg.waist.order import Order
from fedpkg.waist.place import reply_of, round_folder

if TYPE_CHECKING:
    from fedpkg.replies.reading import Sent

logger = logging.getLogger("fedpkg.controller")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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

    @property
    def metadata(self) -> dict[str, Json]:
        return self.answer.metadata


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
        """The answer taken in. What is wrong with its reply becomes a failure."""
        if answer.status != "ok" or answer.reply is None:
            return Received(order, answer)
        folder = reply_folder(self.session_folder, order, answer.folder)
        try:
            self.executor.fetch(order, answer, folder)
            return self._checked(order, answer, folder)
        except Refused as refused:
            failure = refused.failure
        except OSError as error:
            failure = Failure("no_space" if error.errno in NO_SPACE else "executor", str(error))
        except Exception as error:  # whatever a client sent, it is that client's failure and not the session's
            logger.exception("task.unreadable task=%s", order.task_id)
            failure = Failure("bad_file", f"its reply cannot be read: {type(error).__name__}: {error}")
        self.executor.discard(order, answer)
        remove_tree(folder)
        return Received(order, failed(answer, failure))

    def _checked(self, order: Order, answer: Answer, folder: Path) -> Received:
        assert answer.reply is not None
        if not _PLAIN_NAME.fullmatch(answer.reply.name):
            raise Refused("bad_file", f"its reply has the name {answer.reply.name!r:.60}, which is none of a file")
        path, checksum, bytes_up = folder / answer.reply.name, answer.reply.checksum, answer.reply.size_bytes
        checked = None
        if not self.executor.is_ours:
            bytes_up = path.stat().st_size
            if checksum != (checksum := tree_checksum(folder)):
                raise Refused("bad_file", "its reply was damaged on its way")
            if (most := self.reading.max_bytes) is not None and bytes_up > most:
                raise Refused("too_big", f"'{path.name}' had {bytes_up} bytes; at most {most} are taken")
        if self.reading.spec.transforms:
            path, checked = decode(self.reading, path, self.sent)
            checksum = tree_checksum(folder)
        elif not self.executor.is_ours:
            checked = self.reading.check(path, self.sent)
        if checked is not None:
            facts = {"metadata": dict(checked.metadata), "num_examples": checked.num_examples}
            answer = msgspec.structs.replace(answer, **facts, metrics=checked.metrics)
        return Received(order, answer, path, path.stat().st_size, checksum, bytes_up)


def reply_folder(session: Path, order: Order, folder: str) -> Path:
    """Where the reply of a task is kept; ``folder``: as its answer names the place of its logs."""
    name = Path(folder).name
    name = name if _PLAIN_NAME.fullmatch(name) else order.call
    return reply_of(round_folder(session, order.round_number) / order.client_id / name)


def failed(answer: Answer, failure: Failure) -> Answer:
    """The answer, as one that failed."""
    return msgspec.structs.replace(answer, status="failed", failure=failure, reply=None, num_examples=None, state=None)
