"""Runs tasks by calling their functions in this process: the backend of the mocks.

Inputs and results are bytes, as between real nodes, so a value that cannot be sent fails here as well. Each task gets
copies of its organisation's frames.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedpkg.analytics import calling, tokens
from fedpkg.analytics.backend import COMPLETED, CRASHED, PENDING, Organization, Run
from fedpkg.analytics.current import Call
from fedpkg.analytics.node import Database, Node

Answer = Callable[[str, bytes, Call], bytes]  # the module, an input and the call → the result
IMAGE = "mock_image"


@dataclass(frozen=True)
class MockNode:
    """An organisation with the frames of its node by label, in the order in which tasks get them."""

    organization: Organization
    frames: Mapping[str, Any] = field(default_factory=dict)
    node_id: int | None = None


class InProcess:
    """A `fedpkg.analytics.backend.Backend` whose functions are called in this process, one after the other.

    Args:
        module: The algorithm.
        nodes: All organisations; the caller is the first one. Their ids are those of their organisations.
        answer: Answers one input; that of versions 4 and 5, by default.
        client: Makes the client that functions get as ``mock_client``, from their backend.
    """

    def __init__(
        self,
        module: str,
        nodes: Sequence[MockNode],
        *,
        answer: Answer = calling.answer,
        client: Callable[[InProcess], Any] | None = None,
        collaboration_id: int = 1,
        image: str = IMAGE,
    ) -> None:
        if not nodes:
            raise ValueError("a network needs at least one organisation with data")
        ids = [one.organization.organization_id for one in nodes]
        _refuse_repeated(ids)
        self._shared = _Shared(module, nodes, answer, client, collaboration_id)
        self.image = image
        self.collaboration_id = collaboration_id
        self.organization_id = ids[0]
        self.node_id = self._shared.node_id(nodes[0])
        self.task_id = 0
        self.databases: list[str] = list(nodes[0].frames)

    def frames_of(self, organization_id: int) -> Mapping[str, Any]:
        """The frames of an organisation by label, and no copies of them."""
        return self._shared.nodes[organization_id].frames

    def node_of(self, organization_id: int) -> int:
        """The id of an organisation's node."""
        return self._shared.node_id(self._shared.nodes[organization_id])

    def organizations(self) -> Sequence[Organization]:
        return [one.organization for one in self._shared.nodes.values()]

    def create(
        self,
        input_: bytes,
        organization_ids: Sequence[int],
        *,
        name: str = "",
        description: str = "",
        databases: Sequence[str] | None = None,
    ) -> int:
        shared = self._shared
        for one in organization_ids:
            if one not in shared.nodes:
                there = ", ".join(f"{id_} ({node.organization.name})" for id_, node in shared.nodes.items())
                raise ValueError(f"there is no organisation {one!r}; there are: {there}")
        _refuse_repeated(organization_ids)
        task_id = len(shared.tasks) + 1
        labels = list(self.databases if databases is None else databases)
        about = {
            "name": name,
            "description": description,
            "organizations": list(organization_ids),
            "databases": labels,
            "parent": self.task_id or None,
            "created_at": time.time(),
        }
        runs = [Run(shared.next_run + number, task_id, one, PENDING) for number, one in enumerate(organization_ids)]
        shared.next_run += len(runs)
        shared.tasks.append(_Task(bytes(input_), about, runs))
        return task_id

    def has_ended(self, task_id: int) -> bool:
        return all(one.status != PENDING for one in self._task(task_id).runs)

    def run(self) -> None:
        for task in list(self._shared.tasks):
            if task.about["parent"] != (self.task_id or None):
                continue  # that of another function, which is not waiting for it
            for place, one in enumerate(task.runs):
                if one.status == PENDING:
                    task.runs[place] = self._ran(task, one)

    def runs(self, task_id: int) -> Sequence[Run]:
        return list(self._task(task_id).runs)

    def about(self, task_id: int) -> Mapping[str, Any]:
        return self._task(task_id).about

    def raise_failure(self, task_id: int) -> None:
        """Raise what the first function of a task that failed has raised; nothing if none has."""
        for one in self._task(task_id).runs:
            if one.run_id in self._shared.errors:
                raise self._shared.errors[one.run_id]

    def _task(self, task_id: int) -> _Task:
        if not isinstance(task_id, int) or not 1 <= task_id <= len(self._shared.tasks):
            raise KeyError(task_id)
        return self._shared.tasks[task_id - 1]

    def _ran(self, task: _Task, run: Run) -> Run:
        shared = self._shared
        mock = shared.nodes[run.organization_id]
        inner = copy.copy(self)
        inner.organization_id, inner.node_id, inner.task_id = run.organization_id, shared.node_id(mock), run.task_id
        inner.databases = task.about["databases"]
        frames: dict[str, Any] = {}

        def frame(label: str) -> Any:
            if label not in frames:
                frames[label] = copy.deepcopy(mock.frames[label])
            return frames[label]

        environment = shared.files_of(inner, run, task.input_)
        node = Node(
            organization_id=run.organization_id,
            organization=mock.organization.name,
            collaboration_id=self.collaboration_id,
            databases={label: Database(label, "", "frame") for label in mock.frames},
            environment=environment,
        )
        client = None if shared.client is None else lambda: shared.client(inner)  # type: ignore[misc]
        try:
            result = shared.answer(shared.module, task.input_, Call(inner, node, inner.databases, frame, client))
        except (Exception, SystemExit) as error:  # an algorithm may end its process with exit(1)
            shared.errors[run.run_id] = error
            return replace(run, status=CRASHED, log=calling.traceback_of(error))
        return replace(run, status=COMPLETED, result=result)


@dataclass
class _Task:
    input_: bytes
    about: Mapping[str, Any]
    runs: list[Run]


class _Shared:
    """What the backends of all functions of one network have in common."""

    def __init__(
        self,
        module: str,
        nodes: Sequence[MockNode],
        answer: Answer,
        client: Callable[[InProcess], Any] | None,
        collaboration_id: int,
    ) -> None:
        self.module = module
        self.nodes = {one.organization.organization_id: one for one in nodes}
        self.answer = answer
        self.client = client
        self.collaboration_id = collaboration_id
        self.tasks: list[_Task] = []
        self.errors: dict[int, BaseException] = {}
        self.next_run = 1
        self._folder: Path | None = None

    def node_id(self, node: MockNode) -> int:
        return node.organization.organization_id if node.node_id is None else node.node_id

    def files_of(self, inner: InProcess, run: Run, input_: bytes) -> dict[str, str]:
        """Write the files of a task; returns the variables of its environment."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fedpkg-mock-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        folder = self._folder / str(run.run_id)
        temporary = folder / "tmp"
        temporary.mkdir(parents=True)
        token = tokens.of(inner)
        (folder / "input").write_bytes(input_)
        (folder / "token").write_text(token)
        return {
            "INPUT_FILE": str(folder / "input"),
            "OUTPUT_FILE": str(folder / "output"),
            "TOKEN_FILE": str(folder / "token"),
            "CONTAINER_TOKEN": token,
            "TEMPORARY_FOLDER": str(temporary),
            "SESSION_FOLDER": str(temporary),
            "TASK_ID": str(run.task_id),
            "NODE_ID": str(inner.node_id),
            "ORGANIZATION_ID": str(inner.organization_id),
            "COLLABORATION_ID": str(inner.collaboration_id),
        }


def _refuse_repeated(ids: Sequence[int]) -> None:
    repeated = [one for one, number in Counter(ids).items() if number > 1]
    if repeated:
        raise ValueError(f"organisation {repeated[0]} is named twice")
