"""The clients of versions 1 to 3 for tests: functions run in this process, on the data that a client was given."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fedpkg.analytics import calling, tokens
from fedpkg.analytics.errors import UserInputError
from fedpkg.analytics.in_process import InProcess, ids_of, mock_node
from fedpkg.analytics.legacy import answers
from fedpkg.analytics.legacy.calling import Wrapper, answer
from fedpkg.analytics.legacy.client import AlgorithmClient, ContainerClient
from fedpkg.analytics.v4.wrappers import load_data

_LABEL = "default"
_KEYS = ("database", "type", "db_input")


class Complete(str):
    """A true value that equals True, as on a server, and "true", with which loops for the published mock compare it."""

    def __eq__(self, other: object) -> bool:
        return other is True or str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class _Mock(ContainerClient):
    """What mock clients have in common: tasks run when they are created, and raise what their functions raise."""

    _backend: InProcess
    _complete: Any = True  # of a task that has ended, as on a server

    def _begin(
        self, module: str, frames: Sequence[Any], ids: Sequence[int], node_ids: Sequence[int], collaboration_id: int = 1
    ) -> None:
        nodes = [
            mock_node(id_, {_LABEL: frame}, node_id) for frame, id_, node_id in zip(frames, ids, node_ids, strict=True)
        ]
        self.module_name = module
        backend = InProcess(
            module,
            nodes,
            answer=partial(answer, wrapper=Wrapper()),
            client=self._inside,
            collaboration_id=collaboration_id,
        )
        self._take(backend, tokens.of(backend))

    def _inside(self, backend: InProcess) -> _Mock:
        """The client of a central function that runs as a task."""
        inner = object.__new__(type(self))
        inner.module_name = self.module_name
        inner._take(backend, tokens.of(backend))
        return inner

    def _take(self, backend: Any, token: str) -> None:
        super()._take(backend, token)
        self.lib = calling.load(self.module_name)
        self.n = len(backend.organizations())
        self.tasks: list[dict[str, Any]] = []

    def _create(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        task = super()._create(*args, **kwargs)
        self._ended(task["id"])
        self._backend.raise_failure(task["id"])
        done = self._looked_at(task["id"])
        self.tasks.append(done)
        return done

    def _looked_at(self, task_id: int) -> dict[str, Any]:
        runs = self._ended(task_id)
        results = [{"id": one.run_id, "result": pickle.dumps(self._value(one))} for one in runs]
        return {**answers.task(self._backend, task_id), "complete": self._complete, "results": results}


class ClientMockProtocol(_Mock):
    """Runs an algorithm in this process.

    Args:
        datasets: One for each organization: the path of a CSV file, or a DataFrame. Ids of organizations count from 0.
        module: The name of the algorithm's module.
    """

    _complete = Complete("true")

    def __init__(self, datasets: Sequence[Any], module: str) -> None:
        self.datasets = [one if hasattr(one, "columns") else load_data(one, "csv") for one in datasets]
        ids = range(len(self.datasets))
        self._begin(module, self.datasets, ids, ids)

    def _inside(self, backend: InProcess) -> _Mock:
        inner = super()._inside(backend)
        inner.datasets = self.datasets  # type: ignore[attr-defined]
        return inner


class MockAlgorithmClient(_Mock, AlgorithmClient):
    """Runs an algorithm in this process; the client of version 3 with ``client.task``, ``client.result`` …

    Args:
        datasets: One dict for each organization: ``database`` is a DataFrame, or a path with ``type`` and, where it
            applies, ``db_input``: ``{"query": …}`` or ``{"sheet_name": …}``.
        module: The name of the algorithm's module.
        organization_ids, node_ids: One for each organization; 0, 1, … by default. The first are those of the client.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping[str, Any]],
        module: str,
        collaboration_id: int | None = None,
        organization_ids: Sequence[int] | None = None,
        node_ids: Sequence[int] | None = None,
    ) -> None:
        frames = [_frame(one, number) for number, one in enumerate(datasets)]
        ids = ids_of(organization_ids, len(frames), "organization_ids")
        nodes = ids_of(node_ids, len(frames), "node_ids")
        self._begin(module, frames, ids, nodes, collaboration_id or 1)

    def _take(self, backend: Any, token: str) -> None:
        super()._take(backend, token)
        self.all_organization_ids = [one.organization_id for one in backend.organizations()]
        self.organizations_with_data = list(self.all_organization_ids)
        self.all_node_ids = [backend.node_of(id_) for id_ in self.all_organization_ids]
        self.datasets = {id_: backend.frames_of(id_)[_LABEL] for id_ in self.all_organization_ids}


def _frame(dataset: Any, number: int) -> Any:
    where = f"dataset {number}"
    if not isinstance(dataset, Mapping) or "database" not in dataset:
        raise UserInputError(f"{where} is no dict with the key 'database'")
    if unknown := [key for key in dataset if key not in _KEYS]:
        raise UserInputError(f"{where} has the key {unknown[0]!r}; there are: {', '.join(_KEYS)}")
    database, more = dataset["database"], dataset.get("db_input") or {}
    if hasattr(database, "columns"):
        return database
    return load_data(database, dataset.get("type"), more.get("query"), more.get("sheet_name"))
