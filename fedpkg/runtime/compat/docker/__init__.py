"""The part of Docker's client that packages use to find their client's number in the name of their container.

docker.from_env().containers.get(os.environ["HOSTNAME"]).name      ends in the client's number, from 1
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ONLY_NAMES = (
    "a task of fedpkg has no Docker: this module only has "
    "docker.from_env().containers.get(ANY_NAME).name, which ends in the client's number. For Docker's own client: "
    "pip install docker"
)


class _Limited:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # attributes that Python itself looks up
            raise AttributeError(name)
        raise AttributeError("%r: %s" % (name, _ONLY_NAMES))


class _Container(_Limited):
    @property
    def name(self) -> str:
        try:
            with open(os.environ["FEDPKG_TASK"]) as file:
                number = json.load(file)["partition_id"] + 1
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise RuntimeError("this is not a task of fedpkg, so it has no client (FEDPKG_TASK: %s)" % error) from error
        return "client_%d" % number


class _Containers(_Limited):
    def get(self, container_id: str) -> _Container:
        return _Container()


class _Client(_Limited):
    def __init__(self) -> None:
        self.containers = _Containers()

    def close(self) -> None:
        """Do nothing: there is no connection."""


def from_env(**_options: object) -> _Client:
    """A client with one container, which stands for this task."""
    return _Client()


def __getattr__(name: str) -> Any:
    raise AttributeError("module 'docker' has no %r: %s" % (name, _ONLY_NAMES))
