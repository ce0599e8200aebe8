"""A network of version 5 for tests: its functions run in this process, on the frames that it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpkg.analytics import calling
from fedpkg.analytics.errors import DataFrameNotFound, SessionActionMismatchError, UserInputError
from fedpkg.analytics.in_process import InProcess, MockNode, mock_node
from fedpkg.analytics.v4 import answers
from fedpkg.analytics.v4.client import Client, TaskByName, input_by_name
from fedpkg.analytics.v4.wrappers import load_data
from fedpkg.analytics.v5.decorators import NO_EXTRACTION

_USERS = ("algorithm", "node", "role", "rule", "session", "store", "user", "util")  # calls that need a server
_DATABASES = "write [{'label': 'my_label'}] or [{'type': 'dataframe', 'dataframe_id': 1}]"


class MockNetwork:
    """Organizations with data, and a user who asks them.

    Args:
        module_name: The name of the algorithm's module.
        datasets: For each organization its data by label: DataFrames, or dicts with ``database``: a DataFrame, or a
            path with ``db_type``, which is read at once.
        on_failure: "raise": a task whose function fails raises what it raised, where the task is created. "record": as
            in production, the run has failed and its task has fewer results.

    Attributes:
        nodes: What is known of each node.
        user_client: Creates tasks; it has the calls of the client of functions.
        hq: The tasks, runs, results and data frames, as a server tells of them.

    Ids of organizations and nodes count from 1.
    """

    def __init__(
        self,
        module_name: str,
        datasets: Sequence[Mapping[str, Any]],
        collaboration_id: int = 1,
        *,
        on_failure: str = "raise",
    ) -> None:
        if on_failure not in ("raise", "record"):
            raise ValueError(f"on_failure is {on_failure!r}; it must be 'raise' or 'record'")
        self.module_name = module_name
        self.collaboration_id = collaboration_id
        self.on_failure = on_failure
        self.algorithm_module = calling.load(module_name)
        nodes = [
            mock_node(number, {label: _frame(one, label, number) for label, one in dataset.items()})
            for number, dataset in enumerate(datasets, 1)
        ]
        self.backend = InProcess(
            module_name,
            nodes,
            client=lambda inner: MockAlgorithmClient(self, inner),
            collaboration_id=collaboration_id,
        )
        self.backend.databases = []  # a user names the databases of each task
        self.nodes = [NodeOfMock(self, one) for one in nodes]
        self.labels = list(dict.fromkeys(label for one in nodes for label in one.frames))
        self.user_client = MockUserClient(self)
        self.hq = HQ(self)

    @property
    def organization_ids(self) -> list[int]:
        return [one.organization_id for one in self.nodes]

    @property
    def node_ids(self) -> list[int]:
        return [one.id_ for one in self.nodes]

    def get_node(self, id_: int) -> NodeOfMock:
        """The node with this id. StopIteration: there is none."""
        return next(one for one in self.nodes if one.id_ == id_)

    def databases_of(self, given: Any) -> list[str]:
        """The labels that ``databases`` of a task names; a group of several is one, joined by ","."""
        found = []
        for one in given or ():
            group = one if isinstance(one, (list, tuple)) else [one]
            found.append(calling.JOINED_BY.join(self._label(entry) for entry in group))
        return found

    def _label(self, entry: Any) -> str:
        if isinstance(entry, Mapping) and "dataframe_id" in entry:
            number = entry["dataframe_id"]
            if not isinstance(number, int) or not 1 <= number <= len(self.labels):
                there = ", ".join(f"{id_} ({label})" for id_, label in enumerate(self.labels, 1))
                raise DataFrameNotFound(f"there is no data frame with id {number!r}; there are: {there or 'none'}")
            return self.labels[number - 1]
        if not isinstance(entry, Mapping) or "label" not in entry:
            raise UserInputError(f"databases has {entry!r:.60}; {_DATABASES}")
        return str(entry["label"])


class NodeOfMock:
    """A node of the network."""

    def __init__(self, network: MockNetwork, node: MockNode) -> None:
        self.network = network
        self.id_ = self.organization_id = node.organization.organization_id
        self.collaboration_id = network.collaboration_id
        self.dataframes = node.frames


class HQ:
    """What a server would tell of a network."""

    session_id = study_id = 1

    def __init__(self, network: MockNetwork) -> None:
        self._network = network
        self._client = network.user_client

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return [answers.task(self._network.backend, id_) for id_ in self._client._all_tasks()]

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [one for id_ in self._client._all_tasks() for one in self._client.run.from_task(id_)]

    @property
    def results(self) -> list[dict[str, Any]]:
        return [answers.result(one) for id_ in self._client._all_tasks() for one in self._client._runs(id_)]

    @property
    def dataframes(self) -> list[dict[str, Any]]:
        return [self._dataframe(number, label) for number, label in enumerate(self._network.labels, 1)]

    def get_dataframe(self, id_: int) -> dict[str, Any]:
        known = {one["id"]: one for one in self.dataframes}
        return known.get(id_, {"msg": f"Could not find dataframe with id {id_}"})

    def _dataframe(self, number: int, label: str) -> dict[str, Any]:
        nodes = [one for one in self._network.nodes if label in one.dataframes]
        return {
            "id": number,
            "name": label,
            "db_label": label,
            "session_id": self.session_id,
            "columns": [
                {"name": column, "dtype": dtype, "node_id": one.id_, "dataframe_id": number}
                for one in nodes
                for column, dtype in one.dataframes[label].dtypes.items()
            ],
            "ready": True,
            "organizations_ready": [True] * len(nodes),
        }


class _MockClient(Client):
    def __init__(self, network: MockNetwork, backend: InProcess) -> None:
        super().__init__(backend)
        self.network = network
        self.session_id = HQ.session_id
        self._mocked = backend

    def _create(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        task = super()._create(*args, **kwargs)
        if self.network.on_failure == "raise":
            self._mocked.run()
            self._mocked.raise_failure(task["id"])
        return task


class MockAlgorithmClient(_MockClient):
    """The client of a function that runs in a network."""

    Task = TaskByName


class MockUserClient(_MockClient):
    """The client of the user of a network."""

    def __init__(self, network: MockNetwork) -> None:
        super().__init__(network, network.backend)
        self.dataframe = self.Dataframe(self)

    def __getattr__(self, name: str) -> Any:
        if name in _USERS:
            raise AttributeError(f"user_client.{name}: there is no server, and there are no sessions")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    class Task(Client.Task):
        """Tasks of the user."""

        def create(  # type: ignore[override]
            self,
            organizations: Sequence[int],
            method: str,
            name: str = "mock",
            description: str = "mock",
            arguments: Mapping[str, Any] | None = None,
            databases: Sequence[Any] | None = None,
            action: str | None = None,
            **more: Any,
        ) -> dict[str, Any]:
            """Create a task, which runs at once.

            Args:
                databases: ``[{"label": …}]`` or ``[{"type": "dataframe", "dataframe_id": …}]``; a list of such lists
                    for functions that take several frames as one argument.
                action: If it is given, the function must be of this kind.
            """
            network = self.parent.network
            function = calling.find(network.algorithm_module, method)
            step = getattr(function, calling.STEP, None)
            if step is None or (action is not None and action != step):
                what = f"declared as {step}, and not as {action}" if step else "not declared as central or federated"
                raise SessionActionMismatchError(f"{method} of {network.module_name} is {what}")
            labels = network.databases_of(databases)
            data = input_by_name(method, arguments)
            return self.parent._create(data, organizations, name, description, labels)  # type: ignore[no-any-return]

    class Dataframe(Client.SubClient):
        """Data frames of the network: those that it was given."""

        def get(self, id_: int) -> dict[str, Any]:
            return self.parent.network.hq.get_dataframe(id_)  # type: ignore[no-any-return]

        def list(self) -> list[dict[str, Any]]:
            return self.parent.network.hq.dataframes  # type: ignore[no-any-return]

        def create(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"dataframe.create: {NO_EXTRACTION}. A MockNetwork reads its datasets itself")

        preprocess = delete = create


def _frame(given: Any, label: str, number: int) -> Any:
    database, kind = (given.get("database"), given.get("db_type")) if isinstance(given, Mapping) else (given, None)
    if hasattr(database, "columns"):
        return database
    if not isinstance(given, Mapping) or database is None:
        raise UserInputError(
            f"datasets of organization {number}: {label!r} is a {type(given).__name__}; give a DataFrame, or "
            "{'database': a DataFrame, or a path with 'db_type'}"
        )
    return load_data(database, kind)
