"""What decorators supply: that of the running call or, in a container of its own, what its environment names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedpkg.analytics import task_files, tokens
from fedpkg.analytics.backend import Organization, Run
from fedpkg.analytics.current import Call, current
from fedpkg.analytics.errors import EnvironmentVariableNotFoundError, UserInputError
from fedpkg.analytics.frames import Frames
from fedpkg.analytics.node import Database, Node
from fedpkg.analytics.v4.util import decoded


def call() -> Call:
    """The running call; without one, a call from the variables that a node of version 4 or 5 sets.

    Raises:
        EnvironmentVariableNotFoundError: A variable that is needed is not set.
    """
    running = current()
    return _from_environment() if running is None else running


def files() -> dict[str, Path | None]:
    """The files of the task: temporary_directory, input_file, output_file and token_file."""
    running = current()
    own = running.node.environment if running is not None else {}
    given = {name: own.get(name, os.environ.get(name, "")) for name in task_files.VARIABLES.values()}
    return task_files.paths({name: decoded(value) for name, value in given.items()})


def of_client() -> dict[str, Any]:
    """The arguments of the client: token, host, port and path."""
    running = current()
    token = token_of_task() if running is None else tokens.of(running.backend)
    return {"token": token, "host": _variable("HOST", ""), "port": _variable("PORT", ""), "path": _variable("API_PATH")}


def token_of_task() -> str:
    """The token that the node gave to the task: in a file in version 4, in a variable in version 5."""
    path = _variable("TOKEN_FILE", "")
    if not path:
        return _variable("CONTAINER_TOKEN", None, "the token of the task: TOKEN_FILE or CONTAINER_TOKEN")
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _variable(name: str, default: str | None = "", what: str = "") -> str:
    if name in os.environ:
        return decoded(os.environ[name])
    if default is None:
        raise EnvironmentVariableNotFoundError(
            f"environment variable {name} is not set ({what or name}), so this function is not run by a node. Run "
            "the algorithm with 'fedpkg algorithm run', or give the function mock_client and mock_data"
        )
    return default


def _from_environment() -> Call:
    variable = "USER_REQUESTED_DATABASE_LABELS"
    labels = [one for one in _variable(variable, "").split(",") if one]
    databases = {label: _database(label) for label in labels}
    backend = NoTasks(tokens.identity_of(token_of_task()), labels)
    node = Node(backend.organization_id, collaboration_id=backend.collaboration_id, databases=databases)
    return Call(backend, node, labels, Frames(node))


def _database(label: str) -> Database:
    begin = label.upper()
    names = {"query": f"{begin}_QUERY", "sheet_name": f"{begin}_SHEET_NAME", "preprocessing": f"{begin}_PREPROCESSING"}
    options: dict[str, Any] = {name: _variable(one) for name, one in names.items() if _variable(one)}
    if "preprocessing" in options:
        try:
            options["preprocessing"] = json.loads(options["preprocessing"])
        except ValueError as error:
            raise UserInputError(f"{begin}_PREPROCESSING is no JSON: {error}") from None
    uri = _variable(f"{begin}_DATABASE_URI", None, f"the place of database {label!r}")
    return Database(label, uri, _variable(f"{begin}_DATABASE_TYPE", "csv").lower(), options)


class NoTasks:
    """The backend of a function that its environment alone describes: it can create no tasks."""

    def __init__(self, identity: Mapping[str, Any], labels: Sequence[str]) -> None:
        self.organization_id: int = identity.get("organization_id") or 1
        self.node_id: int = identity.get("node_id") or 1
        self.collaboration_id: int = identity.get("collaboration_id") or 1
        self.task_id: int = identity.get("task_id") or 0
        self.image: str = identity.get("image") or ""
        self.databases = list(labels)

    def organizations(self) -> Sequence[Organization]:
        self._refuse()

    def create(self, input_: bytes, organization_ids: Sequence[int], **about: Any) -> int:
        self._refuse()

    def has_ended(self, task_id: int) -> bool:
        raise KeyError(task_id)

    def run(self) -> None:
        self._refuse()

    def runs(self, task_id: int) -> Sequence[Run]:
        raise KeyError(task_id)

    def about(self, task_id: int) -> Mapping[str, Any]:
        raise KeyError(task_id)

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            "there is no server that could run subtasks: run the algorithm with 'fedpkg algorithm run'"
        )
