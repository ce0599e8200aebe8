"""Message ⇄ records file: its content as `fedpkg.records.files` writes it, its metadata and its error as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fedpkg.apps.message import FIELDS, Error, ErrorCode, Message, Metadata
from fedpkg.client.errors import ClientError
from fedpkg.records.files import read_content, write_content
from fedpkg.records.record_dict import RecordDict


def write_message(path: str | os.PathLike[str], message: Message) -> None:
    """Write a message atomically. Equal messages give equal bytes. Raises ClientError as `write_content`."""
    about = message.metadata.as_dict()
    if message.has_error():
        about["error"] = {"code": message.error.code, "reason": message.error.reason}
    write_content(path, RecordDict() if message.has_error() else message.content, message=about)


def read_message(path: str | os.PathLike[str]) -> Message:
    """The message in a file; arrays of a large file are mapped.

    Raises:
        ClientError: If it cannot be read, or contains no message.
    """
    content, about = read_content(path)
    try:
        metadata = Metadata(**{name: about[name] for name in FIELDS})
        what = Error(**about["error"]) if "error" in about else content
        return Message(what, metadata=metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(
            f"{os.fspath(path)}: what it has about the message is damaged: {type(error).__name__}: {error}"
        ) from error


def read_reply(path: str, part: tuple[int, int] | None = None) -> tuple[RecordDict | Error, Mapping[str, Any]]:
    """What a reply contains, and what is said about its message; an error if it cannot be read.

    ``part`` is the offset and length of a part of the file that has it.
    """
    try:
        content, about = read_content(path, part)
        return Error(**about["error"]) if "error" in about else content, about
    except (ClientError, TypeError, ValueError) as error:
        reason = str(error).replace(path, "the reply")
        return Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), {}
