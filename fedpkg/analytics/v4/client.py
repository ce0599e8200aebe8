"""The client of versions 4 and 5: a function creates subtasks with it, and reads their results.

A subtask runs when something first depends on it, together with all that were created before: `wait_for_results`, a
result, a run, or the status of a task. There is no server, so there is nothing to poll.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedpkg.analytics import serialise, tokens
from fedpkg.analytics.answers import NO_VPN, Asked, Task, last_line
from fedpkg.analytics.backend import Backend, Run
from fedpkg.analytics.current import current
from fedpkg.analytics.errors import ClientError, CollectResultsError, SubtakCreationError
from fedpkg.analytics.log import warn
from fedpkg.analytics.v4 import answers


class Results(list):  # type: ignore[type-arg]
    """The results of a task, in the order in which its organizations were named.

    An organization that failed has no result, so there can be fewer results than organizations. ``failed`` has the
    runs without a result by organization id.
    """

    def __init__(self, results: Sequence[Any], failed: Mapping[int, Run]) -> None:
        super().__init__(results)
        self.failed = failed


class Client(Asked):
    """What the clients of versions 4 and 5, and those of the mocks, have in common."""

    _gets = "task, run, result, organization and collaboration"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._inputs: dict[int, bytes] = {}
        self._task_of: dict[int, int] = {}  # by the ids of runs
        self.log = logging.getLogger("fedpkg.algorithm")
        self.organization_id = backend.organization_id
        self.node_id = backend.node_id
        self.collaboration_id = backend.collaboration_id
        self.image = backend.image
        self.databases: Any = [{"label": label} for label in backend.databases]
        self.study_id: int | None = None
        self.store_id: int | None = None
        self.task: Any = self.Task(self)
        self.run: Any = self.Run(self)
        self.result: Any = self.Result(self)
        self.organization: Any = self.Organization(self)
        self.collaboration: Any = self.Collaboration(self)
        self.study: Any = self.Study(self)
        self.vpn: Any = self.VPN(self)

    def wait_for_results(self, task_id: int, interval: float = 1) -> list[Any]:
        """Run a task, and all others that were created; returns its results. ``interval`` has no meaning here."""
        return self.result.from_task(task_id)  # type: ignore[no-any-return]

    def _got(self, path: str, params: Mapping[str, Any]) -> Any:
        if found := re.fullmatch(r"(task|run|result|organization)/(\d+)", path):
            return self._one(found[1], int(found[2]))
        if found := re.fullmatch(r"task/(\d+)/status", path):
            return {"status": self._one("task", int(found[1])).get("status")}
        if path in ("run", "result") and "task_id" in params:
            path = f"task/{params['task_id']}/{path}"
        if found := re.fullmatch(r"task/(\d+)/(run|result)", path):
            make = answers.result if found[2] == "result" else self._run
            return _page([make(one) for one in self._runs(int(found[1]))])
        if path == "organization" or re.fullmatch(r"collaboration/\d+/organization", path):
            return _page(self.organization.list())
        if path == f"collaboration/{self.collaboration_id}":
            return self.collaboration.get()
        return _page([]) if path == "study" else None

    def _posted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = body.get("organizations") or []
        inputs = {one["input"] for one in asked}
        if len(inputs) != 1:
            raise SubtakCreationError("POST task: 'organizations' must have {id, input} with the same input for all")
        name, description = body.get("name", ""), body.get("description", "")
        return self._create(base64.b64decode(inputs.pop()), [one["id"] for one in asked], name, description)

    def _create(
        self,
        input_: bytes,
        organizations: Sequence[int] | None,
        name: str,
        description: str | None,
        databases: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        if not organizations or isinstance(organizations, int):
            given = f"organizations={organizations!r} is no list" if organizations else "none is given"
            raise ValueError(f"a task needs at least one organization, but {given}; give a list of their ids")
        backend = self._backend
        task_id = backend.create(
            input_,
            list(organizations),
            name=name,
            description=description or f"task from container on node_id={self.node_id}",
            databases=databases,
        )
        self._inputs[task_id] = input_
        self._task_of.update((one.run_id, task_id) for one in backend.runs(task_id))
        return Task(answers.task(backend, task_id), lambda: self._ended(task_id))

    def _ended(self, task_id: int) -> dict[str, Any]:
        """A task after it has run."""
        self._finish(task_id)
        return answers.task(self._backend, task_id)

    def _finish(self, task_id: int) -> None:
        if isinstance(task_id, dict):
            raise CollectResultsError("give the id of the task, task['id'], and not the task")
        try:
            if not self._backend.has_ended(task_id):
                self._backend.run()
        except KeyError:
            raise CollectResultsError(f"there is no task with id {task_id}") from None

    def _runs(self, task_id: int) -> Sequence[Run]:
        self._finish(task_id)
        return self._backend.runs(task_id)

    def _run(self, one: Run) -> dict[str, Any]:
        return answers.run(self._backend, one, input_=self._inputs.get(one.task_id))

    def _all_tasks(self) -> list[int]:
        """The ids of all tasks that this function can see."""
        found: list[int] = []
        try:
            while True:
                self._backend.about(len(found) + 1)
                found.append(len(found) + 1)
        except KeyError:
            return found

    def _find_run(self, run_id: int) -> Run | None:
        known = self._task_of.get(run_id)
        tasks = self._all_tasks() if known is None else [known]
        return next((one for id_ in tasks for one in self._runs(id_) if one.run_id == run_id), None)

    def _one(self, kind: str, id_: int) -> dict[str, Any]:
        """An object by its id; ``{"msg": …}`` if there is none, as the server answers."""
        if kind == "task":
            try:
                return self._ended(id_)
            except CollectResultsError:
                return {"msg": f"Task id={id_} not found"}
        if kind == "organization":
            for one in self._backend.organizations():
                if one.organization_id == id_:
                    return answers.organization(one)
        if kind in ("run", "result"):
            run = self._find_run(id_)
            if run is not None:
                return self._run(run) if kind == "run" else answers.result(run)
        return {"msg": f"{kind.capitalize()} id={id_} not found"}

    def _name_of(self, organization_id: int) -> str:
        return str(self._one("organization", organization_id).get("name", "?"))

    class SubClient:
        """One group of calls."""

        def __init__(self, parent: Any) -> None:
            self.parent: Any = getattr(parent, "parent", parent)

    class Task(SubClient):
        """Subtasks of this function."""

        def create(
            self,
            input_: Mapping[str, Any],
            organizations: Sequence[int] | None = None,
            name: str = "subtask",
            description: str | None = None,
        ) -> dict[str, Any]:
            """Create a task that runs a function at organizations, on the databases of this one.

            Args:
                input_: ``{"method": name of the function, "args": […], "kwargs": {…}}``.

            Raises:
                ValueError: No organization, one that does not exist, or one twice.
                SerialisationError: The input has a type that JSON lacks.
            """
            method = input_.get("method") if isinstance(input_, Mapping) else None
            data = serialise.to_json(input_, what=f"input of {method}")
            return self.parent._create(data, organizations, name, description)  # type: ignore[no-any-return]

        def get(self, task_id: int) -> dict[str, Any]:
            """A task, after it has run."""
            return self.parent._one("task", task_id)  # type: ignore[no-any-return]

    class Run(SubClient):
        """Runs: a task at one organization each. ``status`` and ``log`` say whether and why one failed."""

        def get(self, id_: int) -> dict[str, Any]:
            return self.parent._one("run", id_)  # type: ignore[no-any-return]

        def from_task(self, task_id: int) -> list[dict[str, Any]]:
            return [self.parent._run(one) for one in self.parent._runs(task_id)]

    class Result(SubClient):
        """Results of runs."""

        def get(self, id_: int) -> Any:
            """The result of a run; None if it failed."""
            run = self.parent._find_run(id_)
            if run is None:
                return {"msg": f"Result id={id_} not found"}
            return None if run.result is None else _value(run)

        def from_task(self, task_id: int) -> list[Any]:
            """The results of a task. Organizations that failed have none, which is printed; see `Results`."""
            parent = self.parent
            runs = parent._runs(task_id)
            failed = {one.organization_id: one for one in runs if one.result is None}
            if failed:
                names = "; ".join(
                    f"{parent._name_of(id_)} (id {id_}): {one.status}: {last_line(one)}" for id_, one in failed.items()
                )
                warn(f"task {task_id}: {len(failed)} of {len(runs)} organizations have no result: {names}")
            return Results([_value(one) for one in runs if one.result is not None], failed)

    class Organization(SubClient):
        """Organizations of the collaboration."""

        def get(self, id_: int) -> dict[str, Any]:
            return self.parent._one("organization", id_)  # type: ignore[no-any-return]

        def list(self) -> list[dict[str, Any]]:
            return [answers.organization(one) for one in self.parent._backend.organizations()]

    class Collaboration(SubClient):
        """The collaboration."""

        def get(self, is_encrypted: bool = False) -> dict[str, Any]:
            return answers.collaboration(self.parent._backend, is_encrypted=is_encrypted)

    class Study(SubClient):
        """Studies, parts of a collaboration: there are none."""

        def get(self, id_: int) -> dict[str, Any]:
            return {"msg": f"Study id={id_} not found"}

        def list(self) -> list[dict[str, Any]]:
            return []

    class VPN(SubClient):
        """Addresses of other functions: there are none, and every call says so."""

        def get_addresses(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(NO_VPN)

        get_parent_address = get_child_addresses = get_sibling_addresses = get_own_address = get_addresses


class TaskByName(Client.Task):
    """Subtasks of this function, in version 5."""

    def create(  # type: ignore[override]
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        organizations: Sequence[int] | None = None,
        name: str = "subtask",
        description: str | None = None,
    ) -> dict[str, Any]:
        """Create a task that runs a function at organizations, on the databases of this one.

        Raises:
            ValueError: No organization, one that does not exist, or one twice.
            SerialisationError: An argument has a type that JSON lacks.
        """
        data = input_by_name(method, arguments)
        return self.parent._create(data, organizations, name, description)  # type: ignore[no-any-return]


def input_by_name(method: str, arguments: Mapping[str, Any] | None) -> bytes:
    """The input of a task of version 5."""
    if not isinstance(method, str):
        raise TypeError(f"task.create: method is a {type(method).__name__}; it must be the name of a function")
    if arguments is not None and not isinstance(arguments, Mapping):
        kind = type(arguments).__name__
        raise TypeError(f"task.create: arguments of {method} is a {kind}; it must be a dict of arguments by name")
    asked = {"method": method, "args": [], "kwargs": dict(arguments or {})}
    return serialise.to_json(asked, what=f"arguments of {method}")


class AlgorithmClient(Client):
    """The client that ``@algorithm_client`` supplies.

    Args:
        token: The token of the task.
        host, port, path: Of a server of version 4, which is not there: accepted and not used.
        hq_url: The same in version 5, whose ``task.create`` the client then has.
    """

    def __init__(
        self,
        token: str,
        host: str | None = None,
        port: Any = None,
        path: str = "/api",
        *,
        hq_url: str | None = None,
    ) -> None:
        tokens.identity_of(token)
        call = current()
        if call is None:
            raise ClientError(
                "AlgorithmClient: no task is running, so there is nothing that could run subtasks. Run the algorithm "
                "with 'fedpkg algorithm run', or give the function a MockAlgorithmClient as mock_client"
            )
        super().__init__(call.backend)
        self.host, self.port, self.path = host, port, path
        self._access_token = self.token = token
        self.hq_url = hq_url
        if hq_url is not None:
            self.task = TaskByName(self)
            self.session_id = 1

    def authenticate(self, credentials: Any = None, path: Any = None) -> None:
        """Not possible: a function has the token of its task."""
        raise NotImplementedError("functions cannot authenticate: the token of their task is all that they have")

    def refresh_token(self) -> None:
        """Not possible: a function has the token of its task."""
        raise NotImplementedError("functions cannot refresh the token of their task")

    obtain_new_token = refresh_token

    def setup_encryption(self, private_key_file: Any) -> None:
        """Not possible: the client of a user does this, and not that of a function."""
        raise NotImplementedError("functions do not encrypt: inputs and results are handed over by the runner")

    def wait_for_task_completion(
        self, request_func: Any, task_id: int, interval: float = 1, log_animation: bool = True
    ) -> None:
        """Run a task. The other arguments have no meaning here."""
        self._finish(task_id)


def _page(rows: Sequence[Any]) -> dict[str, Any]:
    return {"data": rows, "links": {}}


def _value(run: Run) -> Any:
    return serialise.from_json(run.result or b"", what=f"result of run {run.run_id}")
