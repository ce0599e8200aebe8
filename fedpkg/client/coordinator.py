"""For coordinators: a session's rounds, requests to its clients, and the next global model.

    import numpy as np
    from fedpkg.client import coordinator

    for step in coordinator.rounds():
        [train] = step.ask("train")
        total = sum(reply.num_examples for reply in train)
        arrays = [(reply.num_examples, np.load(reply.path)) for reply in train]
        model = {name: sum(n * one[name] for n, one in arrays) / total for name in np.load(step.path)}
        step.commit(model)

fedpkg restarts the program if it, or the controller, ended early: the program then runs from its beginning (or from its
last checkpoint) and gets the same answers. It must send the same requests and models again, so they may depend only on
these answers, the checkpoint and ``step.seed``. Its output is in its logs.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Union, cast

from fedpkg.client.errors import ClientError

if TYPE_CHECKING:
    from fedpkg.client.records import Records

VERSION = 1
VARIABLE = "FEDPKG_COORDINATOR"
_ALIGNMENT = 64  # of parts of a file, so that their arrays can be mapped
_PART_FILE_BYTES = 64 << 20  # a file with more bytes gets no further parts
Model = Union[str, "Mapping[str, Any]"]  # the path of a file, or tensors (PyTorch) or arrays (NumPy) by name


@dataclass(frozen=True)
class Client:
    """A client that can be asked. ``num_examples`` is None until it is known.

    ``position`` is its number among all clients of the session, from 0; ``attributes`` are those of its entity.
    """

    client_id: str
    groups: Sequence[str] = ()
    num_examples: float | None = None
    position: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a client has no usable reply: a word, such as ``exit_code``, and the beginning of the message."""

    word: str
    text: str


@dataclass(frozen=True)
class Reply:
    """One client's usable reply. ``paths`` are its files of weights by the name of the set; an update is the set "".

    Records, like an update, are one file. Small ones are a ``part`` of a file: its path, and the offset and length.
    """

    client_id: str
    num_examples: float
    metadata: Mapping[str, Any]
    metrics: Any
    paths: Mapping[str, str]
    part: tuple[str, int, int] | None = None
    _folder: str = field(default="", repr=False)

    @property
    def path(self) -> str:
        """The file of an update, in the format of the seed model: .npz or .safetensors; or of records."""
        if self.part is None:
            return self.paths[""]
        path = os.path.join(self._folder, f"{os.path.basename(self.part[0])}-{self.part[1]}")
        if not os.path.exists(path):
            os.makedirs(self._folder, exist_ok=True)
            with open(self.part[0], "rb") as whole, open(path, "wb") as file:
                whole.seek(self.part[1])
                file.write(whole.read(self.part[2]))
        return path

    @property
    def place(self) -> tuple[str, tuple[int, int] | None]:
        """Where records are: the path of a file, and the offset and length of their part of it; None: all of it."""
        if self.part is None:
            return self.path, None
        path, start, length = self.part
        return path, (start, length)

    def load(self, name: str = "") -> Mapping[str, Any]:
        """Read the update, or one of several sets, as PyTorch tensors."""
        from fedpkg.client import arrays

        return arrays.read(self.paths[name])

    def records(self) -> Records:
        """Read the records, as NumPy arrays."""
        from fedpkg.client.records import load_records

        path, part = self.place
        return load_records(path, part)


@dataclass(frozen=True)
class Averaged:
    """The mean of replies' arrays: see `Mean`.

    Attributes:
        path: The file of the mean, as that of a model; None: there is no mean.
        names: The names of its arrays, in their order.
        left_out: By client, why its reply is not used.
        converted: The first array whose precision was converted.
        is_other: The replies have other arrays than were sent.
        error: Why the usable replies have no mean.
    """

    path: str | None
    names: Sequence[str]
    left_out: Mapping[str, str]
    converted: str
    is_other: bool
    error: str


class Replies(list):  # type: ignore[type-arg]
    """The usable replies to one request, in the order of ``asked``. ``missing`` are the clients without one, and
    ``failures`` say why, for those whose tasks failed. ``mean`` is that of their arrays, if the request asks for it.

    ``request_id`` identifies the request in its round. While it ``is_outstanding``, there are no replies yet.
    """

    def __init__(self, replies: Sequence[Reply], told: Mapping[str, Any], mean: Averaged | None = None) -> None:
        super().__init__(replies)
        self.mean = mean
        self.request_id: str = told["id"]
        self.round_number: int | None = told.get("round")
        self.asked: Sequence[str] = told["asked"]
        self.missing: Sequence[str] = told["missing"]
        self.failures = {name: Failure(**one) for name, one in told.get("failures", {}).items()}
        self.is_outstanding: bool = told.get("is_outstanding", False)


@dataclass(frozen=True, eq=False)
class Written:
    """Records that the program writes itself: ``write`` gets the open file, and must always write the same bytes."""

    write: Callable[[BinaryIO], object]
    suffix: str = ".npz"


@dataclass(frozen=True)
class Mean:
    """Asks for the mean of the arrays in the replies of a message app; the replies then come without arrays.

    Args:
        arrays: The name of the array record in the message and in the replies.
        weight: The metric by which replies are weighted.
        needs_sent: The replies must have the names and shapes of what was sent.
        use: "averaged", or "stepped" if a step is computed from the mean: as in `fedpkg.strategies.base.Request`.
    """

    arrays: str
    weight: str
    needs_sent: bool = False
    use: str = "averaged"


@dataclass(frozen=True)
class Request:
    """A request to clients. The fields are those of `fedpkg.strategies.base.Request`.

    Args:
        clients: The clients to ask; None: the group, or else those that the session's sampler chooses.
        payload: The model that clients get, or `fedpkg.client.Records`; None: the round's model, if there is one.
        required: The number of usable replies below which the round fails; None: ``round.required`` of the run.yaml. 0:
            the round also goes on without any reply.
        wait: Wait for "all" clients, for a number of usable replies, or for "nothing": see `Step.arrived`.
        payloads: Records for single clients, by their ids, in place of ``payload``. Equal objects are sent as one.
        timeout_s: Seconds after which clients that have not answered are failures of this request.
        phase: "train" or "validate": the numbers in the metadata of replies of records are metrics of the clients'
            training, or of this round's model, and are shown as such.
        mean: For records of message apps that are sent to all clients alike: average their arrays, if `Step.averages`.
    """

    entry_point: str = "train"
    clients: Sequence[str] | None = None
    group: str | None = None
    reply_kind: str = "update"
    reply: str = "weights"
    sets: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    payload: Model | Records | Written | None = None
    required: int | None = None
    wait: str | int = "all"
    payloads: Mapping[str, Records | Written] = field(default_factory=dict)
    timeout_s: float | None = None
    phase: str | None = None
    mean: Mean | None = None


@dataclass(frozen=True)
class Kept:
    """A model for `Step.commit` that was written, or is the mean of the replies to a request of this round."""

    name: str | None
    mean_of: str | None = None


class Step:
    """One round, from its model to `commit`.

    Attributes:
        round_number: The number of the round, from 1.
        seed: A different seed in each round, but the same if the round is repeated.
        clients: The clients that can be asked.
        path: The file of the model; None if the session has no model.
        parameters, run_config: As in the run.yaml.
        created_at: When the session was created, in seconds since 1970.
        averages: Whether a request may have a ``mean``.
        checkpoint: In the first step after a start of the program, the last checkpoint given to `commit`; else None.
    """

    def __init__(self, line: _Line, told: Mapping[str, Any], checkpoint: bytes | None) -> None:
        self._line = line
        self.round_number: int = told["round"]
        self.seed: int = told["seed"]
        self.clients = [Client(**one) for one in told["clients"]]
        self.path = None if told["model"] is None else line.path(told["model"])
        self.parameters: Mapping[str, Any] = line.parameters
        self.run_config: Mapping[str, Any] = line.run_config
        self.created_at = line.created_at
        self.averages = line.averages
        self.checkpoint = checkpoint
        self.is_committed = False
        line.forget_parts()
        line.names = line.ids = 0  # so that they do not depend on the rounds before a checkpoint

    @property
    def scratch(self) -> str:
        """A folder for temporary files. It is removed when the program has ended, also if it was killed."""
        return self._line.scratch

    def load(self) -> Mapping[str, Any]:
        """Read the model, as PyTorch tensors."""
        from fedpkg.client import arrays

        if self.path is None:
            raise ClientError("the session has no model")
        return arrays.read(self.path)

    def ask(self, *requests: Request | str, **more: Any) -> list[Replies]:
        """Ask clients, and wait for their replies; several requests run at the same time.

        ``ask("train", clients=[…])`` is short for ``ask(Request("train", clients=[…]))``.
        """
        wanted = [Request(one, **more) if isinstance(one, str) else one for one in requests]
        told = self._line.call({"type": "ask", "requests": [self._line.wanted(one) for one in wanted]})
        return [self._replies(one) for one in told["replies"]]

    def arrived(self, number: int = 1) -> list[Replies]:
        """Wait for outstanding requests of this round or earlier ones to end; returns them in order of arrival.

        Args:
            number: The number of requests to wait for; fewer are returned if no more are outstanding, or after
                ``round.timeout_s``. 0: those that have already ended, without waiting.
        """
        return [self._replies(one) for one in self._line.call({"type": "await", "number": number})["replies"]]

    def _replies(self, told: Mapping[str, Any]) -> Replies:
        path = self._line.path
        replies = [
            Reply(
                one["client_id"],
                one["num_examples"],
                one["metadata"],
                one["metrics"],
                {name: path(file) for name, file in one["weights"].items()},
                (path(one["weights"][""]), *one["part"]) if "part" in one else None,
                self._line.parts,
            )
            for one in told["replies"]
        ]
        mean = told.get("mean")
        if mean is not None:
            mean = Averaged(**{**mean, "path": None if mean["path"] is None else path(mean["path"])})
        return Replies(replies, told, mean)

    def commit(
        self,
        model: Model | Kept | None = None,
        *,
        metrics: Mapping[str, float | None] | None = None,
        finished: str | None = None,
        checkpoint: bytes | None = None,
    ) -> None:
        """End the round.

        Args:
            model: The next global model, also as a `Kept` file; None: it does not change.
            finished: If given, the session ends after this round, and this is the reason.
            checkpoint: Bytes from which the program can continue; after a restart it gets no earlier answers.
        """
        line = self._line
        files = {"model": line.put(model), "checkpoint": line.put_bytes(checkpoint)}
        if isinstance(model, Kept) and model.mean_of is not None:
            files["mean_of"] = model.mean_of
        line.send({"type": "commit", "metrics": dict(metrics or {}), "finished": finished, **files})
        self.is_committed = True

    def keep(self, model: Model | Written) -> Kept:
        """Write a model now that is committed later in this round."""
        return Kept(self._line.put(model) or "")

    def keep_mean(self, replies: Replies) -> Kept:
        """The mean of replies as a model that is committed later in this round; it is not sent again."""
        return Kept(None, replies.request_id)

    def announce(self, rounds: int) -> None:
        """Say how many rounds the session will probably have, for the display; for ``rounds: null``."""
        self._line.send({"type": "announce", "rounds": rounds})

    def log(self, text: str) -> None:
        """Add a line to the session's log."""
        self._line.send({"type": "log", "text": text})

    def fail(self, reason: str) -> None:
        """End the session with an error."""
        self._line.send({"type": "error", "text": reason})


class SessionEnded(SystemExit):
    """The session has ended, so the program must end, too."""


class _Part:
    """An open file from its current end on, for writers that seek."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self.write = file.write
        self.flush = file.flush

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = self._start if whence == os.SEEK_SET else 0
        return self._file.seek(base + offset, whence) - self._start

    def seekable(self) -> bool:
        return True


def rounds() -> Iterator[Step]:
    """Iterate over the rounds of the session. Each must be committed before the next one begins."""
    line = _Line()
    first = line.hello()
    kept = None
    if first["checkpoint"] is not None:
        with open(line.path(first["checkpoint"]), "rb") as file:
            kept = file.read()
    told: Mapping[str, Any] | None = first
    while told is not None:
        step = Step(line, told, kept)
        yield step
        if not step.is_committed:
            raise ClientError("the round was not committed", "call step.commit() before the next round")
        told, kept = line.receive(), None


class _Line:
    """The connection to the controller."""

    def __init__(self) -> None:
        number = os.environ.pop(VARIABLE, "")
        if not number.isdigit():
            raise ClientError(
                "this program was not started as a coordinator, or calls rounds() twice",
                "set it in a run.yaml: strategy: {name: coordinator, command: …, folder: …}",
            )
        self._fd = int(number)
        os.set_inheritable(self._fd, False)
        self._files = self._out = ""
        self._sending = threading.Lock()  # another thread may send a line of log
        self.names = 0
        self.ids = 0
        self.parameters: dict[str, Any] = {}
        self.run_config: dict[str, Any] = {}
        self.created_at = 0.0
        self.averages = False

    def hello(self) -> dict[str, Any]:
        told = self.call({"type": "hello", "protocol": VERSION})
        self._files, self._out = told["files"], told["out"]
        self.parameters, self.run_config = told["parameters"], told["run_config"]
        self.created_at, self.averages = told["created_at"], told.get("averages", False)
        return told

    def path(self, name: str) -> str:
        return os.path.join(self._files, name)

    @property
    def parts(self) -> str:
        """The folder of replies that were a part of a file and were asked for as a file."""
        return os.path.join(self._out, "parts")

    @property
    def scratch(self) -> str:
        folder = os.path.join(self._out, "scratch")
        os.makedirs(folder, exist_ok=True)
        return folder

    def forget_parts(self) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)

    def wanted(self, request: Request) -> dict[str, Any]:
        self.ids += 1
        told = {name: getattr(request, name) for name in Request.__dataclass_fields__}
        if isinstance(request.payload, Written) or hasattr(request.payload, "sets"):
            told["payload_kind"] = "records"
        if request.mean is not None:
            told["mean"] = asdict(request.mean)
        for name, default in (("wait", "all"), ("timeout_s", None), ("phase", None), ("payloads", {}), ("mean", None)):
            if told[name] == default:
                del told[name]  # so that messages without it are the same as in earlier versions
        if request.payloads:
            told["payloads"] = self.put_parts(request.payloads)
        return {**told, "id": str(self.ids), "payload": self.put(request.payload)}

    def put_parts(self, payloads: Mapping[str, Records | Written]) -> dict[str, tuple[str, int, int]]:
        """Write records for single clients as parts of a few files."""
        written: dict[int, tuple[str, int, int]] = {}
        name, file = "", None
        try:
            for payload in payloads.values():
                if id(payload) in written:
                    continue
                if file is None or file.tell() > _PART_FILE_BYTES:
                    if file is not None:
                        file.close()
                    name = self._name(".parts")
                    file = open(os.path.join(self._out, name), "xb")  # noqa: SIM115 - closed by the last block
                start = file.tell()
                self._write_into(cast(BinaryIO, _Part(file)), payload)
                end = file.seek(0, os.SEEK_END)
                file.write(bytes(-end % _ALIGNMENT))
                written[id(payload)] = (name, start, end - start)
        finally:
            if file is not None:
                file.close()
        return {client_id: written[id(payload)] for client_id, payload in payloads.items()}

    @staticmethod
    def _write_into(file: BinaryIO, payload: Records | Written) -> None:
        if isinstance(payload, Written):
            payload.write(file)
            return
        from fedpkg.client.records import write_records_to

        tensors = any(_is_tensor(value) for one in payload.sets.values() for value in one.values())
        write_records_to(file, payload, suffix=".safetensors" if tensors else ".npz")

    def put(self, model: Model | Records | Written | Kept | None) -> str | None:
        """Write a model, or records, for the controller; returns the name of the file."""
        if isinstance(model, Kept):
            return model.name
        if isinstance(model, Written):
            name = self._name(model.suffix)
            with open(os.path.join(self._out, name), "xb") as file:
                model.write(file)
            return name
        if model is None or isinstance(model, str):
            if model is None:
                return None
            with open(model, "rb") as file:
                return self.put_bytes(file.read())
        name = self._name(".npz")
        if not isinstance(model, Mapping):
            from fedpkg.client.records import write_records

            tensors = any(_is_tensor(value) for one in model.sets.values() for value in one.values())
            name = name[: -len(".npz")] + ".safetensors" if tensors else name
            write_records(os.path.join(self._out, name), model)
            return name
        values = list(model.values())
        if any(map(_is_tensor, values)):
            from fedpkg.client import arrays

            name = name[: -len(".npz")] + ".safetensors"
            arrays.write(os.path.join(self._out, name), model)
        else:
            import numpy as np

            np.savez(os.path.join(self._out, name), **model)
        return name

    def put_bytes(self, data: bytes | None) -> str | None:
        if data is None:
            return None
        name = self._name(".bin")
        with open(os.path.join(self._out, name), "xb") as file:
            file.write(data)
        return name

    def _name(self, suffix: str) -> str:
        self.names += 1
        return f"{self.names}{suffix}"

    def call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self.send(message)
        told = self.receive()
        if told is None:
            raise SessionEnded("the session has ended")
        return told

    def send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message, allow_nan=False).encode()
        left = memoryview(struct.pack(">I", len(body)) + body)
        try:
            with self._sending:
                while left:
                    left = left[os.write(self._fd, left) :]
        except OSError:
            raise SessionEnded("the session has ended") from None

    def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end of the session."""
        header = self._exactly(4)
        body = None if header is None else self._exactly(struct.unpack(">I", header)[0])
        return None if body is None else json.loads(body)

    def _exactly(self, count: int) -> bytes | None:
        data = bytearray()
        while len(data) < count:
            try:
                part = os.read(self._fd, min(count - len(data), 1 << 16))
            except ConnectionError:
                part = b""
            if not part:
                return None
            data += part
        return bytes(data)


def _is_tensor(value: Any) -> bool:
    """Whether a value is a PyTorch tensor, without importing PyTorch."""
    return type(value).__module__.partition(".")[0] == "torch"
