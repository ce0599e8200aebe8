"""The client of version 4 for tests: its functions run in this process, on the frames that it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpkg.analytics.errors import UserInputError
from fedpkg.analytics.in_process import InProcess, ids_of, mock_node
from fedpkg.analytics.log import warn
from fedpkg.analytics.v4 import answers
from fedpkg.analytics.v4.client import Client
from fedpkg.analytics.v4.preprocessing import preprocess_data
from fedpkg.analytics.v4.wrappers import load_data

_KEYS = ("database", "db_type", "query", "sheet_name", "preprocessing", "label")
_FORMER = "input_data"  # in earlier versions, and often still: a dict of options that the type of the database needs


class MockAlgorithmClient(Client):
    """Runs an algorithm as nodes do, one organization after the other, in this process.

    Args:
        datasets: For each organization a list of its databases: dicts with ``database`` (a DataFrame, or a path with
            ``db_type``) and, where they apply, ``query``, ``sheet_name``, ``preprocessing`` and ``label``.
        module: The name of the algorithm's module.
        organization_ids, node_ids: One for each organization; 0, 1, … by default. The first are those of the client.
        on_failure: "raise": a task whose function fails raises what it raised, where the task is created. "record": as
            in production, the run has failed and its task has fewer results.

    Results and inputs are JSON, as in production. Each task gets copies of the frames.
    """

    def __init__(
        self,
        datasets: Sequence[Sequence[Mapping[str, Any]]],
        module: str,
        collaboration_id: int | None = None,
        organization_ids: Sequence[int] | None = None,
        node_ids: Sequence[int] | None = None,
        *,
        on_failure: str = "raise",
    ) -> None:
        if on_failure not in ("raise", "record"):
            raise ValueError(f"on_failure is {on_failure!r}; it must be 'raise' or 'record'")
        number = len(datasets)
        ids = ids_of(organization_ids, number, "organization_ids")
        nodes = ids_of(node_ids, number, "node_ids")
        backend = InProcess(
            module,
            [mock_node(id_, _frames(one, id_), at) for one, id_, at in zip(datasets, ids, nodes, strict=True)],
            client=lambda inner: self._inside(inner),
            collaboration_id=collaboration_id or 1,
        )
        self._take(backend, module, on_failure)

    def _take(self, backend: InProcess, module: str, on_failure: str) -> None:
        super().__init__(backend)
        self._mocked = backend
        self._on_failure = on_failure
        self.module_name = module
        self.database = "mock_database"
        self.n = len(backend.organizations())
        self.all_organization_ids = [one.organization_id for one in backend.organizations()]
        self.organizations_with_data = list(self.all_organization_ids)
        self.all_node_ids = [backend.node_of(id_) for id_ in self.all_organization_ids]
        self.datasets_per_org = {id_: list(backend.frames_of(id_).values()) for id_ in self.all_organization_ids}

    def _inside(self, backend: InProcess) -> MockAlgorithmClient:
        """The client of a function that runs as a task."""
        inner = object.__new__(type(self))
        inner._take(backend, self.module_name, self._on_failure)
        return inner

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return [answers.task(self._backend, id_) for id_ in self._all_tasks()]

    @property
    def runs(self) -> list[dict[str, Any]]:
        return [self._run(one) for id_ in self._all_tasks() for one in self._runs(id_)]

    @property
    def results(self) -> list[dict[str, Any]]:
        return [answers.result(one) for id_ in self._all_tasks() for one in self._runs(id_)]

    def _create(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        task = super()._create(*args, **kwargs)
        if self._on_failure == "raise":
            self._mocked.run()
            self._mocked.raise_failure(task["id"])
        return task


def _frames(datasets: Sequence[Mapping[str, Any]], organization_id: int) -> dict[str, Any]:
    where = f"datasets of organization {organization_id}"
    if isinstance(datasets, Mapping) or not isinstance(datasets, Sequence):
        raise UserInputError(f"{where}: a {type(datasets).__name__} is given; give a list of dicts, one a database")
    frames: dict[str, Any] = {}
    for number, one in enumerate(datasets, 1):
        if not isinstance(one, Mapping) or "database" not in one:
            raise UserInputError(f"{where}: database {number} is no dict with the key 'database'")
        one = {**one.get(_FORMER, {}), **{key: value for key, value in one.items() if key != _FORMER}}
        for key in one:
            if key not in _KEYS:
                warn(
                    f"{where}: database {number} has the key {key!r}, which is not used; there are: {', '.join(_KEYS)}"
                )
        frames[str(one.get("label", f"database-{number}"))] = _frame(one)
    return frames


def _frame(one: Mapping[str, Any]) -> Any:
    database, preprocessing = one["database"], one.get("preprocessing") or []
    if not hasattr(database, "columns"):
        database = load_data(database, one.get("db_type"), one.get("query"), one.get("sheet_name"))
    return preprocess_data(database, preprocessing)
