"""The one door to model files: reads and writes them in any form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write
from fedpkg.formats.base import ModelForm, Suffix, keys_of
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.npz import can_hold, dump_npz, load_npz, npz_names
from fedpkg.formats.safetensors import dump_safetensors, load_safetensors, safetensors_names
from fedpkg.formats.torch_file import load_torch
from fedpkg.weights.weights import Weights

TORCH_SUFFIXES = (".pt", ".pth")


def read_model(path: Path, *, max_bytes: int | None = None) -> Weights:
    """The tensors of an .npz or .safetensors file (told by its content), mapped where possible, never unpickled.

    Tensors under positions come in the order 0 … n-1, others in the file's. They may be written to: the file stays as
    it is. It must not be cut short while they live.

    Raises:
        ModelFileError: the file is damaged, not of these formats, or holds more than ``max_bytes`` of tensors.
    """
    file = MappedFile(path, max_bytes=max_bytes)
    tensors = load_npz(file) if _suffix_of(file) == ".npz" else load_safetensors(file)
    if keys_of(tensors) == "positions":
        tensors = {str(i): tensors[str(i)] for i in range(len(tensors))}
    return Weights(tensors)


def detect_form(path: Path) -> ModelForm:
    """The form of a model file, by its content.

    Raises:
        ModelFileError: as ``read_model`` does for the file's directory; tensors are not looked at.
    """
    file = MappedFile(path, max_bytes=None)
    suffix = _suffix_of(file)
    return ModelForm(suffix, keys_of(npz_names(file) if suffix == ".npz" else safetensors_names(file)))


def write_model(path: Path, weights: Weights, form: ModelForm, *, durable: bool = False) -> None:
    """Write a model file, whole or not at all; with ``durable`` it is on disk on return.

    Raises:
        ModelFileError: the form cannot hold a tensor, or the file cannot be written.
    """
    try:
        with atomic_write(path, durable=durable) as file:
            dump_model(file, weights, form)
    except ModelFileError as error:
        raise ModelFileError(
            f"{path}: {error.message}", hint=error.hint, **{**error.fields, "path": str(path)}
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}", path=str(path)) from error


def dump_model(file: BinaryIO, weights: Weights, form: ModelForm) -> None:
    """Write a model to an open file, from its start; the same model makes the same bytes.

    ``file`` needs only ``write``, ``seekable`` and, if that is true, ``seek``: a wrapper that digests what passes must
    say that it is not seekable.
    """
    items = weights.items()
    named = items if form.keys == "names" else [(str(i), tensor) for i, (_, tensor) in enumerate(items)]
    if form.suffix == ".npz":
        dump_npz(file, named)
    else:
        dump_safetensors(file, named)


def read_seed_model(path: Path) -> tuple[Weights, ModelForm]:
    """A seed model and the form in which its global models are staged.

    Besides the formats of ``read_model``, a .pt or .pth file that holds a dictionary of tensors, or one under
    ``"state_dict"``. It is staged as an .npz file with names (.safetensors, if a dtype needs it).

    Raises:
        ModelFileError: the file cannot be used; a pickle that holds more than tensors is not loaded.
    """
    if path.suffix in TORCH_SUFFIXES:
        weights = Weights(_state_dict(path)).freeze()
        form = ModelForm(".npz" if all(can_hold(tensor) for tensor in weights.values()) else ".safetensors")
    else:
        weights, form = read_model(path), detect_form(path)
    if not weights:
        raise ModelFileError(f"{path}: holds no tensors", path=str(path))
    return weights, form


def _suffix_of(file: MappedFile) -> Suffix:
    start = bytes(file.view[:9])
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return ".npz"
    if start[8:] in (b"{", b"") and len(start) >= 8:
        return ".safetensors"
    hint = "write it with numpy.savez() or safetensors.torch.save_file()"
    if start[:1] == b"\x80":
        raise file.error("is a Python pickle, which is never loaded", hint=hint)
    if start[:6] == b"\x93NUMPY":
        raise file.error("is a single .npy array, not an .npz file", hint=hint)
    raise file.error("is neither an .npz nor a .safetensors file", hint=hint)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        loaded = load_torch(path, mapped=True)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error
    except ValueError as error:
        raise ModelFileError(
            f"{path}: cannot be read: {error}",
            hint="save a state_dict: torch.save(model.state_dict(), path)",
            path=str(path),
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise ModelFileError(f"{path}: holds a {type(loaded).__name__}, not a dictionary of tensors", path=str(path))
    for name, tensor in loaded.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided):
            raise ModelFileError(
                f"{path}: entry {name!r} is not a named dense tensor", path=str(path), tensor=str(name)
            )
    return dict(loaded)
