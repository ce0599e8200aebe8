"""Global models: the trail of a session as a graph, and their files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedpkg.api.asking import Limit, Ref, Skip, Text, question
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.stores.models import ModelStore

if TYPE_CHECKING:
    from fedpkg.stores.base import ModelRow


class Model(Struct, frozen=True, kw_only=True):
    """A global model. ``parents`` are the models that it was made from; ``branch`` is the path of a cluster, or empty.

    ``has_file`` is False if its file was pruned (by the rule in ``pruned``), or is missing.
    """

    model_id: str
    session_id: str
    round_number: int
    branch: str
    parents: list[str]
    digest: str
    suffix: str
    size_bytes: int
    created_at: float
    num_contributors: int
    num_examples: float | None
    pruned: str | None
    has_file: bool


class ModelGraph(Struct, frozen=True, kw_only=True):
    """The models of a session with their parents; ``branches`` in the order of their first model."""

    session_id: str
    branches: list[str]
    models: list[Model]
    total: int


@question
def list_models(at: Opened, ref: Text = "", *, skip: Skip = 0, limit: Limit = 100) -> Page[Model]:
    """The models of a session, or of all sessions, newest first."""
    session_id = at.session(ref).session_id if ref else None
    rows = at.store.list_models(session_id, newest_first=True)
    return Page(total=len(rows), skip=skip, items=models_of(at, rows[skip : skip + limit]))


@question
def get_model(at: Opened, ref: Ref) -> Model:
    """A model by its id, the beginning of its digest, or a session (its last model). Raises NotFound."""
    return models_of(at, [model_row(at, ref)])[0]


def model_row(at: Opened, ref: Ref) -> ModelRow:
    """The row of a model; ``latest`` is the last model of the newest session."""
    if ref == "latest" or ref.startswith("latest."):
        ref = at.session("latest").session_id + ref.removeprefix("latest")
    return at.store.get_model(ref)


@question
def model_trail(at: Opened, ref: Ref) -> list[Model]:
    """The model, its parent, and so on to its seed model."""
    return models_of(at, at.store.model_trail(model_row(at, ref).model_id))


@question
def model_graph(at: Opened, ref: Ref, *, limit: Limit = 1000) -> ModelGraph:
    """All models of a session with their links; of more than ``limit``, the newest."""
    session_id = at.session(ref).session_id
    rows = at.store.list_models(session_id)
    models = models_of(at, rows[-limit:])
    branches = list(dict.fromkeys(one.branch for one in models))
    return ModelGraph(session_id=session_id, branches=branches, models=models, total=len(rows))


def models_of(at: Opened, rows: Sequence[ModelRow]) -> list[Model]:
    files = ModelStore(at.home.models)
    return [
        Model(
            model_id=row.model_id,
            session_id=row.session_id,
            round_number=row.round_number,
            branch=getattr(row, "path", "") or "",
            parents=[row.parent_id] if row.parent_id else [],
            digest=row.digest,
            suffix=row.suffix,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            num_contributors=len(row.contributors),
            num_examples=_examples(row),
            pruned=row.pruned,
            has_file=files.path(row.digest, row.suffix).is_file(),
        )
        for row in rows
    ]


def _examples(row: ModelRow) -> float | None:
    told = [one.get("num_examples") for one in row.contributors]
    numbers = [float(one) for one in told if isinstance(one, (int, float))]
    return math.fsum(numbers) if numbers else None
