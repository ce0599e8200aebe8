"""A desk at which tests hand in orders, whatever runs them; and the far end of an executor as a process."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from near_end import SocketExecutor
from workbench import MARK, NOBODY, PATIENCE_S, marked, python_of_nobody, wait_until

from fedpkg.compute_package.build import build_package
from fedpkg.compute_package.unpack import open_package
from fedpkg.devices import cpu_slots
from fedpkg.dispatch.forkserver import forkserver_executor
from fedpkg.dispatch.process import process_executor
from fedpkg.dispatch.resident import resident_executor
from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.files import sha256_file
from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import read_model
from fedpkg.formats.records_file import write_records
from fedpkg.replies.reading import tensors_of
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Answer
from fedpkg.waist.order import Input, Order, ReplySpec, digest_of
from fedpkg.waist.wire import from_json, to_json
from fedpkg.weights import Records, Weights

ROOT = Path(__file__).resolve().parents[3]
ANY_CODE = ROOT / "tests" / "packages" / "any-code"


def archive_of(package: Path, folder: Path) -> Path:
    """The archive of a package's folder."""
    return build_package(package, folder / "package.tar.gz").path


class FarProcess:
    """The far end: as user nobody where that user can run Python, in a folder that is none of the controller's."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ganz woanders "))
        self._folder.chmod(0o755)
        python = python_of_nobody(self._folder) if os.getuid() == 0 else None
        self.is_another_user = python is not None
        self.home = self._folder / "ein fernes Heim"
        self.data = self.home / "Daten"
        self.data.mkdir(parents=True)
        self.data.chmod(0o777)
        self._command = [python or sys.executable, str(Path(__file__).with_name("far_end.py")), str(self.home)]
        self._user: dict[str, Any] = {}
        if self.is_another_user:
            self._user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(self.home, NOBODY, NOBODY)
        self.start()

    def start(self) -> None:
        path = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(self._folder)}
        environ |= {"PYTHONDONTWRITEBYTECODE": "1", "FEDPKG_ENVIRONMENTS": str(self.home / "environments")}
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, env=environ, cwd=self._folder, **self._user
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        """End it as if its machine had gone; its tasks end with it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> FarProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.kill()
        shutil.rmtree(self._folder)


class Desk:
    """An executor, the packages and folders around it, and orders for it.

    Attributes:
        home: below it lie the inputs that orders name, and what is fetched.
        far: where tasks run: ``data`` below it is what orders name as their data; tests and tasks write there.
    """

    def __init__(self, name: str, folder: Path, archive: Path, *, slots: int = 2, **options: Any) -> None:
        self.name = name
        self.home = folder / "ein Heim"
        self.home.mkdir(parents=True)
        self.far: FarProcess | None = None
        self.mark = uuid.uuid4().hex
        self.digest = sha256_file(archive)
        self._numbers = itertools.count()
        where: dict[str, Any] = {"slots": cpu_slots(slots), "environment": {MARK: self.mark}}
        where["log_folder"] = self.home / "executor"
        if name == "socket":
            self.far = FarProcess()
            where = {"slots": slots, "environment": {MARK: self.mark}}
            self.executor: Any = SocketExecutor(
                self.far.port, self.home, archive.read_bytes(), self.digest, **where, **options
            )
            self.data = self.far.data
            return
        self.data = self.home / "Daten"
        self.data.mkdir()
        package = open_package(archive, self.home / "packages")
        on_disk = PackageOnDisk(package.digest, package.root, package.folder, package.spec)
        site = Site(self.home, on_disk)
        if name == "process":
            self.executor = process_executor(site, **where)
        elif name == "resident":
            self.executor = resident_executor(site, **where, package=on_disk)
        else:
            self.executor = forkserver_executor(site, **where, package=on_disk)

    def order(self, code: str = "tell()", **fields: Any) -> Order:
        """An order whose task does what ``code`` says: by default a validation; with ``spec``, what that asks for."""
        number = next(self._numbers)
        spec = fields.pop("spec", None) or ReplySpec(kind=ReplyKind.METRICS)
        self.executor.know(spec, digest_of(spec))
        order = Order(
            task_id=fields.pop("task_id", f"s-1/1/{number}"),
            session_id="s-1",
            round_number=fields.pop("round_number", 1),
            client_id=fields.pop("client_id", f"client-{number}"),
            entry_point=fields.pop("entry_point", "validate" if spec.kind is ReplyKind.METRICS else "train"),
            package=self.digest,
            reply_spec=digest_of(spec),
            arguments={"code": code, **fields.pop("arguments", {})},
            timeout_s=fields.pop("timeout_s", PATIENCE_S),
            request_id=fields.pop("request_id", "1"),
            environment={MARK: self.mark, **fields.pop("environment", {})},
            **fields,
        )
        return from_json(to_json(order), Order)  # nothing but data crosses

    def submit(self, code: str = "tell()", **fields: Any) -> tuple[Order, Future[Answer]]:
        order = self.order(code, **fields)
        return order, self.executor.submit(order)

    def run(self, code: str = "tell()", **fields: Any) -> tuple[Order, Answer]:
        order, answered = self.submit(code, **fields)
        answer = answered.result(PATIENCE_S)
        assert isinstance(answer, Answer) and answer.task_id == order.task_id
        again = from_json(to_json(answer), Answer)
        assert to_json(again) == to_json(answer)
        return order, answer

    def told(self, code: str, **fields: Any) -> Any:
        """The metrics of a task, which must be in order."""
        _, answer = self.run(code, **fields)
        assert answer.status == "ok", (answer.failure, answer.log_tail)
        return answer.metrics

    def fetched(self, order: Order, answer: Answer) -> Path:
        """The reply's file, brought here."""
        assert answer.reply is not None, (answer.failure, answer.log_tail)
        into = self.home / "geholt" / str(next(self._numbers))
        self.executor.fetch(order, answer, into)
        return into / answer.reply.name

    def model(self) -> tuple[Input, ReplySpec]:
        """An input, and what an update to it must be."""
        path = self.home / "Modelle" / "model.npz"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            np.savez(path, w=np.arange(6, dtype=np.float32).reshape(2, 3), n=np.array(3))
        spec = ReplySpec(kind=ReplyKind.UPDATE, tensors=tensors_of(read_model(path)))
        return Input(reference="Modelle/model.npz", size_bytes=path.stat().st_size), spec

    def records(self) -> Input:
        """An input of records."""
        path = self.home / "Modelle" / "records.npz"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            question = Records(
                {"edges/of x": Weights({"": torch.arange(3.0)}), "none": Weights({})}, {"column": "größe"}
            )
            write_records(path, question, ModelForm(".npz"))
        return Input(reference="Modelle/records.npz", size_bytes=path.stat().st_size, records=True)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.close()
        if self.far is not None:
            self.far.__exit__()
        wait_until(lambda: marked(self.mark) == [], "the end of what ran")
