"""What a server of version 4 or 5 tells of organizations, tasks and runs: dicts in the published form."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from fedpkg.analytics import answers
from fedpkg.analytics.answers import link, time
from fedpkg.analytics.backend import COMPLETED, FAILED, Backend, Organization, Run
from fedpkg.analytics.words import has_task_failed, has_task_finished


def organization(one: Organization) -> dict[str, Any]:
    id_ = one.organization_id
    return {
        **answers.organization(one),
        "collaborations": f"/api/collaboration?organization_id={id_}",
        "users": f"/api/user?organization_id={id_}",
        "tasks": f"/api/task?init_org_id={id_}",
        "nodes": f"/api/node?organization_id={id_}",
        "runs": f"/api/run?organization_id={id_}",
    }


def collaboration(backend: Backend, *, is_encrypted: bool = False) -> dict[str, Any]:
    id_ = backend.collaboration_id
    return {
        "id": id_,
        "name": f"collaboration-{id_}",
        "encrypted": is_encrypted,
        "tasks": f"/api/task?collaboration_id={id_}",
        "nodes": f"/api/node?collaboration_id={id_}",
        "organizations": f"/api/organization?collaboration_id={id_}",
    }


def task(backend: Backend, task_id: int) -> dict[str, Any]:
    """A task in its present state. KeyError: there is no such task."""
    about, runs = backend.about(task_id), backend.runs(task_id)
    parent = about.get("parent")
    return {
        "id": task_id,
        "runs": f"/api/run?task_id={task_id}",
        "results": f"/api/result?task_id={task_id}",
        "status": status(runs),
        "complete": backend.has_ended(task_id),
        "name": about["name"],
        "databases": [{"label": label} for label in about["databases"] or ()],
        "description": about["description"],
        "image": backend.image,
        "created_at": time(about.get("created_at")),
        "init_user": link("user", 1),
        "init_org": link("organization", backend.organization_id),
        "parent": link("task", parent) if parent else None,
        "collaboration": link("collaboration", backend.collaboration_id),
        "job_id": 1,
        "children": f"/api/task?parent_id={task_id}",
    }


def status(runs: Sequence[Run]) -> str:
    """The status of a task: failed if one of its runs is, else that of its first run that has not ended."""
    words = [one.status for one in runs]
    if any(map(has_task_failed, words)):
        return FAILED
    return next((word for word in words if not has_task_finished(word)), COMPLETED)


def run(backend: Backend, one: Run, *, input_: bytes | None = None) -> dict[str, Any]:
    has_ended = has_task_finished(one.status)
    created = time(backend.about(one.task_id).get("created_at"))
    return {
        "id": one.run_id,
        "status": one.status,
        "log": one.log,
        "input": None if input_ is None else base64.b64encode(input_).decode(),
        "assigned_at": created,
        "started_at": created if has_ended else None,
        "finished_at": created if has_ended else None,
        "ports": [],
        "blob_storage_used": False,
        "results": link("result", one.run_id),
        "node": {"id": one.organization_id, "ip": None, "name": f"node-{one.organization_id}", "status": "online"},
        "organization": link("organization", one.organization_id),
        "task": link("task", one.task_id),
    }


def result(one: Run) -> dict[str, Any]:
    return {
        "id": one.run_id,
        "result": "" if one.result is None else base64.b64encode(one.result).decode(),
        "blob_storage_used": False,
        "run": link("run", one.run_id),
        "task": link("task", one.task_id),
    }
