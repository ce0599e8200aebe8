"""What servers of all versions tell in the same way: tasks as dicts, organizations, and the answers to requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from fedpkg.analytics.backend import Organization, Run

_LIVE = ("complete", "status", "results", "finished_at")  # of a task: what changes while it runs
_FIELDS = ("domain", "address1", "address2", "zipcode", "country", "public_key")
NO_VPN = (
    "functions cannot reach each other over a network: there is no VPN. Let the central function create a task for "
    "each exchange"
)


class Task(dict):  # type: ignore[type-arg]
    """A task as a dict. A look at whether it is complete runs it, so that a loop which waits for it ends."""

    def __init__(self, content: Mapping[str, Any], look: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(content)
        self._look: Callable[[], Mapping[str, Any]] | None = look

    def __getitem__(self, key: str) -> Any:
        if key in _LIVE and self._look is not None:
            look, self._look = self._look, None
            self.update(look())
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 - which would be this function

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def organization(one: Organization) -> dict[str, Any]:
    """The fields of an organization that all versions have."""
    return {**{name: one.attributes.get(name, "") for name in _FIELDS}, "id": one.organization_id, "name": one.name}


def link(kind: str, id_: int) -> dict[str, Any]:
    return {"id": id_, "link": f"/api/{kind}/{id_}", "methods": ["GET"]}


def time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def last_line(run: Run) -> str:
    """Why a run failed, in one line."""
    lines = run.log.strip().splitlines()
    return lines[-1] if lines else "no reason is known"


class Asked:
    """What clients answer to requests, without a server."""

    _gets = ""  # the paths of GET that have an answer, for messages
    token: str
    host: str | None
    port: Any
    path: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def base_path(self) -> str:
        return f"{self.host}{f':{self.port}' if self.port else ''}{self.path}"

    def request(
        self,
        endpoint: str,
        json: Mapping[str, Any] | None = None,
        method: str = "get",
        params: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        """What a server answers to a request, for the paths that functions may read, and to create a task.

        Raises:
            NotImplementedError: Any other path.
        """
        verb, path = method.lower(), endpoint.strip("/").removeprefix("api/")
        if verb == "post" and path == "task":
            return self._posted(json or {})
        answer = self._got(path, params or {}) if verb == "get" else None
        if answer is None:
            raise NotImplementedError(
                f"{verb.upper()} {endpoint}: there is no server, and this request has no answer here; there are: POST "
                f"task, and GET of {self._gets}"
            )
        return answer

    def _posted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create the task of a POST."""
        raise NotImplementedError

    def _got(self, path: str, params: Mapping[str, Any]) -> Any:
        """The answer to a GET; None: there is none to such a path."""
        raise NotImplementedError
