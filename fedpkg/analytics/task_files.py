"""The files and variables of a task, under the names that nodes of production use."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fedpkg.analytics import tokens
from fedpkg.analytics.backend import Backend
from fedpkg.analytics.node import Node

VARIABLES = {  # of `paths`
    "temporary_directory": "TEMPORARY_FOLDER",
    "input_file": "INPUT_FILE",
    "output_file": "OUTPUT_FILE",
    "token_file": "TOKEN_FILE",
}


@contextmanager
def written(node: Node, backend: Backend, input_: bytes, *, place: str | None = None) -> Iterator[Node]:
    """Write a task's files to a temporary folder; yields its node with the variables that name them.

    Args:
        place: The folder in which this folder is made, so that a program that is killed leaves nothing elsewhere.
    """
    with tempfile.TemporaryDirectory(prefix="fedpkg-task-", dir=place) as folder:
        yield written_to(Path(folder), node, backend, input_)


def written_to(folder: Path, node: Node, backend: Backend, input_: bytes) -> Node:
    """Write a task's input and token; returns its node with the variables that name them.

    Variables of the node's configuration take precedence.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    token = tokens.of(backend)
    for name, content in (("input", input_), ("token", token.encode())):
        (folder / name).unlink(missing_ok=True)  # ext4 writes a file that replaces one of the same name to the disk
        (folder / name).write_bytes(content)
    variables = {
        "INPUT_FILE": str(folder / "input"),
        "OUTPUT_FILE": str(folder / "output"),
        "TOKEN_FILE": str(folder / "token"),
        "TEMPORARY_FOLDER": str(folder / "tmp"),
        "SESSION_FOLDER": str(folder / "tmp"),
        "CONTAINER_TOKEN": token,
        "TASK_ID": str(backend.task_id),
        "NODE_ID": str(backend.node_id),
        "ORGANIZATION_ID": str(backend.organization_id),
        "COLLABORATION_ID": str(backend.collaboration_id),
        "HOST": "http://localhost",  # where nothing listens: the client asks the program that runs the task
        "PORT": "0",
        "API_PATH": "",
        "USER_REQUESTED_DATABASE_LABELS": ",".join(backend.databases),
        "DB_LABELS": json.dumps(list(backend.databases)),  # this and the next two: in versions 1 to 3
    }
    if backend.databases and (first := node.databases.get(backend.databases[0])):
        variables |= {"USER_REQUESTED_DATABASE_LABEL": first.label, "DATABASE_URI": first.uri}
    for label, one in node.databases.items():
        variables[f"{label.upper()}_DATABASE_URI"] = one.uri
        variables[f"{label.upper()}_DATABASE_TYPE"] = one.kind
    return replace(node, environment={**variables, **node.environment})


def paths(environment: Mapping[str, str]) -> dict[str, Path | None]:
    """The files that variables name: temporary_directory, input_file, output_file and token_file."""
    return {name: Path(environment[one]) if environment.get(one) else None for name, one in VARIABLES.items()}
