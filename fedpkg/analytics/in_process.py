"""Runs tasks by calling their functions in this process: the backend of the mocks.

Inputs and results are bytes, as between real nodes, so a value that cannot be sent fails here as well. Each task gets
copies of its organization's frames.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpkg.analytics import calling, eras, task_files
from fedpkg.analytics.backend import COMPLETED, CRASHED, Organization
from fedpkg.analytics.current import Call
from fedpkg.analytics.node import Database, Node
from fedpkg.analytics.recorded import Recorded, Task

Answer = Callable[[str, bytes, Call], bytes]  # the module, an input and the call → the result
IMAGE = "mock_image"


@dataclass(frozen=True)
class MockNode:
    """An organization with the frames of its node by label, in the order in which tasks get them."""

    organization: Organization
    frames: Mapping[str, Any] = field(default_factory=dict)
    node_id: int | None = None


def mock_node(id_: int, frames: Mapping[str, Any], node_id: int | None = None) -> MockNode:
    """The node of an organization that has its name from its id."""
    return MockNode(Organization(id_, f"mock-{id_}", {"domain": f"mock-{id_}.org"}), frames, node_id)


def ids_of(given: Sequence[int] | None, number: int, name: str) -> list[int]:
    """The ids that a mock client was given as the argument ``name``; 0, 1, … by default.

    Raises:
        ValueError: There are more of them than organizations, or fewer.
    """
    if given and len(given) != number:
        raise ValueError(f"{name} has {len(given)} ids, but there are datasets of {number} organizations")
    return list(given or range(number))


@dataclass
class _Network:
    """What the backends of all functions of one network have in common."""

    module: str
    nodes: Mapping[int, MockNode]
    answer: Answer
    client: Callable[[InProcess], Any] | None
    collaboration_id: int
    image: str
    most_tasks: int | None
    folder: Path | None = None

    def folder_of(self, organization_id: int, depth: int) -> Path:
        """The folder of a task's files. Tasks of an organization that do not run at the same time have the same one."""
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="fedpkg-mock-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        return self.folder / f"{depth}-{organization_id}"


class InProcess(Recorded):
    """A backend whose functions are called in this process, one after the other.

    Args:
        module: The algorithm.
        nodes: All organizations; the caller is the first one. Ids are those of their organizations.
        answer: Answers one input; `fedpkg.analytics.eras.answer`, by default.
        client: Makes the client that functions get as ``mock_client``, from their backend.
    """

    def __init__(
        self,
        module: str,
        nodes: Sequence[MockNode],
        *,
        answer: Answer = eras.answer,
        client: Callable[[InProcess], Any] | None = None,
        collaboration_id: int = 1,
        image: str = IMAGE,
        most_tasks: int | None = None,
    ) -> None:
        by_id = {one.organization.organization_id: one for one in nodes}
        if not nodes or len(by_id) < len(nodes):
            raise ValueError("a network needs organizations with data, each with its own id")
        network = _Network(module, by_id, answer, client, collaboration_id, image, most_tasks)
        self._begin(network, nodes[0], list(nodes[0].frames), 0)

    def _begin(self, network: _Network, at: MockNode, databases: Sequence[str], task_id: int) -> None:
        organization = at.organization
        node = Node(organization.organization_id, organization.name, network.collaboration_id)
        everyone = [one.organization for one in network.nodes.values()]
        super().__init__(
            node,
            everyone,
            image=network.image,
            databases=databases,
            task_id=task_id,
            now=time.time(),
            most_tasks=network.most_tasks,
        )
        self.node_id = node.node_id if at.node_id is None else at.node_id
        self._network = network
        self._depth = 0  # of tasks that run inside each other
        self._errors: dict[int, BaseException] = {}  # of tasks: what the first function that failed has raised

    def frames_of(self, organization_id: int) -> Mapping[str, Any]:
        """The frames of an organization by label, and no copies of them."""
        return self._network.nodes[organization_id].frames

    def node_of(self, organization_id: int) -> int:
        """The id of an organization's node."""
        given = self._network.nodes[organization_id].node_id
        return organization_id if given is None else given

    def run(self) -> None:
        for task in self.left():
            self.end(task, [self._ran(task, self._network.nodes[one]) for one in task.organization_ids])

    def raise_failure(self, task_id: int) -> None:
        """Raise what the first function of a task that failed has raised; nothing if none has."""
        if task_id in self._errors:
            raise self._errors[task_id]

    def _ran(self, task: Task, at: MockNode) -> tuple[str, bytes | None, str]:
        network = self._network
        inner = object.__new__(InProcess)
        inner._begin(network, at, task.databases, task.task_id)
        inner._depth = self._depth + 1
        node = Node(
            organization_id=inner.organization_id,
            organization=at.organization.name,
            collaboration_id=inner.collaboration_id,
            databases={label: Database(label, "", "frame") for label in at.frames},
        )
        client = None if network.client is None else lambda: network.client(inner)  # type: ignore[misc]
        try:
            folder = network.folder_of(inner.organization_id, inner._depth)
            ready = task_files.written_to(folder, node, inner, task.input_)
            call = Call(inner, ready, task.databases, _Copies(at.frames), client)
            return COMPLETED, network.answer(network.module, task.input_, call), ""
        except (Exception, SystemExit) as error:  # an algorithm may end its process with exit(1)
            self._errors.setdefault(task.task_id, error)
            return CRASHED, None, calling.traceback_of(error)


class _Copies:
    """The frames of a node, copied when they are first asked for."""

    def __init__(self, frames: Mapping[str, Any]) -> None:
        self._frames = frames
        self._copied: dict[str, Any] = {}

    def __call__(self, label: str) -> Any:
        if label not in self._copied:
            self._copied[label] = copy.deepcopy(self._frames[label])
        return self._copied[label]
