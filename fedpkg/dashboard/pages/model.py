"""One model: where it comes from, its tensors, and its file in each form."""

from __future__ import annotations

from fedpkg.api.models import Tensors, get_model, get_tensors, model_trail
from fedpkg.api.routes import PREFIX
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.pages.models import COLUMNS, model_row
from fedpkg.dashboard.tables import Column, Row, table_of
from fedpkg.errors import FedpkgError


def page(asked: Asked) -> Page:
    model = get_model(asked.at, asked.names["model_id"])
    notes = []
    tensors: Tensors | None = None
    try:
        tensors = get_tensors(asked.at, model.model_id)
    except FedpkgError as error:  # its file was pruned, is missing or damaged
        notes.append(error.message)
    rows: list[Row] = [
        {
            "name": one.name,
            "dtype": one.dtype,
            "shape": " × ".join(map(str, one.shape)) or "scalar",
            "num_elements": one.num_elements,
            "kind": "buffer" if one.is_buffer else "parameter",
        }
        for one in (tensors.tensors if tensors else ())
    ]
    columns = [
        Column("name", "tensor"),
        Column("shape", "shape"),
        Column("dtype", "dtype"),
        Column("num_elements", "elements", "whole"),
        Column("kind", "kind"),
    ]
    trail = [model_row(one) for one in model_trail(asked.at, model.model_id)]
    parts = {
        "tensors": table_of(asked, "tensors", columns, rows, caption="Tensors", empty="Its file cannot be read."),
        "trail": table_of(asked, "trail", COLUMNS, trail, caption="The model and those that it comes from"),
    }
    files = [
        (form, f"{PREFIX}{address('models', model.model_id, 'file', form=form)}")
        for form in (tensors.forms if tensors else ())
    ]
    above = (
        ("Sessions", "/"),
        (model.session_id, address("sessions", model.session_id)),
        ("Models", address("sessions", model.session_id, "models")),
    )
    values = {"model": model, "tensors": tensors, "files": files}
    return Page(f"What is in model {model.model_id}?", values, parts, notes, above)
