"""Store global models: their files, and the rows of the model trail."""

from __future__ import annotations

from typing import Any, BinaryIO

from fedpkg.formats.base import ModelForm
from fedpkg.formats.model_file import dump_model, keys_in_file
from fedpkg.formats.npz import can_hold
from fedpkg.formats.records_file import dump_records
from fedpkg.stores.base import ModelRow
from fedpkg.stores.models import ModelStore
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights


def put_weights(models: ModelStore, form: ModelForm, weights: Weights | Records) -> tuple[str, int]:
    """Store weights as a model file, or records as a file of records; return its digest and size in bytes."""

    def dump(file: BinaryIO) -> None:
        if isinstance(weights, Records):
            dump_records(file, weights, form)
        else:
            dump_model(file, weights, form)

    digest, _path, size_bytes = models.put(form.suffix, dump)
    return digest, size_bytes


def buffer_keys(weights: Weights, form: ModelForm) -> list[str]:
    """The names of the buffers in the model's file, which does not mark them itself."""
    return [key for key, name in zip(keys_in_file(weights, form), weights, strict=True) if name in weights.buffers]


def form_of(weights: Weights) -> ModelForm:
    """The form of a model that has no seed model: .npz with names, or .safetensors if NumPy lacks a dtype."""
    return ModelForm(".npz" if all(can_hold(tensor) for tensor in weights.values()) else ".safetensors")


def store_model(
    models: ModelStore,
    form: ModelForm,
    weights: Weights,
    *,
    session_id: str,
    round_number: int,
    created_at: float,
    parent_id: str | None = None,
    contributors: list[dict[str, Any]] | None = None,
) -> ModelRow:
    """Store a global model's file; return its row, which the caller commits."""
    digest, size_bytes = put_weights(models, form, weights)
    return ModelRow(
        digest=digest,
        session_id=session_id,
        round_number=round_number,
        suffix=form.suffix,
        keys=form.keys,
        buffers=buffer_keys(weights, form),
        size_bytes=size_bytes,
        created_at=created_at,
        parent_id=parent_id,
        contributors=contributors or [],
    )
