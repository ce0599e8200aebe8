"""Writes a task's output to its logs.

Runs in a task's keeper: standard library only, imports nothing of fedpkg.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False  # type checkers recognise the name, and importing typing takes time
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 16
TAIL_BYTES = 4096


class Log:
    """A captured stream: its file gets the first and the last ``limit / 2`` bytes, and nothing in between."""

    def __init__(self, file: Any, fd: int, limit: int) -> None:
        self.fd = fd
        self.file = file
        self.room = limit - limit // 2
        self.keep = limit // 2
        self.dropped = 0
        self.late = bytearray()  # what does not fit in the head
        self.tail = bytearray()  # the last bytes, for the task's record

    def pump(self) -> bool:
        """Read available output; False at the end of the stream."""
        data = os.read(self.fd, CHUNK)
        if not data:
            return False
        self.tail += data
        del self.tail[:-TAIL_BYTES]
        if self.room:
            self.write(data[: self.room])
            self.late += data[self.room :]
            self.room -= min(self.room, len(data))
        else:
            self.late += data
        if len(self.late) > self.keep + CHUNK:
            surplus = len(self.late) - self.keep
            self.dropped += surplus
            del self.late[:surplus]
        return True

    def write(self, data: bytes) -> None:
        try:
            self.file.write(data)
        except OSError as error:  # a full disk: the task continues, and its record mentions it
            self.tail += b"\n[fedpkg: the log cannot be written: %s]" % str(error).encode()

    def close(self) -> str:
        for _ in range(64):  # the writers have ended; a pipe holds at most 1 MiB
            if not select.select([self.fd], [], [], 0)[0] or not self.pump():
                break
        os.close(self.fd)
        surplus = max(0, len(self.late) - self.keep)
        self.dropped += surplus
        del self.late[:surplus]
        if self.dropped:
            self.write(b"\n[fedpkg: %d bytes left out here]\n" % self.dropped)
        self.write(bytes(self.late))
        self.file.close()
        return self.tail.decode("utf-8", "replace")
