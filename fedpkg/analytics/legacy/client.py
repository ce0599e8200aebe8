"""The clients of central functions of versions 1 to 3: they create tasks and read their results.

A task runs when something first depends on it, together with all that were created before: its results, or whether it
is complete. So loops that wait for a task end at once.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fedpkg.analytics import serialise, tokens
from fedpkg.analytics.answers import NO_VPN, Asked, Task
from fedpkg.analytics.backend import COMPLETED, Backend, Run
from fedpkg.analytics.current import current
from fedpkg.analytics.errors import ClientError, CollectResultsError, SubtakCreationError
from fedpkg.analytics.legacy import answers

C = TypeVar("C", bound="ContainerClient")
_MOST_LOOKS = 100_000


class ContainerClient(Asked):
    """The client that a central function gets as its first argument.

    Args:
        token: The token of the task, from TOKEN_FILE.
        host, port, path: Of a server, which is not there: accepted and not used.

    Raises:
        ClientError: No function is running, or the token has expired or is that of another task.
    """

    _gets = (
        "task/ID, task/ID/result, organization, organization/ID, collaboration/ID, "
        "collaboration/ID/organization and node/ID"
    )

    def __init__(self, token: str, host: str = "", port: Any = None, path: str = "/api") -> None:
        call = current()
        if call is None:
            raise ClientError(
                "no task is running, so there is nothing that could run subtasks. Run the algorithm with 'fedpkg "
                "algorithm run', or use ClientMockProtocol"
            )
        tokens.check(token, call.backend)
        self._take(call.backend, token)
        self.host, self.port, self.path = host, port, path

    @classmethod
    def of(cls: type[C], backend: Backend, *, allow_pickle: bool = False) -> C:
        """The client of a function that is run by a backend."""
        client = object.__new__(cls)
        client._take(backend, tokens.of(backend))
        client._allow_pickle = allow_pickle
        return client

    def _take(self, backend: Backend, token: str) -> None:
        self._backend = backend
        self._allow_pickle = False
        self._looks: Counter[int] = Counter()  # at a task that is complete
        self._access_token = self.token = token
        self.log = logging.getLogger("fedpkg.algorithm")
        self.name = "container"
        self.host, self.port, self.path = "", None, ""
        self.image = backend.image
        self.database = backend.databases[0] if backend.databases else "default"
        self.host_node_id = backend.node_id
        self.collaboration_id = backend.collaboration_id
        self.organization_id = backend.organization_id

    def generate_path_to(self, endpoint: str) -> str:
        return f"{self.base_path}/{endpoint.lstrip('/')}"

    def authenticate(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: a function has the token of its task."""

    def refresh_token(self) -> None:
        raise ClientError("functions cannot refresh the token of their task")

    # ---- tasks

    def create_new_task(self, input_: Any, organization_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """Create a task that runs a function at organizations.

        Args:
            input_: ``{"method": …, "args": […], "kwargs": {…}}``, with ``"master": True`` for a central function.
            organization_ids: None: all organizations, with a warning. (Servers create a task without runs instead,
                which has no results.)

        Raises:
            ValueError: An empty list, an organization that does not exist, or one twice.
            SerialisationError: The input has something that cannot be sent.
        """
        return self._create(input_, organization_ids)

    def post_task(
        self,
        name: str,
        image: str,
        collaboration_id: int,
        input_: Any = "",
        description: str = "",
        organization_ids: Sequence[int] | None = None,
        database: str = "default",
        data_format: str = "legacy",
    ) -> dict[str, Any]:
        """Create a task with a name. ``image`` and ``collaboration_id`` must be those of the client."""
        if image != self.image or collaboration_id != self.collaboration_id:
            raise SubtakCreationError(
                f"the image {image!r} and collaboration {collaboration_id!r} of a task must be those of this function: "
                f"{self.image!r} and {self.collaboration_id}"
            )
        databases = None if database in ("default", self.database) else [database]
        form = None if data_format == "legacy" else data_format
        return self._create(input_, organization_ids, name, description, databases, form)

    def get_task(self, task_id: int) -> dict[str, Any]:
        """A task after it, and all others that were created, have run; ``{"msg": …}`` if there is none."""
        return self._task(task_id) or answers.missing("task", task_id)

    def get_results(self, task_id: int) -> list[Any]:
        """The results of a task, in the order in which its organizations were named.

        Raises:
            CollectResultsError: An organization has none, since its function failed; or there is no such task.
        """
        return self._results(task_id)

    def get_organizations_in_my_collaboration(self) -> list[dict[str, Any]]:
        """All organizations as dicts: id, name, domain …"""
        return [answers.organization(one) for one in self._backend.organizations()]

    def get_algorithm_addresses(self, task_id: int) -> Any:
        raise NotImplementedError(NO_VPN)

    def get_algorithm_address_by_label(self, task_id: int, label: str) -> Any:
        raise NotImplementedError(NO_VPN)

    def _got(self, path: str, params: Mapping[str, Any]) -> Any:
        kind, _, rest = path.partition("/")
        number, _, inner = rest.partition("/")
        id_ = int(number) if re.fullmatch(r"\d{1,18}", number) else None
        if kind == "task" and id_ is not None and inner in ("", "result"):
            if (task := self._task(id_)) is None:
                return answers.missing("task", id_)
            return [self._record(one) for one in self._backend.runs(id_)] if inner else task
        if path == "result" and "task_id" in params:
            return [self._record(one) for one in self._ended(int(params["task_id"]))]
        if kind == "collaboration" and id_ is not None and inner in ("", "organization"):
            if id_ != self.collaboration_id:
                return answers.missing("collaboration", id_)
            return self.get_organizations_in_my_collaboration() if inner else answers.collaboration(self._backend)
        if kind == "organization" and not inner:
            there = self.get_organizations_in_my_collaboration()
            if not rest:
                return there
            if id_ is not None:
                return next((one for one in there if one["id"] == id_), answers.missing("organization", id_))
        if kind == "node" and id_ is not None and not inner:
            return answers.node(self._backend) if id_ == self.host_node_id else answers.missing("node", id_)
        return None

    def _posted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = body.get("organizations") or []
        inputs = {one.get("input") for one in asked}
        if len(inputs) != 1:
            raise SubtakCreationError("POST task: 'organizations' must have {id, input}, with the same input for all")
        given = answers.decoded(inputs.pop())
        read = serialise.read(given, what="the input of POST task", allow_pickle=self._allow_pickle)
        name, description = body.get("name", ""), body.get("description", "")
        return self._create(read, [one["id"] for one in asked], name, description)

    # ---- the backend

    def _create(
        self,
        input_: Any,
        organization_ids: Iterable[int] | None,
        name: str = "subtask",
        description: str | None = None,
        databases: Sequence[str] | None = None,
        form: str | None = None,
    ) -> dict[str, Any]:
        method = input_.get("method") if isinstance(input_, Mapping) else None
        if not isinstance(method, str):
            raise SubtakCreationError(f"the input of a task has no method, but is {input_!r:.60}")
        data = serialise.write(dict(input_), form, what=f"input of {method}", allow_pickle=self._allow_pickle)
        task_id = self._backend.create(
            data,
            self._asked(method, organization_ids),
            name=name,
            description=description or f"task from container on node_id={self.host_node_id}",
            databases=databases,
        )
        return Task(answers.task(self._backend, task_id), lambda: self._looked_at(task_id))

    def _asked(self, method: str, ids: Iterable[int] | None) -> list[int]:
        if ids is None:
            warnings.warn(
                f"the task {method!r} names no organizations, so all of them run it; a server would run it nowhere. "
                "Name them: organization_ids=[…]",
                stacklevel=4,
            )
            return [one.organization_id for one in self._backend.organizations()]
        if isinstance(ids, (int, str)):
            raise ValueError(f"organization_ids of the task {method!r} is {ids!r}; it must be a list of ids")
        asked = list(ids)
        if not asked:
            raise ValueError(f"the task {method!r} is for no organization: organization_ids is empty")
        return asked

    def _looked_at(self, task_id: int) -> dict[str, Any]:
        self._ended(task_id)
        return answers.task(self._backend, task_id)

    def _task(self, task_id: int) -> dict[str, Any] | None:
        try:
            self._backend.about(task_id)
        except KeyError:
            return None
        return self._looked_at(task_id)

    def _ended(self, task_id: int) -> Sequence[Run]:
        """The runs of a task, which has run."""
        if isinstance(task_id, Mapping):
            raise CollectResultsError("give the id of the task, task['id'], and not the task")
        try:
            if not self._backend.has_ended(task_id):
                self._backend.run()
            runs = self._backend.runs(task_id)
        except KeyError:
            raise CollectResultsError(f"there is no task with id {task_id!r:.60}") from None
        self._looks[task_id] += 1
        if self._looks[task_id] > _MOST_LOOKS:
            raise CollectResultsError(
                f"task {task_id} is complete, and was looked at {_MOST_LOOKS} times: a loop that waits for it never "
                "ends. 'complete' of a task is True, and no text"
            )
        return runs

    def _results(self, task_id: int) -> list[Any]:
        runs = self._ended(task_id)
        failed = [one for one in runs if one.status != COMPLETED]
        if failed:
            raise CollectResultsError(answers.failures(self._backend, task_id, failed, len(runs)))
        return [self._value(one) for one in runs]

    def _value(self, run: Run) -> Any:
        if run.result is None:
            return None
        what = f"result of run {run.run_id}, of organization {run.organization_id}"
        return serialise.read(run.result, what=what, allow_pickle=self._allow_pickle)

    def _record(self, run: Run) -> dict[str, Any]:
        return answers.record(run, self._value(run))


class AlgorithmClient(ContainerClient):
    """The client of version 3 for ``use_new_client=True``: ``client.task.create``, ``client.result.get`` …

    It has the names of the former client, too.
    """

    def _take(self, backend: Backend, token: str) -> None:
        super()._take(backend, token)
        self.task = self.Task(self)
        self.result = self.Result(self)
        self.organization = self.Organization(self)
        self.collaboration = self.Collaboration(self)
        self.node = self.Node(self)
        self.vpn = self.VPN(self)

    class SubClient:
        """One group of calls."""

        def __init__(self, parent: Any) -> None:
            self.parent: Any = parent

    class Task(SubClient):
        """Subtasks of this function."""

        def create(
            self,
            input_: Any,
            organization_ids: Sequence[int] | None = None,
            name: str = "subtask",
            description: str | None = None,
            *args: Any,
            **kwargs: Any,
        ) -> dict[str, Any]:
            """Create a task, as ``create_new_task``."""
            return self.parent._create(input_, organization_ids, name, description)  # type: ignore[no-any-return]

        def get(self, task_id: int) -> dict[str, Any]:
            return self.parent.get_task(task_id)  # type: ignore[no-any-return]

    class Result(SubClient):
        """Results of subtasks."""

        def get(self, task_id: int) -> list[Any]:
            """The results of a task, as ``get_results``."""
            return self.parent.get_results(task_id)  # type: ignore[no-any-return]

    class Organization(SubClient):
        """Organizations of the collaboration."""

        def get(self, id_: int) -> dict[str, Any]:
            return self.parent.request(f"organization/{id_}")  # type: ignore[no-any-return]

        def list(self) -> list[dict[str, Any]]:
            return self.parent.get_organizations_in_my_collaboration()  # type: ignore[no-any-return]

    class Collaboration(SubClient):
        """The collaboration."""

        def get(self) -> dict[str, Any]:
            return answers.collaboration(self.parent._backend)

    class Node(SubClient):
        """The node at which the function runs."""

        def get(self) -> dict[str, Any]:
            return answers.node(self.parent._backend)

    class VPN(SubClient):
        """Addresses of other functions: there are none, and every call says so."""

        def get_addresses(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(NO_VPN)

        get_parent_address = get_child_addresses = get_addresses


class UserClient:
    """The client of researchers, which needs a server: making one says what to use here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ClientError(
            "there is no server here, so the client of a researcher has nothing to log in to. Run an algorithm with "
            "'fedpkg algorithm run DIR --method NAME --nodes entities.yaml', or in Python with ClientMockProtocol"
        )
