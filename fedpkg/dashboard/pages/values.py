"""What clients wrote, whole: the JSON of a validation or of a reply, with everything in it that is no scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpkg.api.metrics import Curves
from fedpkg.api.routes import PREFIX
from fedpkg.api.tasks import list_tasks
from fedpkg.api.values import get_validation, list_reports
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.json_tree import JsonTree, tree_of
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, Row, table_of
from fedpkg.errors import NotFound


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    curves = Curves(asked.at, session_id)
    rounds = [one.round_number for one in curves.rounds]
    validated = max((one.last_round for one in curves.names() if one.phase not in ("train", "strategy")), default=0)
    number = asked.number("round", validated or (rounds[-1] if rounds else 0))
    told = {one.task_id: one for one in list_tasks(asked.at, session_id, round_number=number, status="ok")}
    chosen = asked.get("task") or next((one for one in told if told[one].entry_point != "train"), next(iter(told), ""))
    found, source = _value(asked, session_id, number, chosen)
    tree = None if found is None else tree_of("", found)
    rows: list[Row] = [
        {"client_id": one.client_id, "entry_point": one.entry_point, "seconds": one.seconds, "task": one.task_id}
        for one in told.values()
    ]
    columns = [
        Column("client_id", "client", link=lambda row: asked.url(round=number, task=row["task"])),
        Column("entry_point", "entry point"),
        Column("seconds", "time", "seconds"),
    ]
    empty = f"No task of round {number} has a result."
    table = table_of(asked, "tasks", columns, rows, caption=f"Results of round {number}", empty=empty, per_page=20)
    plots: dict[str, Part] = dict(tree.plots) if isinstance(tree, JsonTree) else {}
    values = values_of(
        detail,
        "Values",
        tree=tree and tree.root,
        source=source,
        round=number,
        previous=max((one for one in rounds if one < number), default=None),
        following=min((one for one in rounds if one > number), default=None),
        task=told.get(chosen),
    )
    return Page("What did the clients write?", values, {**plots, "tasks": table}, (), trail_of(detail))


def _value(asked: Asked, session_id: str, number: int, task_id: str) -> tuple[Any, str]:
    """The JSON that a task wrote, and the address at which it is served whole; None: it wrote none."""
    if not task_id:
        return None, ""
    try:
        return get_validation(asked.at, task_id).metrics, f"{PREFIX}{address('validations', task_id)}"
    except NotFound:
        pass
    skip, total = 0, 1
    while skip < total:
        part = list_reports(asked.at, session_id, number, skip=skip, limit=1000)
        for one in part.items:
            if one.task_id == task_id:
                url = f"{PREFIX}{address('sessions', session_id, 'rounds', str(number), 'reports')}"
                return (one.metadata if isinstance(one.metadata, Mapping) else None), url
        skip, total = skip + 1000, part.total
    return None, ""
