"""Global models: of a session, or of the whole home."""

from __future__ import annotations

from collections.abc import Sequence

from fedpkg.api.models import Model, list_models, model_graph
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.curves import trail_of_models
from fedpkg.dashboard.page import Page, Part
from fedpkg.dashboard.pages.of_session import session_of, trail_of, values_of
from fedpkg.dashboard.tables import Column, Row, Table, row_of, table_from

COLUMNS = (
    Column("model_id", "model", link=lambda row: address("models", row["model_id"]), is_sortable=False),
    Column("round", "round", "whole", is_sortable=False),
    Column("parents", "made from", is_sortable=False),
    Column("num_contributors", "contributors", "whole", is_sortable=False),
    Column("num_examples", "examples", "number", is_sortable=False),
    Column("size_bytes", "size", "bytes", is_sortable=False),
    Column("file", "file", is_sortable=False),
    Column("digest", "sha256", "digest", is_sortable=False),
    Column("created_at", "made", "time", is_sortable=False),
)


def page(asked: Asked) -> Page:
    detail = session_of(asked)
    session_id = detail.summary.session_id
    graph = model_graph(asked.at, session_id)
    parts: dict[str, Part] = {"models": models_table(asked, session_id)}
    if graph.models:
        parts["trail"] = trail_of_models(graph.models)
    values = values_of(detail, "Models", has_trail=bool(graph.models))
    return Page("Which models came out of it?", values, parts, (), trail_of(detail))


def all_models(asked: Asked) -> Page:
    return Page("Which models are in this home?", {}, {"models": models_table(asked, "")})


def models_table(asked: Asked, session_id: str) -> Table:
    def source(_sort: str, offset: int, limit: int) -> tuple[Sequence[Row], int]:
        part = list_models(asked.at, session_id, skip=offset, limit=limit)
        return [model_row(one) for one in part.items], part.total

    return table_from(asked, "models", COLUMNS, source, caption="Models, newest first", empty="There is no model yet.")


def model_row(one: Model) -> Row:
    """A model as a row of a table."""
    file = "kept" if one.has_file else f"removed ({one.pruned})" if one.pruned else "missing"
    return row_of(one, round=one.round_number, parents=", ".join(one.parents) or None, file=file)
