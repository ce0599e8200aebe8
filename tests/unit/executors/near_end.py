"""The near end: an executor whose tasks run in another process, under another user, in another tree of folders.

All that the two share is a socket. What a network or a cluster adds to this is transport.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from line import Line

from fedpkg.compute_package.unpack import archive_of
from fedpkg.errors import DispatchError, WaistError
from fedpkg.files import remove_tree
from fedpkg.formats.metadata import metadata_path
from fedpkg.replies.reading import JSON_BYTES
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Order, ReplySpec
from fedpkg.waist.wire import from_json, to_json

Tamper: TypeAlias = Callable[[str, dict[str, Any], Any, bytes], tuple[Any, bytes]]


def over(port: int, **options: Any) -> Callable[..., SocketExecutor]:
    """In place of `fedpkg.session.executors.make_executor`: the executor of a session whose tasks run at that port."""

    def make(config: Any, site: Any, package: Any, log_folder: Path, *, slots: Sequence[Any]) -> SocketExecutor:
        with archive_of(Path(config.package), None) as file:
            file.seek(0)
            archive = file.read()
        setting = {"slots": len(slots), "environment": config.environment, "executor": config.executor.name}
        return SocketExecutor(port, site.home, archive, package.digest, **setting, **options)

    return make


class FarStates:
    """The `ClientStates` that are at the far end: tokens go, words come."""

    def __init__(self, call: Callable[..., tuple[Any, bytes]]) -> None:
        self._call = call

    def damage(self, session_id: str, client_id: str, token: str, checksum: str | None = None) -> str:
        return str(self._call("states", what="damage", given=[session_id, client_id, token, checksum])[0])

    def commit(self, session_id: str, states: Mapping[str, str | None]) -> None:
        self._call("states", what="commit", given=[session_id, dict(states)])

    def forget(self, session_id: str, states: Mapping[str, str | None]) -> None:
        self._call("states", what="forget", given=[session_id, dict(states)])

    def discard(self, session_id: str, client_id: str, token: str) -> None:
        self._call("states", what="discard", given=[session_id, client_id, token])


class SocketExecutor:
    """An `Executor`. ``home``: below it lie the inputs that orders name.

    ``tamper``: gets what arrives (the call, its facts, value and body), and gives what is taken in its place.
    """

    is_ours = False
    is_warming = False

    def __init__(
        self,
        port: int,
        home: Path,
        archive: bytes,
        digest: str,
        *,
        slots: int,
        environment: Mapping[str, str],
        executor: str = "process",
        tamper: Tamper = lambda call, facts, value, body: (value, body),
    ) -> None:
        self.slots = slots
        self.states = FarStates(self._call)
        self._home = home
        self._package = digest
        self._tamper = tamper
        self._line = Line(socket.create_connection(("127.0.0.1", port)))
        self._numbers = itertools.count()
        self._lock, self._handing_over = threading.Lock(), threading.Lock()
        self._is_lost = False
        self._waiting: dict[int, tuple[str, dict[str, Any], Future[tuple[Any, bytes]]]] = {}
        self._known: set[str] = set()
        self._sent: set[str] = set()
        self._closed = False
        # An answer's receiver fetches its reply: not in the thread that reads what comes, or it would wait for itself.
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="fedpkg-answer")
        self._reader = threading.Thread(target=self._read, name="fedpkg-far-end", daemon=True)
        self._reader.start()
        setting = {"package": digest, "slots": slots, "environment": dict(environment), "executor": executor}
        if not self._call("open", **setting)[0]:
            self._call("package", archive, digest=digest)
            self._call("open", **setting)

    # ---- orders

    def know(self, spec: ReplySpec, digest: str) -> None:
        with self._handing_over:
            if digest not in self._known:
                self._call("know", to_json(spec), digest=digest)
                self._known.add(digest)

    def submit(self, order: Order) -> Future[Answer]:
        if self._closed:
            raise DispatchError("this executor is closed")
        if order.package != self._package or order.reply_spec not in self._known:
            what = "compute package" if order.package != self._package else "specification of replies"
            raise DispatchError(f"task {order.task_id} names a {what} that this executor was not given")
        answered: Future[Answer] = Future()
        answered.set_running_or_notify_cancel()
        try:
            if order.input is not None:
                self._send_input(order.input.reference)
            came = self._begin("submit", to_json(order))
        except (OSError, WaistError) as error:
            answered.set_result(_failed(order, str(error)))
            return answered
        came.add_done_callback(lambda done: self._threads.submit(_pass_on, order, done, answered))
        return answered

    def _send_input(self, reference: str) -> None:
        with self._handing_over:
            if reference not in self._sent:
                self._call("input", (self._home / reference).read_bytes(), reference=reference)
                self._sent.add(reference)

    def cancel(self, task_id: str) -> None:
        try:
            self._call("cancel", task_id=task_id)
        except OSError:
            pass  # then it has failed

    # ---- replies

    def fetch(self, order: Order, answer: Answer, into: Path) -> None:
        assert answer.reply is not None
        names, body = self._call("fetch", task_id=order.task_id)
        most = {answer.reply.name: answer.reply.size_bytes, metadata_path(Path(answer.reply.name)).name: JSON_BYTES}
        remove_tree(into)
        into.mkdir(parents=True)
        place = 0
        for name, size_bytes in names:
            if name not in most or not 0 <= size_bytes <= most[name]:
                raise OSError(f"what came of its reply is not what was said: {name!r:.60}, {size_bytes} bytes")
            (into / name).write_bytes(body[place : place + size_bytes])
            place += size_bytes

    def discard(self, order: Order, answer: Answer) -> None:
        self._call("discard", task_id=order.task_id)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._call("close")
            except OSError:
                pass  # it is gone, and ends by itself what it ran
            self._line.close()
            self._reader.join()
            self._threads.shutdown()

    # ---- calls

    def _call(self, name: str, body: bytes = b"", **facts: Any) -> tuple[Any, bytes]:
        return self._begin(name, body, **facts).result()

    def _begin(self, name: str, body: bytes = b"", **facts: Any) -> Future[tuple[Any, bytes]]:
        number, came = next(self._numbers), Future[tuple[Any, bytes]]()
        with self._lock:
            if self._is_lost:
                raise ConnectionError("the far end is gone")
            self._waiting[number] = name, facts, came
        self._line.send({"call": name, "number": number, **facts}, body)
        return came

    def _read(self) -> None:
        try:
            while True:
                head, body = self._line.receive()
                name, facts, came = self._waiting.pop(head["number"])
                if "error" in head:
                    came.set_exception(OSError(head["error"]))
                    continue
                try:
                    came.set_result(self._tamper(name, facts, head["value"], body))
                except Exception as error:
                    came.set_exception(OSError(f"{type(error).__name__}: {error}"))
        except (OSError, ValueError, LookupError):
            pass
        with self._lock:
            self._is_lost = True
            left, self._waiting = self._waiting, {}
        for *_, came in left.values():
            came.set_exception(ConnectionError("the far end is gone"))


def _pass_on(order: Order, done: Future[tuple[Any, bytes]], answered: Future[Answer]) -> None:
    """The answer as it came; what is none is a failure."""
    try:
        answer = from_json(done.result()[1], Answer)
    except (OSError, WaistError) as error:
        answer = _failed(order, str(error))
    answered.set_result(answer)


def _failed(order: Order, message: str) -> Answer:
    return Answer(task_id=order.task_id, status="failed", failure=Failure("executor", message))
