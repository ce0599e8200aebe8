"""The far end of an executor: runs what comes across a socket, below a folder of its own, with fedpkg's executors.

python far_end.py HOME     prints the port at which it listens; serves one controller after the other

It has nothing of the controller's: packages come as archives, named by their digest, inputs by reference, once each.
What clients keep stays here; the controller gets tokens. Data are named by the order and lie here.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
from line import Line

from fedpkg.compute_package.unpack import UnpackedPackage, find_package, open_package
from fedpkg.devices import cpu_slots
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.forkserver import forkserver_executor
from fedpkg.dispatch.process import process_executor
from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.errors import FedpkgError
from fedpkg.waist.answer import Answer, Failure
from fedpkg.waist.order import Order, ReplySpec
from fedpkg.waist.wire import from_json, to_json


class FarEnd:
    """One controller's executor. All ends with its connection: a controller that was killed begins anew."""

    def __init__(self, home: Path, line: Line) -> None:
        self.home = home
        self.line = line
        self.site = Site(home)
        self.executor: LocalExecutor | None = None
        self.answered: dict[str, tuple[Order, Answer]] = {}
        shutil.rmtree(home / "inputs", ignore_errors=True)  # without a digest they are the connection's
        for left in home.glob("sessions/*/round-*/*/*.reply"):  # not fetched: on no record
            shutil.rmtree(left)

    def serve(self) -> None:
        try:
            while True:
                head, body = self.line.receive()
                call: Callable[..., tuple[Any, bytes]] = getattr(self, f"on_{head['call']}")
                try:
                    result = call(head, body)
                except (FedpkgError, OSError) as error:
                    self.line.send({"number": head["number"], "error": str(error)})
                    continue
                if result is not None:
                    self.line.send({"number": head["number"], "value": result[0]}, result[1])
                if head["call"] == "close":
                    return
        except OSError:
            pass  # the controller is gone
        finally:
            if self.executor is not None:
                self.executor.close()

    # ---- what orders name

    def on_open(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        package = self._package(head["package"])
        if package is None:
            return False, b""
        on_disk = PackageOnDisk(package.digest, package.root, package.folder, package.spec)
        self.site.add(on_disk)
        options = {"slots": cpu_slots(head["slots"]), "environment": head["environment"]}
        options |= {"log_folder": self.home / "executor"}
        if head["executor"] == "process":
            self.executor = process_executor(self.site, **options)
        else:
            self.executor = forkserver_executor(self.site, **options, package=on_disk)
        return True, b""

    def _package(self, digest: str) -> UnpackedPackage | None:
        try:
            return find_package(digest, self.home / "packages")
        except FedpkgError:
            return None

    def on_package(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        if hashlib.sha256(body).hexdigest() != head["digest"]:
            raise OSError("another package came than was named")
        archive = self.home / "package.tar.gz"
        archive.write_bytes(body)
        open_package(archive, self.home / "packages")
        return None, b""

    def on_know(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        self.site.know(from_json(body, ReplySpec), head["digest"])
        return None, b""

    def on_input(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        path = self.home / self._input(head["reference"])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
        return None, b""

    def _input(self, reference: str) -> str:
        suffix = Path(reference).suffix
        return f"inputs/{hashlib.sha256(reference.encode()).hexdigest()}{suffix}"

    # ---- tasks

    def on_submit(self, head: dict[str, Any], body: bytes) -> None:
        order = from_json(body, Order)
        if order.input is not None:
            file = msgspec.structs.replace(order.input, reference=self._input(order.input.reference))
            order = msgspec.structs.replace(order, input=file)
        assert self.executor is not None
        self.executor.submit(order).add_done_callback(functools.partial(self._answer, head["number"], order))

    def _answer(self, number: int, order: Order, done: Future[Answer]) -> None:
        if error := done.exception():
            failure = Failure("executor", f"{type(error).__name__}: {error}")
            answer = Answer(task_id=order.task_id, status="failed", failure=failure)
        else:
            answer = done.result()
        self.answered[order.task_id] = order, answer
        try:
            self.line.send({"number": number, "value": None}, to_json(answer))
        except OSError:
            pass  # the controller is gone

    def on_cancel(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        assert self.executor is not None
        self.executor.cancel(head["task_id"])
        return None, b""

    def on_fetch(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        assert self.executor is not None
        order, answer = self._answered(head)
        folder = self.home / "fetched"
        self.executor.fetch(order, answer, folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        shutil.rmtree(folder)
        return [[name, len(data)] for name, data in files.items()], b"".join(files.values())

    def on_discard(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        assert self.executor is not None
        self.executor.discard(*self._answered(head))
        del self.answered[head["task_id"]]
        return None, b""

    def _answered(self, head: dict[str, Any]) -> tuple[Order, Answer]:
        """What became of a task, as it was here: what the controller says of it may be damaged."""
        if head["task_id"] not in self.answered:
            raise OSError(f"nothing is left of task {head['task_id']}")
        return self.answered[head["task_id"]]

    def on_close(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        if self.executor is not None:
            self.executor.close()
        return None, b""

    # ---- what clients keep

    def on_states(self, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        assert self.executor is not None
        return getattr(self.executor.states, head["what"])(*head["given"]), b""


def main() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            FarEnd(Path(sys.argv[1]), Line(connection)).serve()


if __name__ == "__main__":
    main()
