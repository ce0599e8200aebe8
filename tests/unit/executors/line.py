"""The socket between the two ends of an executor: calls with a number, and what they are answered, in any order."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

SIZES = struct.Struct(">IQ")
MOST_HEAD, MOST_BODY = 1 << 20, 1 << 30


class Line:
    """Frames: the sizes of a head, which is JSON, and of a body; then both."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        text = json.dumps(head).encode()
        with self._sending:
            self._connection.sendall(SIZES.pack(len(text), len(body)) + text + body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame.

        Raises:
            OSError: there is none.
        """
        head, body = SIZES.unpack(self._read(SIZES.size))
        if head > MOST_HEAD or body > MOST_BODY:
            raise OSError("a frame is too large")
        return json.loads(self._read(head)), self._read(body)

    def _read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        if len(data) < size_bytes:
            raise ConnectionError("the other end is gone")
        return data

    def close(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._file.close()
        self._connection.close()
