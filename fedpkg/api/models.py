"""Global models: the trail of a session as a graph, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from fedpkg.api.asking import Limit, Ref, Skip, Text, question
from fedpkg.api.files import inside
from fedpkg.api.opening import Opened, Page, Struct
from fedpkg.errors import ConfigError, NotFound, StoreError
from fedpkg.formats.base import BARE, SEED_SUFFIXES, SUFFIXES
from fedpkg.stores.models import ModelStore

if TYPE_CHECKING:
    from fedpkg.client.arrays import Plain
    from fedpkg.stores.base import ModelRow
    from fedpkg.stores.overview import ModelFacts


class Model(Struct, frozen=True, kw_only=True):
    """A global model. ``parents`` are the models that it was made from; ``cluster`` is the path of a cluster, or empty.

    ``has_file`` is False if its file was pruned (by the rule in ``pruned``), or is missing.
    ``until_round`` is the round from which its cluster has another model; None: it is current, or not of a cluster.
    """

    model_id: str
    session_id: str
    round_number: int
    cluster: str
    parents: list[str]
    digest: str
    suffix: str
    size_bytes: int
    created_at: float
    num_contributors: int
    num_examples: float | None
    pruned: str | None
    has_file: bool
    until_round: int | None


class Tensor(Struct, frozen=True, kw_only=True):
    name: str
    dtype: str
    shape: list[int]
    num_elements: int
    is_buffer: bool


class Tensors(Struct, frozen=True, kw_only=True):
    """What is in the file of a model; ``forms`` are the suffixes of the files that `model_file` can give."""

    model_id: str
    num_parameters: int
    tensors: list[Tensor]
    forms: list[str]


class ModelGraph(Struct, frozen=True, kw_only=True):
    """The models of a session with their parents; ``clusters`` in the order of their first model."""

    session_id: str
    clusters: list[str]
    models: list[Model]
    total: int
    notes: tuple[str, ...] = ()


@question
def list_models(at: Opened, ref: Text = "", *, skip: Skip = 0, limit: Limit = 100) -> Page[Model]:
    """The models of a session, or of all sessions, newest first."""
    counts = at.overview.model_counts(at.session(ref).session_id if ref else None)
    rows: list[ModelFacts] = []
    notes: list[str] = []
    before, wanted = skip, limit  # models of the sessions that follow
    for session_id, count in counts.items():
        if wanted and before < count:
            read = at.overview.models(session_id, newest_first=True, skip=before, limit=wanted)
            rows += read.rows
            notes += at.notes(read)
            wanted -= min(wanted, count - before)
        before = max(0, before - count)
    return Page(total=sum(counts.values()), skip=skip, items=models_of(at, rows), notes=tuple(notes))


@question
def get_model(at: Opened, ref: Ref) -> Model:
    """A model by its id, the beginning of its digest, or a session (its last model). Raises NotFound."""
    row = model_row(at, ref)
    return models_of(at, at.overview.models(model_id=row.model_id).rows)[0]


def model_row(at: Opened, ref: Ref) -> ModelRow:
    """The row of a model; ``latest`` is the last model of the newest session."""
    if ref == "latest" or ref.startswith("latest."):
        ref = at.session("latest").session_id + ref.removeprefix("latest")
    return at.store.get_model(ref)


@question
def model_trail(at: Opened, ref: Ref) -> list[Model]:
    """The model, its parent, and so on to its seed model; of a cluster's model, all that it comes from."""
    row = model_row(at, ref)
    known = {one.model_id: one for one in models_of(at, at.overview.models(row.session_id).rows)}
    found: dict[str, Model] = {}
    waiting = [row.model_id]
    while waiting:
        if (one := known.get(waiting.pop())) is not None and one.model_id not in found:
            found[one.model_id] = one
            waiting += one.parents
    return sorted(found.values(), key=lambda one: (-one.round_number, one.cluster))


@question
def model_graph(at: Opened, ref: Ref, *, limit: Limit = 1000) -> ModelGraph:
    """All models of a session with their links; of more than ``limit``, the newest."""
    session_id = at.session(ref).session_id
    read = at.overview.models(session_id)
    models = models_of(at, read.rows[-limit:])
    clusters = list(dict.fromkeys(one.cluster for one in models))
    return ModelGraph(
        session_id=session_id, clusters=clusters, models=models, total=len(read.rows), notes=at.notes(read)
    )


@question
def get_tensors(at: Opened, ref: Ref) -> Tensors:
    """The tensors of a model's file, with their shapes. Raises NotFound: there is no such model, or no file of it."""
    row = model_row(at, ref)
    from fedpkg.client.arrays import can_hold  # takes long, and few ask

    path = _path(at, row)
    if row.suffix in BARE:
        return Tensors(model_id=row.model_id, num_parameters=0, tensors=[], forms=[row.suffix])
    buffers = set(row.buffers)
    tensors = [
        Tensor(
            name=name,
            dtype=one.dtype,
            shape=list(one.values.shape),
            num_elements=int(one.values.size),
            is_buffer=name in buffers,
        )
        for name, one in _arrays(path).items()
    ]
    forms = [suffix for suffix in SEED_SUFFIXES if all(can_hold(suffix, one.dtype) for one in tensors)]
    return Tensors(
        model_id=row.model_id,
        num_parameters=sum(one.num_elements for one in tensors if not one.is_buffer),
        tensors=tensors,
        forms=list(dict.fromkeys([row.suffix, *forms])),
    )


@dataclass(frozen=True)
class Download:
    """The file of a model; `open` writes it anew if it has another form. It needs no store, and may take seconds."""

    name: str
    suffix: str
    path: Path

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The open file.

        Raises:
            NotFound: it was removed.
            ConfigError: the model cannot have this form.
        """
        if self.suffix == self.path.suffix:
            try:
                file = self.path.open("rb")
            except OSError as error:
                raise NotFound(f"{self.path.name} cannot be read: {error.strerror}") from error
            with file:
                yield file
            return
        from fedpkg.client.arrays import can_hold, write_to

        is_plain = self.path.suffix in SEED_SUFFIXES and self.suffix in SEED_SUFFIXES
        arrays = _arrays(self.path) if is_plain else {}
        if not arrays or not all(can_hold(self.suffix, one.dtype) for one in arrays.values()):
            raise ConfigError(f"form: the model cannot be a {self.suffix} file", key="form")
        with TemporaryFile() as written:
            write_to(written, arrays, suffix=self.suffix)
            written.seek(0)
            yield written


@question
def model_file(at: Opened, ref: Ref, form: Text = "") -> Download:
    """The file of a model to download.

    Args:
        form: the suffix, one of ``forms`` of `get_tensors`; none: that of the file.

    Raises:
        NotFound: there is no such model, or no file of it.
        ConfigError: no model has a file of this form.
    """
    row = model_row(at, ref)
    path, suffix = _path(at, row), form or row.suffix
    if suffix not in SUFFIXES:
        raise ConfigError(f"form must be one of {', '.join(SUFFIXES)}", key="form")
    return Download(re.sub(r"[^A-Za-z0-9_.-]+", "-", row.model_id) + suffix, suffix, path)


def _path(at: Opened, row: ModelRow) -> Path:
    """The file of a model. Raises NotFound: it was pruned, or is missing."""
    files = ModelStore(at.home.models)
    if row.pruned is not None and not files.path(row.digest, row.suffix).exists():
        return files.verify_model(row)  # which raises
    return inside(at.home.root, files.path(row.digest, row.suffix))


def _arrays(path: Path) -> dict[str, Plain]:
    from fedpkg.client.arrays import open_file
    from fedpkg.client.errors import ClientError

    try:
        return open_file(str(path))
    except ClientError as error:
        raise StoreError(f"the file of the model is damaged: {path.name}") from error


def models_of(at: Opened, rows: Sequence[ModelFacts]) -> list[Model]:
    files = ModelStore(at.home.models)
    return [
        Model(
            model_id=row.model_id,
            session_id=row.session_id,
            round_number=row.round_number,
            cluster=row.cluster,
            parents=row.parents or ([row.parent_id] if row.parent_id else []),
            digest=row.digest,
            suffix=row.suffix,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            num_contributors=row.num_contributors,
            num_examples=row.num_examples or None,
            pruned=row.pruned,
            has_file=files.path(row.digest, row.suffix).is_file(),
            until_round=row.until_round,
        )
        for row in rows
    ]
