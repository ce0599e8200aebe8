"""Frames between the controller and its zygotes and keepers: 4 bytes of length, then JSON."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

# Otherwise a keeper's death would end a program that has not changed the default action of SIGPIPE.
NO_SIGPIPE = getattr(socket, "MSG_NOSIGNAL", 0)


def send(sock: socket.socket, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    sock.sendall(struct.pack(">I", len(body)) + body, NO_SIGPIPE)


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next frame, or None at the end of file."""
    header = _exactly(sock, 4)
    body = None if header is None else _exactly(sock, struct.unpack(">I", header)[0])
    if body is None:
        return None
    value = json.loads(body)
    return value if isinstance(value, dict) else None


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(min(count - len(data), 1 << 16))
        if not part:
            return None
        data += part
    return bytes(data)


def shut(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # it is shut down or closed
