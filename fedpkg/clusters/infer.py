"""Clusters of the clients of a session, of a split, or of a file of entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedpkg.clusters.finding import find_clusters
from fedpkg.clusters.held import compared_with
from fedpkg.clusters.method import OF_UPDATES, Finding
from fedpkg.clusters.tree import Clustering
from fedpkg.clusters.vectors import attributes, histograms
from fedpkg.data.clients import numbered_ids
from fedpkg.data.entities import read_entities
from fedpkg.data.manifest import read_manifest
from fedpkg.errors import ConfigError, DataError, SessionError, StoreError
from fedpkg.formats.model_file import read_model
from fedpkg.replies.reading import Reading, tensors_of
from fedpkg.stores.base import ModelRow, RequestRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.models import ModelStore
from fedpkg.stores.opening import open_store
from fedpkg.stores.sql import StateStore
from fedpkg.strategies import make_strategy
from fedpkg.strategies.base import Reply
from fedpkg.strategies.traits import traits_of
from fedpkg.strategies.updates.held import Updates
from fedpkg.types import ReplyKind
from fedpkg.waist.answer import Refused
from fedpkg.waist.order import ReplySpec
from fedpkg.weights.weights import Weights


def infer(
    source: str | Path,
    finding: Finding,
    *,
    home: Home | None = None,
    round_number: int | None = None,
    part: str = "train",
    minimum: float = 0,
    names: Sequence[str] = (),
) -> Clustering:
    """The clusters of the clients of ``source``.

    Args:
        source: The folder of a split, whose labels are compared; a file of entities, whose attributes are; or a session
            of ``home``, whose updates are.
        round_number: The round of the session. None: the newest one with updates.
        part: The part of the split.
        minimum: Smaller counts of labels are 0.
        names: The attributes that are compared. Empty: all.

    Raises:
        NotFound: It is none of them.
        SessionError: The session has no updates that can be compared.
        DataError: The split has no labels, or entities lack attributes.
        ConfigError: The method compares updates only. Otherwise see `find_clusters`.
    """
    path = Path(source)
    if finding.method == "bipartition" and path.exists():
        raise ConfigError(f"method: {OF_UPDATES}", hint="agglomerative or kmeans, or a session whose updates were kept")
    if path.is_dir():
        return find_clusters(_labels(path, part, minimum), finding)
    if path.is_file():
        entities = read_entities(path)
        values = {one.entity_id: entities.attributes_of(one.entity_id) for one in entities.clients}
        return find_clusters(attributes(values, names), finding)
    if home is None:
        raise DataError(f"{path} does not exist", hint="give the folder of a split or a file of entities")
    updates, left_out = updates_of_session(home, str(source), round_number)
    return find_clusters(updates, finding, left_out=left_out)


def _labels(folder: Path, part: str, minimum: float) -> Updates:
    manifest = read_manifest(folder)
    counts = manifest.counts.get(part)
    if not counts:
        raise DataError(
            f"{folder}: there are no counts of labels for the part {part!r}",
            hint=f"parts with labels: {', '.join(manifest.counts) or 'none, as examples have not one class each'}",
            path=str(folder),
        )
    return histograms(dict(zip(numbered_ids(len(counts)), counts, strict=True)), minimum=minimum)


def updates_of_session(home: Home, session: str, round_number: int | None = None) -> tuple[Updates, list[str]]:
    """The updates of a round that are still on disk, and the session's other clients.

    They are those of the round's first request to train, which all its clients began from the same global model.

    Raises:
        NotFound: There is no such session or round, or the file of the global model was pruned.
        SessionError: No updates were kept, or the clients did not begin from one global model.
        StoreError: The file of an update is damaged.
    """
    with open_store(home, read_only=True) as store:
        row = store.get_session(session)
        if row.config.get("topology"):
            raise SessionError(
                f"{row.session_id}: clients below different combiners began from different models, so "
                "their updates cannot be compared",
                hint="use a session without `topology`",
            )
        if round_number is not None:
            store.get_round(row.session_id, round_number)
        for request in _requests(store, row, round_number):
            if found := list(_replies(store, home, row, request)):
                model = _model(store, home, row, request.round_number)
                clients = [client.client_id for client in store.list_clients(row.session_id)]
                return _compared(row, request, model, found, clients)
    where = row.session_id if round_number is None else f"{row.session_id}, round {round_number}"
    raise SessionError(
        f"{where}: no updates are on disk",
        hint="run the session with keep.updates=true; or find clusters in the folder of a split or a file of entities",
    )


def _requests(store: StateStore, row: SessionRow, round_number: int | None) -> Iterator[RequestRow]:
    """The first answered request for updates of each round, the newest round first."""
    first: dict[int, RequestRow] = {}
    for request in store.list_requests(row.session_id, round_number=round_number):
        is_update = request.entry_point == "train" and request.reply_kind == ReplyKind.UPDATE.value
        if is_update and request.status == "answered":
            first.setdefault(request.round_number, request)
    return iter(sorted(first.values(), key=lambda request: -request.round_number))


def _replies(store: StateStore, home: Home, row: SessionRow, request: RequestRow) -> Iterator[tuple[str, Path, float]]:
    """Client, file and number of examples of the replies that counted, in the order of the cohort."""
    tasks = store.list_tasks(row.session_id, round_number=request.round_number, entry_point="train", status="ok")
    clients = {task.task_id: task.client_id for task in tasks if task.request_id == request.request_id}
    found = {}
    for update in store.list_updates(row.session_id, request.round_number):
        client_id, path = clients.get(update.task_id), home.root / update.path
        if client_id is not None and client_id in (request.counted or ()) and path.is_file():
            found[client_id] = (client_id, path, update.num_examples)
    return iter(found[client_id] for client_id in request.cohort if client_id in found)


def _model(store: StateStore, home: Home, row: SessionRow, round_number: int) -> Weights:
    """The global model that the clients of a round were sent."""
    before = [model for model in store.list_models(row.session_id) if model.round_number < round_number]
    if not before:
        raise SessionError(f"{row.session_id}: before round {round_number} there was no global model to compare with")
    newest: ModelRow = max(before, key=lambda model: model.round_number)
    return Weights(read_model(ModelStore(home.models).verify_model(newest)), buffers=newest.buffers)


def _compared(
    row: SessionRow, request: RequestRow, model: Weights, found: Sequence[tuple[str, Path, float]], clients: list[str]
) -> tuple[Updates, list[str]]:
    section: Any = row.config["strategy"]
    content = traits_of(make_strategy(section)).reply
    reading = Reading(ReplySpec(kind=ReplyKind.UPDATE, tensors=tensors_of(model), reply=content, weighted=False))

    def replies() -> Iterator[Reply]:
        for position, (client_id, path, num_examples) in enumerate(found):
            try:
                weights = reading.open(path, lambda _: model).sets[""]
            except Refused as refused:
                raise StoreError(
                    f"{path}: the update of {client_id} is damaged: {refused}", path=str(path)
                ) from refused
            yield Reply(request.request_id, position, client_id, {"": weights}, num_examples)

    asked = {client_id for client_id, _, _ in found}
    left_out = [client_id for client_id in clients if client_id not in asked]
    return Updates(replies(), compared_with(model, content)), left_out
