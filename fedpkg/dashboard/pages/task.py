"""One task: its logs, its command, and how to repeat it."""

from __future__ import annotations

from fedpkg.api.tasks import Log, get_log, get_task
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page
from fedpkg.errors import FedpkgError

LOG_BYTES = 20_000  # of each log in the page


def page(asked: Asked) -> Page:
    detail = get_task(asked.at, asked.names["task_id"])
    task = detail.task
    logs: list[Log] = []
    notes: list[str] = []
    for name in detail.logs:
        try:
            logs.append(get_log(asked.at, task.task_id, name, size=LOG_BYTES))
        except FedpkgError as error:  # removed since, or not readable
            notes.append(error.message)
    trail = (
        ("Sessions", "/"),
        (detail.session_id, address("sessions", detail.session_id)),
        ("Failures", address("sessions", detail.session_id, "failures")),
    )
    verb = "fail" if task.status == "failed" else "end"
    title = f"How did '{task.entry_point}' of {task.client_id} {verb} in round {task.round_number}?"
    return Page(title, {"detail": detail, "task": task, "logs": logs}, {}, notes, trail)
