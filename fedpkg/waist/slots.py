"""What each slot of a machine runs now: a small file in the home, written by the executor and read by pages."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from fedpkg.files import read_bounded
from fedpkg.waist.order import Order

NAME = "slots.jsonl"
_LINE_BYTES = 2048  # each slot's line has its place in the file, so that a change is one write and needs no lock
_MOST_BYTES = 16 << 20


class Occupied(msgspec.Struct, frozen=True, kw_only=True):
    """A slot (from 0) and the task that has held it since then, in seconds since 1970."""

    slot: int
    session_id: str
    round_number: int
    client_id: str
    entry_point: str
    task_id: str
    since: float


class SlotBoard:
    """Writes the file. It is only for people who watch: where it cannot be written, tasks run as well."""

    def __init__(self, home: Path, slots: int) -> None:
        self._path = home / NAME
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        for slot in range(slots):
            self.free(slot)

    def take(self, slot: int, order: Order, since: float) -> None:
        """The task of ``order`` holds the slot from now on."""
        told = Occupied(
            slot=slot,
            session_id=order.session_id,
            round_number=order.round_number,
            client_id=order.client_id,
            entry_point=order.entry_point,
            task_id=order.task_id,
            since=since,
        )
        with suppress(UnicodeError):  # a name with bytes that are not text
            self._write(slot, msgspec.json.encode(told))

    def free(self, slot: int) -> None:
        self._write(slot, b"")

    def _write(self, slot: int, line: bytes) -> None:
        if self._file is not None and len(line) < _LINE_BYTES:
            with suppress(OSError):
                os.pwrite(self._file, line.ljust(_LINE_BYTES - 1) + b"\n", slot * _LINE_BYTES)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                self._path.unlink()


def changed_at(home: Path) -> int:
    """When a slot was last taken or freed, as a number that grows; 0: no task runs."""
    try:
        return (home / NAME).stat().st_mtime_ns
    except OSError:
        return 0


def occupied_slots(home: Path) -> list[Occupied]:
    """The slots that run a task, in order. After a kill, the file still has them: look only for sessions that run."""
    found = []
    with suppress(OSError):
        for line in read_bounded(home / NAME, _MOST_BYTES).splitlines():
            with suppress(msgspec.MsgspecError, UnicodeError):  # it is free, or is written at this moment
                found.append(msgspec.json.decode(line, type=Occupied))
    return found
