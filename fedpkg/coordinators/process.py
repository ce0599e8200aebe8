"""The process of a coordinator: start it, exchange messages, and end it with all processes that it started."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late  # differs from the built-in before Python 3.11
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from fedpkg.coordinators.journal import Journal, Sent
from fedpkg.coordinators.protocol import (
    MAX_CHECKPOINT_BYTES,
    VARIABLE,
    Ask,
    Commit,
    Mean,
    Message,
    decode,
    encode,
    files_of,
    receive,
    records_of,
    send,
)
from fedpkg.coordinators.saved import SAVED, facts_of, keep_written
from fedpkg.errors import SessionFailed
from fedpkg.files import copy_file, copy_tree, open_folder, remove_tree
from fedpkg.formats.base import ModelForm
from fedpkg.types import Json

if TYPE_CHECKING:
    from fedpkg.strategies.base import Reply

END_PATIENCE_S = 2.0  # for a coordinator to exit when the session has ended


@dataclass(frozen=True)
class Ending:
    """How a program ended, in words, and the end of its log. ``is_final``: another start would end in the same way."""

    how: str
    log: str = ""
    is_final: bool = False


class Program(Protocol):
    """A started program. ``ended`` is set once it and all processes that it started have ended."""

    @property
    def ended(self) -> Future[Ending]: ...

    def close(self) -> None:
        """End it, if it has not ended."""
        ...


@dataclass(frozen=True)
class Start:
    """A program to start.

    Args:
        command: a command line for bash.
        cwd: its working folder, which it may change.
        folder: for its logs; the program has no access to it.
        reads, writes: further folders that it may read, or change.
        fd: a file descriptor that it inherits; its number is in the environment variable ``variable``.
        seed: for the global generators of random, NumPy and PyTorch.
    """

    command: str
    cwd: Path
    folder: Path
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    fd: int
    seed: int
    variable: str = VARIABLE


class Averaged(Protocol):
    """What replies have given whose arrays are averaged.

    Attributes:
        contents: By client, the rest of its reply, as the content of a file; of others, the reply is given as it is.
    """

    contents: dict[str, bytes]

    @property
    def said(self) -> Mapping[str, Json]:
        """What the program is told of it."""
        ...

    @property
    def suffix(self) -> str | None:
        """Of the file of the mean; None: there is no mean."""
        ...

    def write(self, file: BinaryIO) -> object:
        """Write the mean, as a model."""
        ...


@dataclass(frozen=True)
class Workplace:
    """What a session provides for its coordinator.

    Args:
        folder: a folder inside the session's folder.
        start: starts a program, under the session's limits and isolation.
        follow: a future with the result of another one, which ends early if the session is to stop.
        seed: the session's seed.
        max_bytes: the size limit of a file of records that the coordinator sends; None: no limit.
        announce: is told the number of rounds that the session will probably have.
        created_at: when the session was created.
        home: is not copied with the program.
        average: averages the arrays in replies, given what is wanted and the file that the clients got; None: the
            session does not do that.
    """

    folder: Path
    form: ModelForm
    start: Callable[[Start], Program]
    seed: int
    follow: Callable[[Future[Any]], Future[Any]] = lambda future: future
    run_config: Mapping[str, Json] = field(default_factory=dict)
    max_bytes: int | None = None
    announce: Callable[[int], None] = lambda number: None
    created_at: float = 0.0
    home: Path | None = None
    average: Callable[[Mean, Path, Iterable[Reply]], Averaged] | None = None


class Ended(Exception):
    """The coordinator's process has ended."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.how)
        self.ending = ending


def _paths_inside(folder: Path, inner: Path | None) -> list[str]:
    """The path of a folder inside another one, if it is there."""
    folder = folder.resolve()
    return [str(inner.relative_to(folder))] if inner is not None and inner.is_relative_to(folder) else []


class Process:
    """One process of a coordinator, and its folder: ``work`` (a copy of the user's), ``in`` and ``out`` for files."""

    def __init__(
        self,
        place: Workplace,
        journal: Journal,
        command: str,
        sources: Sequence[Path],
        *,
        timeout_s: float,
        but: Sequence[str] = (),
    ) -> None:
        self._place = place
        self._journal = journal
        self._timeout_s = timeout_s
        starts = place.folder / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        self.folder = starts / str(1 + max((int(one.name) for one in starts.iterdir()), default=0))
        self.work, self.files, self.out = (self.folder / name for name in ("work", "in", "out"))
        self.folder.mkdir()
        for source in sources:
            if source.is_file():  # only this file, whatever folder it is in
                self.work.mkdir(exist_ok=True)
                copy_file(source, self.work / source.name)
            else:
                copy_tree(source, self.work, but=(*but, *_paths_inside(source, place.home)))
        self._before = facts_of(self.work)
        self.files.mkdir()
        self.out.mkdir()
        self._out = open_folder(self.out)
        self._socket, theirs = socket.socketpair()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="fedpkg-coordinator")
        with theirs:
            start = Start(
                command, self.work, self.folder, (self.files,), (self.out,), fd=theirs.fileno(), seed=place.seed
            )
            try:
                self._program = place.start(start)
            except BaseException:
                self._put_away()
                raise
        self._program.ended.add_done_callback(lambda _ended: self._hang_up())

    def hear(self, *, max_bytes: int | None) -> tuple[Message, Sent]:
        """Receive its next message. The message's files are moved to the journal.

        Args:
            max_bytes: the size limit of models; None: that of records (`Workplace.max_bytes`).

        Raises:
            Ended: the process has ended without one.
            SessionFailed: it took too long, or the message or one of its files cannot be used.
        """
        reading = self._place.follow(self._reader.submit(receive, self._socket.recv))
        try:
            body = reading.result(self._timeout_s)
        except Late:
            raise SessionFailed(
                f"it sent nothing for {self._timeout_s:g} s",
                hint=f"see its logs in {self.folder}; strategy.timeout_s is its time limit for a message",
            ) from None
        except OSError:
            body = None
        if body is None:
            raise self._ended()
        message = decode(body)
        most = dict.fromkeys(files_of(message), self._place.max_bytes if max_bytes is None else max_bytes)
        if isinstance(message, Ask):
            most |= dict.fromkeys(records_of(message), self._place.max_bytes)
        if isinstance(message, Commit) and message.checkpoint is not None:
            most[message.checkpoint] = MAX_CHECKPOINT_BYTES
        files = {name: self._journal.take(self._out, name, limit) for name, limit in most.items()}
        return message, Sent.of(body, files)

    def tell(self, message: Mapping[str, Any], files: set[str]) -> None:
        """Send it a message with files of the journal.

        Raises:
            Ended: the process has ended.
        """
        for name in files:
            if not (self.files / name).exists():
                self._journal.give(name, self.files / name)
        try:
            self._place.follow(self._reader.submit(send, self._socket.fileno(), encode(message))).result(
                self._timeout_s
            )
        except Late:
            raise SessionFailed(f"it did not read a message for {self._timeout_s:g} s") from None
        except OSError:
            raise self._ended() from None

    def forget_files(self) -> None:
        """Remove files that were sent to it in an earlier round."""
        for path in self.files.iterdir():
            remove_tree(path)

    @property
    def saved(self) -> Path:
        """The folder of the files that programs of this session have written into their working folder."""
        return self._place.folder / SAVED

    def close(self, *, patience_s: float = 0.0) -> list[str]:
        """End it and remove its folder, except the logs; return the files that it wrote, which are in ``saved``."""
        self._hang_up()
        with suppress(Late):
            self._program.ended.result(patience_s)
        self._program.close()
        try:
            return keep_written(self.work, self._before, self.saved)
        finally:
            self._put_away()

    def _ended(self) -> Ended:
        self._hang_up()  # in case it has only closed its end of the socket
        try:
            return Ended(self._program.ended.result(END_PATIENCE_S))
        except Late:
            return Ended(Ending("closed its connection"))

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _put_away(self) -> None:
        self._reader.shutdown()
        self._socket.close()
        os.close(self._out)
        for path in self.folder.iterdir():
            if path.suffix != ".log":
                remove_tree(path)
