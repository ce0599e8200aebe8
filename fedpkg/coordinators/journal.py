"""The journal of a coordinator: the messages that it sent and received, so that a new process can continue.

``rounds/3.json``       one committed round; its digest is in the strategy's state
``sending-3.jsonl``     messages sent so far in a round that is not committed
``files/<digest>.npz``  files that it received, and files that it sent in the current round; small ones that it
                        received at the same time are parts of one file
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fedpkg.coordinators.protocol import ALIGNMENT, encode, quoted
from fedpkg.errors import SessionFailed, StoreError
from fedpkg.files import atomic_write, copy_file, fsync_file, fsync_folder, remove_tree, sha256_file
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import write_model
from fedpkg.formats.records_file import write_records
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_CHUNK = 1 << 20
_LINKED_BYTES = 1 << 20
_HASHED_AT_ONCE = 4  # files


STEADY = (
    "a coordinator may depend on what it is told, its checkpoint and the round's seed alone: not on the time, on "
    "unseeded draws or on the order of a set. If its program was changed, undo that, or start over: "
    "fedpkg session resume --fresh"
)


class Differs(Exception):
    """A coordinator's message differs from the recorded one."""


@dataclass(frozen=True)
class Sent:
    """A received message: its digest, with those of its files; its first characters, for errors; its files by name."""

    digest: str
    said: str
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, body: bytes, files: Mapping[str, str]) -> Sent:
        whole = encode([hashlib.sha256(body).hexdigest(), sorted(files.items())])
        return cls(hashlib.sha256(whole).hexdigest(), quoted(body), files)

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest, "said": self.said, "files": dict(self.files)}

    def check(self, recorded: Mapping[str, Any], *, round_number: int, number: int) -> None:
        """Raises Differs: the recorded message is another one."""
        if self.digest == recorded["digest"]:
            return
        other = sorted(name for name, digest in self.files.items() if recorded["files"].get(name) != digest)
        about = f"it sends {self.said}, but sent {recorded['said']} before"
        if self.said == recorded["said"] and other:
            about = f"{self.said} now has other bytes in the file {other[0]}"
        elif self.said == recorded["said"]:
            about = f"{self.said} now continues differently"
        raise Differs(f"message {number} of round {round_number} differs from the recorded one: {about}")


@dataclass
class Round:
    """The messages of one round: ``start``, the first one to the coordinator, then each of its own with the answer."""

    start: dict[str, Any]
    messages: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    commit: dict[str, Any] | None = None
    _files: set[str] | None = field(default=None, repr=False, compare=False)  # once it is committed

    @property
    def files(self) -> set[str]:
        """The files that the coordinator received."""
        if self.commit is None:
            return self._received()
        if self._files is None:
            self._files = self._received()
        return self._files

    def _received(self) -> set[str]:
        told = [reply for _, one in self.messages for request in one["replies"] for reply in request["replies"]]
        kept = {self.start["model"], self.start.get("checkpoint")} - {None}
        means = [one["mean"]["path"] for _, said in self.messages for one in said["replies"] if "mean" in one]
        return kept.union(*(reply["weights"].values() for reply in told)).union(means) - {None}

    @property
    def lasting(self) -> set[str]:
        """The files that must survive a power cut with the round's record."""
        sent = () if self.commit is None else self.commit["files"].values()
        return self.files.union(sent)


class Journal:
    """The journal of one session's coordinator, in its own ``folder``."""

    def __init__(self, folder: Path, form: ModelForm) -> None:
        self.folder = folder
        self.form = form.of_state
        for name in ("rounds", "files"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # ---- files

    def file(self, name: str) -> Path:
        return self.folder / "files" / name

    def keep(self, what: Weights | Records) -> str:
        """Store weights or records; return the name of their file."""

        def write(path: Path) -> None:
            if isinstance(what, Records):
                write_records(path, what, self.form)
            else:
                write_model(path, what, self.form)

        return self._keep(write, self.form.suffix)

    def keep_files(self, paths: Sequence[Path]) -> list[str]:
        """Keep files that do not change any more, by hard links if possible; return their names."""
        with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:  # their digests take the time
            return list(pool.map(self._keep_file, paths, map(str, range(len(paths)))))

    def _keep_file(self, path: Path, place: str) -> str:
        def link(incoming: Path) -> None:
            remove_tree(incoming)
            try:
                os.link(path, incoming)
            except OSError:  # another file system
                copy_file(path, incoming)

        return self._keep(link, path.suffix, place)

    def keep_written(self, write: Callable[[BinaryIO], object], suffix: str) -> str:
        """Store what a function writes to an open file; return the name of the file."""

        def fill(path: Path) -> None:
            with open(path, "wb") as file:
                write(file)

        return self._keep(fill, suffix)

    def keep_parts(self, contents: Iterable[bytes]) -> tuple[str, list[tuple[int, int]]]:
        """Keep the contents of small files as parts of one; return its name, and the offset and length of each part."""
        parts: list[tuple[int, int]] = []

        def write(incoming: Path) -> None:
            at = 0
            with open(incoming, "wb") as file:
                for content in contents:
                    parts.append((at, len(content)))
                    padding = -len(content) % ALIGNMENT
                    file.write(content + bytes(padding))
                    at += len(content) + padding

        return self._keep(write, ".parts"), parts

    def give(self, name: str, to: Path) -> None:
        """Put a file where the coordinator reads it. Large ones are linked: their bytes are compared with their digest
        when they are used again.
        """
        source = self.file(name)
        if source.stat().st_size >= _LINKED_BYTES:
            with suppress(OSError):
                os.link(source, to)
                return
        copy_file(source, to)

    def take(self, folder: int, name: str, max_bytes: int | None) -> str:
        """Move a file out of a coordinator's folder; return its name in the journal.

        Raises:
            SessionFailed: it does not exist, is no regular file, has several links, or is too large.
        """

        def move(path: Path) -> None:
            with _opened(folder, name, max_bytes) as (source, size):
                if _has_no_writer(source):
                    with suppress(OSError):  # such as another file system
                        os.rename(name, path, src_dir_fd=folder)
                        return
                with atomic_write(path, durable=False) as target:
                    _copy(source, target, size)
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)

        return self._keep(move, Path(name).suffix)

    def _keep(self, write: Callable[[Path], None], suffix: str, place: str = "") -> str:
        incoming = self.file(f"incoming{place}{suffix}")
        write(incoming)
        kept = f"{sha256_file(incoming)}{suffix}"
        incoming.replace(self.file(kept))
        return kept

    def sweep(self, rounds: Iterable[Round]) -> None:
        """Remove files that are in no round."""
        needed = set[str]().union(*(one.files for one in rounds))
        for path in (self.folder / "files").iterdir():
            if path.name not in needed:
                remove_tree(path)

    # ---- rounds

    def write(self, one: Round) -> dict[str, Any]:
        """Record a round before it is committed; return its entry for the strategy's state."""
        body = encode({"start": one.start, "messages": one.messages, "commit": one.commit})
        for name in one.lasting:
            fsync_file(self.file(name))
        fsync_folder(self.folder / "files")
        with atomic_write(self._round(one.start["round"])) as file:
            file.write(body)
        return {"round": one.start["round"], "digest": hashlib.sha256(body).hexdigest()}

    def read(self, recorded: Mapping[str, Any]) -> Round:
        """Raises StoreError: the record is missing or was changed."""
        path = self._round(recorded["round"])
        try:
            body = path.read_bytes()
            if hashlib.sha256(body).hexdigest() != recorded["digest"]:
                raise OSError("it was changed")
            one = Round(**json.loads(body))
            for name in one.files:
                if sha256_file(self.file(name)) != Path(name).stem:
                    raise OSError(f"{self.file(name)} was changed")
        except OSError as error:
            raise StoreError(
                f"{path}: the coordinator's record cannot be used: {error}",
                hint="restore the folder from a copy of the home; without it the session cannot be resumed",
                path=str(path),
            ) from error
        return one

    def _round(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number}.json"

    # ---- the current round

    def sending(self, round_number: int) -> Sending:
        """Load the messages of a started round; those of all other rounds are deleted."""
        path = self.folder / f"sending-{round_number}.jsonl"
        for other in self.folder.glob("sending-*.jsonl"):
            if other != path:
                remove_tree(other)
        return Sending(path, round_number)


class Sending:
    """The messages of a round so far, from this process and earlier ones."""

    def __init__(self, path: Path, round_number: int) -> None:
        self.path = path
        self.round_number = round_number
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self._sent = [json.loads(line) for line in lines if line.endswith(b"\n")]  # else its writer was killed
        self._write()

    def add(self, number: int, sent: Sent) -> None:
        """Record the message with this number (from 1).

        Raises:
            Differs: the recorded message is another one.
        """
        if number <= len(self._sent):
            sent.check(self._sent[number - 1], round_number=self.round_number, number=number)
            return
        self._sent.append(sent.to_json())
        with open(self.path, "ab") as file:
            file.write(encode(self._sent[-1]) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def forget(self, after: int) -> None:
        """Delete all messages after the first ``number``: their answers may differ when the round is repeated."""
        del self._sent[after:]
        self._write()

    def _write(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(encode(one) + b"\n" for one in self._sent)


@contextmanager
def _opened(folder: int, name: str, max_bytes: int | None) -> Iterator[tuple[BinaryIO, int]]:
    """A file in a coordinator's folder, and its size. Raises SessionFailed as `Journal.take`."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise SessionFailed(f"its file '{name}' cannot be read: {error.strerror}") from error
    with open(fd, "rb", closefd=True) as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise SessionFailed(f"its file '{name}' is not a regular file with a single link")
        if max_bytes is not None and facts.st_size > max_bytes:
            raise SessionFailed(f"its file '{name}' has {facts.st_size} bytes; at most {max_bytes} are accepted")
        yield file, facts.st_size


def _has_no_writer(file: BinaryIO) -> bool:
    """Whether nothing has the file open for writing, or mapped so. Only then Linux grants a lease for reading."""
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # a signal that is ignored, if the lease must be given up
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size and (part := source.read(min(size, _CHUNK))):
        target.write(part)
        size -= len(part)
