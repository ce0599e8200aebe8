"""What is on record of a coordinator: what it sent and was told, so that a new process can go on.

``rounds/3.json``       one committed round; the strategy's state has its digest
``sending-3.jsonl``     what was sent so far in a round that is not committed
``files/<digest>.npz``  what it was told in files, and what it sent in the round that runs
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fedpkg.coordinators.protocol import encode, quoted
from fedpkg.errors import SessionFailed, StoreError
from fedpkg.files import atomic_write, fsync_folder, remove_tree, sha256_file
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import write_model
from fedpkg.formats.records_file import write_records
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

_CHUNK = 1 << 20


STEADY = (
    "a coordinator may depend on what it is told, its checkpoint and the round's seed alone: not on the time, on "
    "unseeded draws or on the order of a set. If its program was changed, undo that, or start a new run"
)


class Differs(Exception):
    """A coordinator sends something else than is on record."""


@dataclass(frozen=True)
class Sent:
    """A message as it came: its digest, with those of its files; its beginning, to be shown; files by their names."""

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
        """Raises Differs: another message is on record."""
        if self.digest == recorded["digest"]:
            return
        other = sorted(name for name, digest in self.files.items() if recorded["files"].get(name) != digest)
        about = f"it sends {self.said} and sent {recorded['said']}"
        if self.said == recorded["said"] and other:
            about = f"{self.said} has other bytes in the file {other[0]}"
        elif self.said == recorded["said"]:
            about = f"{self.said} goes on in another way"
        raise Differs(f"message {number} of round {round_number} is not the one on record: {about}")


@dataclass
class Round:
    """The messages of one round. ``start`` is what it was told first; each message is there with what it was told."""

    start: dict[str, Any]
    messages: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    commit: dict[str, Any] | None = None

    @property
    def files(self) -> set[str]:
        """The files that it was told of."""
        told = [reply for _, one in self.messages for request in one["replies"] for reply in request["replies"]]
        kept = {self.start["model"], self.start.get("checkpoint")} - {None}
        return kept.union(*(reply["weights"].values() for reply in told))


class Journal:
    """The record of one session's coordinator. ``folder`` is its own."""

    def __init__(self, folder: Path, form: ModelForm) -> None:
        self.folder = folder
        self.form = form.of_state
        for name in ("rounds", "files"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    # ---- files

    def file(self, name: str) -> Path:
        return self.folder / "files" / name

    def keep(self, what: Weights | Records) -> str:
        """Keep weights or records; the name of their file."""

        def write(path: Path) -> None:
            if isinstance(what, Records):
                write_records(path, what, self.form, durable=True)
            else:
                write_model(path, what, self.form, durable=True)

        return self._keep(write, self.form.suffix)

    def take(self, folder: int, name: str, max_bytes: int) -> str:
        """Take a file out of a coordinator's folder; its name here.

        Raises:
            SessionFailed: it is not there, no regular file with one name, or too large.
        """

        def copy(path: Path) -> None:
            with atomic_write(path, durable=False) as target:
                _copy(folder, name, target, max_bytes)

        kept = self._keep(copy, Path(name).suffix)
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        return kept

    def _keep(self, write: Callable[[Path], None], suffix: str) -> str:
        incoming = self.file(f"incoming{suffix}")
        write(incoming)
        kept = f"{sha256_file(incoming)}{suffix}"
        incoming.replace(self.file(kept))
        return kept

    def sweep(self, rounds: Iterable[Round]) -> None:
        """Remove files that no round needs."""
        needed = set[str]().union(*(one.files for one in rounds))
        for path in (self.folder / "files").iterdir():
            if path.name not in needed:
                remove_tree(path)

    # ---- rounds

    def write(self, one: Round) -> dict[str, Any]:
        """Put a round on record before it is committed; what the state has of it."""
        body = encode({"start": one.start, "messages": one.messages, "commit": one.commit})
        fsync_folder(self.folder / "files")
        with atomic_write(self._round(one.start["round"])) as file:
            file.write(body)
        return {"round": one.start["round"], "digest": hashlib.sha256(body).hexdigest()}

    def read(self, recorded: Mapping[str, Any]) -> Round:
        """Raises StoreError: it is not as it was recorded."""
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
                f"{path}: the record of the coordinator cannot be used: {error}",
                hint="put the folder back from a copy of the home; without it the session cannot go on",
                path=str(path),
            ) from error
        return one

    def _round(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number}.json"

    # ---- the round that runs

    def sending(self, round_number: int) -> Sending:
        """What was sent of a round that was begun; of all others it is forgotten."""
        path = self.folder / f"sending-{round_number}.jsonl"
        for other in self.folder.glob("sending-*.jsonl"):
            if other != path:
                remove_tree(other)
        return Sending(path, round_number)


class Sending:
    """The messages that a round has sent so far, of this process and of those before it."""

    def __init__(self, path: Path, round_number: int) -> None:
        self.path = path
        self.round_number = round_number
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self._sent = [json.loads(line) for line in lines if line.endswith(b"\n")]  # else its writer was killed
        self._write()

    def add(self, number: int, sent: Sent) -> None:
        """Put the message with this number (from 1) on record.

        Raises:
            Differs: another one is.
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
        """Forget all messages after that many: what they are told when the round is taken again may differ."""
        del self._sent[after:]
        self._write()

    def _write(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(encode(one) + b"\n" for one in self._sent)


def _copy(folder: int, name: str, target: BinaryIO, max_bytes: int) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise SessionFailed(f"its file '{name}' cannot be read: {error.strerror}") from error
    with open(fd, "rb", closefd=True) as source:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise SessionFailed(f"its file '{name}' is no regular file of its own")
        if facts.st_size > max_bytes:
            raise SessionFailed(f"its file '{name}' has {facts.st_size} bytes; at most {max_bytes} are taken")
        left = max_bytes
        while left and (part := source.read(min(left, _CHUNK))):
            target.write(part)
            left -= len(part)
