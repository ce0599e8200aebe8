"""What a server of versions 1 to 3 tells of organizations, tasks and results: dicts in the published form."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from fedpkg.analytics.backend import COMPLETED, Backend, Organization, Run
from fedpkg.analytics.errors import SubtakCreationError

_LIVE = ("complete", "status", "results", "finished_at")  # of a task: what changes while it runs


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


def task(backend: Backend, task_id: int) -> dict[str, Any]:
    """A task in its present state. KeyError: there is no such task."""
    about, runs = backend.about(task_id), backend.runs(task_id)
    has_ended = backend.has_ended(task_id)
    failed = any(one.status != COMPLETED for one in runs)
    created, parent = _time(about.get("created_at")), about.get("parent")
    return {
        "id": task_id,
        "name": about["name"],
        "description": about["description"],
        "complete": has_ended,
        "status": ("failed" if failed else COMPLETED) if has_ended else "pending",
        "results": [_link("result", one.run_id) for one in runs],
        "image": backend.image,
        "database": next(iter(about["databases"] or ()), "default"),
        "collaboration": _link("collaboration", backend.collaboration_id),
        "initiator": _link("organization", backend.organization_id),
        "init_user": _link("user", 1),
        "parent": _link("task", parent) if parent else None,
        "children": [],
        "run_id": 1,
        "created_at": created,
        "finished_at": created if has_ended else None,
    }


def record(run: Run, value: Any) -> dict[str, Any]:
    """A result in the form of a server: a pickle in base64, of the value that this process has read."""
    has_result = run.status == COMPLETED
    return {
        "id": run.run_id,
        "result": base64.b64encode(pickle.dumps(value)).decode() if has_result else None,
        "status": run.status,
        "log": run.log,
        "input": None,
        "ports": [],
        "started_at": None,
        "finished_at": _time(0.0),
        "organization": _link("organization", run.organization_id),
        "node": {"id": run.organization_id, "ip": None, "name": f"node-{run.organization_id}", "status": "online"},
        "task": _link("task", run.task_id),
    }


def organization(one: Organization) -> dict[str, Any]:
    id_ = one.organization_id
    fields = ("domain", "address1", "address2", "zipcode", "country", "public_key")
    return {
        **{name: one.attributes.get(name, "") for name in fields},
        "id": id_,
        "name": one.name,
        "collaborations": [],
        "nodes": [_link("node", id_)],
        "users": [],
        "created_tasks": [],
        "results": [],
    }


def collaboration(backend: Backend) -> dict[str, Any]:
    id_ = backend.collaboration_id
    there = backend.organizations()
    return {
        "id": id_,
        "name": f"collaboration-{id_}",
        "encrypted": False,
        "organizations": [_link("organization", one.organization_id) for one in there],
        "nodes": [_link("node", one.organization_id) for one in there],
        "tasks": [],
    }


def node(backend: Backend) -> dict[str, Any]:
    return {
        "id": backend.node_id,
        "name": f"node-{backend.node_id}",
        "status": "online",
        "ip": None,
        "config": [],
        "last_seen": None,
        "type": "node",
        "collaboration": _link("collaboration", backend.collaboration_id),
        "organization": _link("organization", backend.organization_id),
    }


def missing(kind: str, id_: object) -> dict[str, Any]:
    """What the server answers for an id that does not exist: it is no error of the client."""
    return {"msg": f"{kind} id={id_} not found"}


def failures(backend: Backend, task_id: int, failed: Sequence[Run], number: int) -> str:
    """Why a task has too few results."""
    names = {one.organization_id: one.name for one in backend.organizations()}
    lines = [f"{len(failed)} of {number} organizations have no result of task {task_id}:"]
    for one in failed:
        lines.append(
            f"  {names.get(one.organization_id, '?')} (id {one.organization_id}): {one.status}: {last_line(one)}"
        )
    return "\n".join(lines)


def last_line(run: Run) -> str:
    lines = run.log.strip().splitlines()
    return lines[-1] if lines else "no reason is known"


def decoded(text: Any) -> bytes:
    """The bytes of an input in base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise SubtakCreationError(f"POST task: the input is no base64: {error}") from error


def _link(kind: str, id_: int) -> dict[str, Any]:
    return {"id": id_, "link": f"/api/{kind}/{id_}", "methods": ["GET"]}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()
