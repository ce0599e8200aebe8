"""What a server of versions 1 to 3 tells of organizations, tasks and results: dicts in the published form."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Sequence
from typing import Any

from fedpkg.analytics import answers
from fedpkg.analytics.answers import last_line, link, time
from fedpkg.analytics.backend import COMPLETED, Backend, Organization, Run
from fedpkg.analytics.errors import SubtakCreationError

_MOST_FAILURES = 5  # that an error names


def task(backend: Backend, task_id: int) -> dict[str, Any]:
    """A task in its present state. KeyError: there is no such task."""
    about, runs = backend.about(task_id), backend.runs(task_id)
    has_ended = backend.has_ended(task_id)
    failed = any(one.status != COMPLETED for one in runs)
    created, parent = time(about.get("created_at")), about.get("parent")
    return {
        "id": task_id,
        "name": about["name"],
        "description": about["description"],
        "complete": has_ended,
        "status": ("failed" if failed else COMPLETED) if has_ended else "pending",
        "results": [link("result", one.run_id) for one in runs],
        "image": backend.image,
        "database": next(iter(about["databases"] or ()), "default"),
        "collaboration": link("collaboration", backend.collaboration_id),
        "initiator": link("organization", backend.organization_id),
        "init_user": link("user", 1),
        "parent": link("task", parent) if parent else None,
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
        "finished_at": time(0.0),
        "organization": link("organization", run.organization_id),
        "node": {"id": run.organization_id, "ip": None, "name": f"node-{run.organization_id}", "status": "online"},
        "task": link("task", run.task_id),
    }


def organization(one: Organization) -> dict[str, Any]:
    return {
        **answers.organization(one),
        "collaborations": [],
        "nodes": [link("node", one.organization_id)],
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
        "organizations": [link("organization", one.organization_id) for one in there],
        "nodes": [link("node", one.organization_id) for one in there],
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
        "collaboration": link("collaboration", backend.collaboration_id),
        "organization": link("organization", backend.organization_id),
    }


def missing(kind: str, id_: object) -> dict[str, Any]:
    """What the server answers for an id that does not exist: it is no error of the client."""
    return {"msg": f"{kind} id={id_} not found"}


def failures(backend: Backend, task_id: int, failed: Sequence[Run], number: int) -> str:
    """Why a task has too few results."""
    names = {one.organization_id: one.name for one in backend.organizations()}
    lines = [f"{len(failed)} of {number} organizations have no result of task {task_id}:"]
    for one in failed[:_MOST_FAILURES]:
        lines.append(
            f"  {names.get(one.organization_id, '?')} (id {one.organization_id}): {one.status}: {last_line(one)}"
        )
    if len(failed) > _MOST_FAILURES:
        lines.append(f"  and {len(failed) - _MOST_FAILURES} more")
    return "\n".join(lines)


def decoded(text: Any) -> bytes:
    """The bytes of an input in base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise SubtakCreationError(f"POST task: the input is no base64: {error}") from error
