"""The mean of replies in the controller, so that their arrays need not travel to the app: see `FedAvg`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fedpkg.apps.message import Message, Metadata
from fedpkg.apps.message_file import read_reply
from fedpkg.apps.strategy.answers import Answer, Intake, to_weights
from fedpkg.client import arrays as array_files
from fedpkg.client.arrays import Plain
from fedpkg.client.errors import ClientError
from fedpkg.client.records import write_records_to
from fedpkg.records.array_record import ArrayRecord
from fedpkg.records.files import read_content, to_records
from fedpkg.records.record_dict import RecordDict

if TYPE_CHECKING:
    from fedpkg.strategies.base import Reply
    from fedpkg.strategies.folds import Fold
    from fedpkg.types import Json, Use
    from fedpkg.weights.weights import Weights


@dataclass
class Averaged:
    """What replies have given.

    Attributes:
        mean: The mean of the usable replies' arrays; None: there is none.
        contents: By client, the rest of the reply: a records file without arrays. Replies without such a file are
            given to the app as they are.
        left_out: By client, why a reply that can be read is not used.
        converted: The first array whose precision was converted.
        is_other: The usable replies have other arrays than were sent.
        error: Why the usable replies have no mean.
    """

    mean: Weights | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    converted: str = ""
    is_other: bool = False
    error: str = ""

    @property
    def said(self) -> dict[str, Json]:
        """All but the arrays, as the app is told."""
        return {
            "names": list(self.mean or ()),
            "left_out": {**self.left_out},
            "converted": self.converted,
            "is_other": self.is_other,
            "error": self.error,
        }

    @property
    def suffix(self) -> str | None:
        """Of a file that can hold the mean; None: there is no mean."""
        return None if self.mean is None else array_files.suffix_for(self._plains())

    def write(self, file: BinaryIO) -> None:
        """Write the mean, as a model.

        Raises:
            SessionFailed: it has dtypes that no file can hold together.
        """
        from fedpkg.errors import SessionFailed

        try:
            array_files.write_to(file, self._plains(), suffix=self.suffix or "")
        except ClientError as error:
            raise SessionFailed(f"the mean of replies cannot be written: {error.message}", hint=error.hint) from error

    def _plains(self) -> dict[str, Plain]:
        return {name: array_files.plain(name, tensor) for name, tensor in (self.mean or {}).items()}


def averaged(
    sent: Path, replies: Iterable[Reply], *, arrays_key: str, weight_key: str, needs_sent: bool, use: Use
) -> Averaged:
    """Average the arrays of replies by the rules of `FedAvg`, and with its bits.

    A reply is mapped when it has come, and unmapped when it is folded in.

    Args:
        sent: The file of the message that all clients got.
        needs_sent: The replies must have the names and shapes of what was sent.

    Raises:
        SessionFailed: That message has no such arrays.
    """
    model = _model_in(sent, arrays_key)
    intake = Intake(arrays_key, weight_key, model, needs_model=needs_sent, use=use)
    result, fold = Averaged(), _Mean(intake)
    clients = {}
    for reply in replies:
        assert reply.file is not None
        clients[reply.position] = reply.client_id
        content_or_error, about = read_reply(str(reply.file))
        if isinstance(content_or_error, RecordDict):
            with suppress(ClientError):  # a name that can be read, but not written: the app gets the whole reply
                result.contents[reply.client_id] = _without_arrays(content_or_error, about)
        message = Message(content_or_error, metadata=Metadata(0, "", reply.position, 0, "", "", 0.0, 0.0, "train"))
        fold.add(intake.take(reply.position, message))
    for answer in intake.rest():
        fold.add(answer)
    for one in intake.left_out:
        if one.message.has_content():
            result.left_out[clients[one.message.metadata.src_node_id]] = one.reason
    result.converted = fold.converted
    result.is_other = fold.has_replies and intake.template is not model
    result.mean, result.error = fold.result()
    return result


def _model_in(path: Path, key: str) -> Weights:
    from fedpkg.errors import SessionFailed

    try:
        return to_weights(read_content(path)[0].array_records[key])
    except (ClientError, KeyError, TypeError, ValueError) as error:
        raise SessionFailed(f"it asks for the mean of the arrays {key!r}, which its message does not have") from error


class _Mean:
    """The weighted mean of the answers that an intake takes."""

    def __init__(self, intake: Intake) -> None:
        self.converted = ""
        self._intake = intake
        self._fold: Fold[Weights] | None = None
        self._error = ""

    @property
    def has_replies(self) -> bool:
        return self._fold is not None

    def add(self, answer: Answer | None) -> None:
        from fedpkg.errors import AggregationError
        from fedpkg.strategies.aggregators.mean import WeightedMean

        if answer is None or answer.reply is None:
            return
        if self._fold is None:
            assert self._intake.template is not None
            self._fold = WeightedMean().fold(self._intake.template)
        self.converted = self.converted or answer.converted
        try:
            self._fold.add(answer.reply)
        except AggregationError as error:
            self._error = self._error or error.message

    def result(self) -> tuple[Weights | None, str]:
        """The mean, or why there is none."""
        from fedpkg.errors import AggregationError

        if self._fold is None or self._error:
            return None, self._error
        try:
            return self._fold.result(), ""
        except AggregationError as error:
            return None, error.message


def _without_arrays(content: RecordDict, about: Mapping[str, Any]) -> bytes:
    """The content of a file with the records of a reply that are not arrays."""
    file = io.BytesIO()
    rest = RecordDict({name: record for name, record in content.items() if not isinstance(record, ArrayRecord)})
    write_records_to(file, to_records(rest, message=about), suffix=".npz")
    return file.getvalue()
