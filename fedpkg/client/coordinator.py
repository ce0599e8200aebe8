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
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from fedpkg.client.errors import ClientError

if TYPE_CHECKING:
    from fedpkg.client.records import Records

VERSION = 1
VARIABLE = "FEDPKG_COORDINATOR"
Model = Union[str, "Mapping[str, Any]"]  # the path of a file, or tensors (PyTorch) or arrays (NumPy) by name


@dataclass(frozen=True)
class Client:
    """A client that can be asked. ``num_examples`` is None until it is known."""

    client_id: str
    groups: Sequence[str] = ()
    num_examples: float | None = None


@dataclass(frozen=True)
class Reply:
    """One client's usable reply. ``paths`` are its files of weights by the name of the set; an update is the set "".

    Records, like an update, are one file.
    """

    client_id: str
    num_examples: float
    metadata: Mapping[str, Any]
    metrics: Any
    paths: Mapping[str, str]

    @property
    def path(self) -> str:
        """The file of an update, in the format of the seed model: .npz or .safetensors."""
        return self.paths[""]

    def load(self, name: str = "") -> Mapping[str, Any]:
        """Read the update, or one of several sets, as PyTorch tensors."""
        from fedpkg.client import arrays

        return arrays.read(self.paths[name])

    def records(self) -> Records:
        """Read the records, as NumPy arrays."""
        from fedpkg.client.records import load_records

        return load_records(self.path)


class Replies(list):  # type: ignore[type-arg]
    """The usable replies to one request, in the order of ``asked``. ``missing`` are the clients without one.

    ``request_id`` identifies the request in its round. While it ``is_outstanding``, there are no replies yet.
    """

    def __init__(self, replies: Sequence[Reply], told: Mapping[str, Any]) -> None:
        super().__init__(replies)
        self.request_id: str = told["id"]
        self.round_number: int | None = told.get("round")
        self.asked: Sequence[str] = told["asked"]
        self.missing: Sequence[str] = told["missing"]
        self.is_outstanding: bool = told.get("is_outstanding", False)


@dataclass(frozen=True)
class Request:
    """A request to clients. The fields are those of `fedpkg.strategies.base.Request`.

    Args:
        clients: The clients to ask; None: the group, or else those that the session's sampler chooses.
        payload: The model that clients get, or `fedpkg.client.Records`; None: the round's model, if there is one.
        required: The number of usable replies below which the round fails; None: ``round.required`` of the run.yaml.
        wait: Wait for "all" clients, for a number of usable replies, or for "nothing": see `Step.arrived`.
    """

    entry_point: str = "train"
    clients: Sequence[str] | None = None
    group: str | None = None
    reply_kind: str = "update"
    reply: str = "weights"
    sets: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    payload: Model | Records | None = None
    required: int | None = None
    wait: str | int = "all"


class Step:
    """One round, from its model to `commit`.

    Attributes:
        round_number: The number of the round, from 1.
        seed: A different seed in each round, but the same if the round is repeated.
        clients: The clients that can be asked.
        path: The file of the model; None if the session has no model.
        parameters, run_config: As in the run.yaml.
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
        self.checkpoint = checkpoint
        self.is_committed = False
        line.names = line.ids = 0  # so that they do not depend on the rounds before a checkpoint

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
            )
            for one in told["replies"]
        ]
        return Replies(replies, told)

    def commit(
        self,
        model: Model | None = None,
        *,
        metrics: Mapping[str, float | None] | None = None,
        finished: str | None = None,
        checkpoint: bytes | None = None,
    ) -> None:
        """End the round.

        Args:
            model: The next global model; None: it does not change.
            finished: If given, the session ends after this round, and this is the reason.
            checkpoint: Bytes from which the program can continue; after a restart it gets no earlier answers.
        """
        line = self._line
        files = {"model": line.put(model), "checkpoint": line.put_bytes(checkpoint)}
        line.send({"type": "commit", "metrics": dict(metrics or {}), "finished": finished, **files})
        self.is_committed = True

    def log(self, text: str) -> None:
        """Add a line to the session's log."""
        self._line.send({"type": "log", "text": text})

    def fail(self, reason: str) -> None:
        """End the session with an error."""
        self._line.send({"type": "error", "text": reason})


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
        self.names = 0
        self.ids = 0
        self.parameters: dict[str, Any] = {}
        self.run_config: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        told = self.call({"type": "hello", "protocol": VERSION})
        self._files, self._out = told["files"], told["out"]
        self.parameters, self.run_config = told["parameters"], told["run_config"]
        return told

    def path(self, name: str) -> str:
        return os.path.join(self._files, name)

    def wanted(self, request: Request) -> dict[str, Any]:
        self.ids += 1
        told = {name: getattr(request, name) for name in Request.__dataclass_fields__}
        if hasattr(request.payload, "sets"):
            told["payload_kind"] = "records"
        if request.wait == "all":
            del told["wait"]  # so that messages without it are the same as in earlier versions
        return {**told, "id": str(self.ids), "payload": self.put(request.payload)}

    def put(self, model: Model | Records | None) -> str | None:
        """Write a model, or records, for the controller; returns the name of the file."""
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
            raise SystemExit("the session has ended")
        return told

    def send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message, allow_nan=False).encode()
        left = memoryview(struct.pack(">I", len(body)) + body)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            raise SystemExit("the session has ended") from None

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
