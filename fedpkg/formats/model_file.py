"""Reads and writes model files in all formats, with one set of weights or several named ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write
from fedpkg.formats.bare import bare_by_content, dump_bare, load_bare
from fedpkg.formats.base import BARE, ModelForm, Suffix, keys_of
from fedpkg.formats.buffers import with_buffers
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.npz import can_hold, dump_npz, load_npz, npz_names
from fedpkg.formats.safetensors import dump_safetensors, load_safetensors, safetensors_names
from fedpkg.formats.torch_file import is_torch_file, load_torch
from fedpkg.weights.weights import Weights

_WRITE_IT = "write it with numpy.savez() or safetensors.torch.save_file()"
_OF_A_SEED = (
    "give a file of arrays: numpy.savez(path, **arrays), safetensors.torch.save_file(arrays, path) or "
    "torch.save(model.state_dict(), path) writes one"
)
_ZIP = b"PK\3\4"
TORCH_SUFFIXES = (".pt", ".pth")
_FREE_BYTES, _MAX_EXPANSION = 64 << 20, 16  # tensors of a .pt file may share storage, also within one tensor (expanded)
_SET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def read_model(path: Path, *, max_bytes: int | None = None) -> Weights:
    """The tensors of an .npz or .safetensors file (recognised by its content), mapped where possible, never unpickled.

    Bare arrays are recognised by their suffix: see ``bare.py``.

    Tensors under positions have the order 0 … n-1, others that of the file. Writing to them does not change the file.
    The file must not be truncated while they are in use.

    Raises:
        ModelFileError: If the file is damaged, has another format, or contains more than ``max_bytes`` of tensors.
    """
    return _weights(load_tensors(MappedFile(path, max_bytes=max_bytes)))


def read_sets(path: Path, *, max_bytes: int | None = None) -> dict[str, Weights]:
    """The named weight sets of a file, mapped as by ``read_model``, in the order of their first tensors.

    The tensor ``fc.weight`` of the set ``x`` has the key ``x/fc.weight``. A file without ``/`` in any key is one set,
    named ``""``.

    Raises:
        ModelFileError: As ``read_model``; or if only some of the keys have the name of a set.
    """
    file = MappedFile(path, max_bytes=max_bytes)
    tensors = load_tensors(file)
    if not any("/" in key for key in tensors):
        return {"": _weights(tensors)}
    sets: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, slash, tensor_name = key.partition("/")
        if not (slash and _SET_NAME.fullmatch(name)):
            hint = "the tensor 'w' of the set 'x' has the key 'x/w'"
            raise file.error("its key has no name of a set, but others do", key, hint=hint)
        sets.setdefault(name, {})[tensor_name] = tensor
    return {name: _weights(tensors) for name, tensors in sets.items()}


def detect_form(path: Path) -> ModelForm:
    """The form of a model file, by its content.

    Raises:
        ModelFileError: As ``read_model``, for the file's directory; tensors are not read.
    """
    file = MappedFile(path, max_bytes=None)
    suffix = _suffix_of(file)
    if suffix in BARE:
        return ModelForm(suffix, "positions")
    return ModelForm(suffix, keys_of(names_in(file)))


def names_in(file: MappedFile) -> list[str]:
    """The keys of a file's tensors, in its order; the tensors are not read."""
    return npz_names(file) if _suffix_of(file) == ".npz" else safetensors_names(file)


def write_model(path: Path, weights: Weights, form: ModelForm, *, durable: bool = False) -> None:
    """Write a model file atomically; with ``durable`` it is on disk on return.

    Raises:
        ModelFileError: If the format does not support a tensor, or the file cannot be written.
    """
    write_whole(path, lambda file: dump_model(file, weights, form), durable=durable)


def write_sets(path: Path, sets: Mapping[str, Weights], form: ModelForm, *, durable: bool = False) -> None:
    """Write named weight sets to one file atomically; the inverse of ``read_sets``.

    Raises:
        ModelFileError: As ``write_model``; or if reading the file would not give the same sets.
    """
    write_whole(path, lambda file: dump_sets(file, sets, form), durable=durable)


def write_whole(path: Path, dump: Callable[[BinaryIO], None], *, durable: bool) -> None:
    """Write a file atomically.

    Raises:
        ModelFileError: As raised by ``dump``, with the path; or if the file cannot be written.
    """
    try:
        with atomic_write(path, durable=durable) as file:
            dump(file)
    except ModelFileError as error:
        raise ModelFileError(
            f"{path}: {error.message}", hint=error.hint, **{**error.fields, "path": str(path)}
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}", path=str(path)) from error


def dump_model(file: BinaryIO, weights: Weights, form: ModelForm) -> None:
    """Write a model to an open file, from its start; equal models give equal bytes.

    ``file`` needs only ``write``, so it may be a wrapper that computes a digest.
    """
    dump_tensors(file, zip(keys_in_file(weights, form), weights.values(), strict=True), form)


def dump_sets(file: BinaryIO, sets: Mapping[str, Weights], form: ModelForm) -> None:
    """Write named weight sets to an open file, as ``dump_model`` does; positions count within each set."""
    if list(sets) == [""]:
        if strange := next((key for key in keys_in_file(sets[""], form) if "/" in key), None):
            raise ModelFileError(
                f"tensor {strange!r}: its name would be read as that of a set",
                hint="give the set a name",
                tensor=strange,
            )
        dump_model(file, sets[""], form)
        return
    if not sets:
        raise ModelFileError("there are no sets to write")
    named: list[tuple[str, Tensor]] = []
    for name, weights in sets.items():
        if not _SET_NAME.fullmatch(name):
            raise ModelFileError(
                f"{name!r} cannot be the name of a set",
                hint="use letters, digits, '_' and '-', and begin with a letter or '_'; a single set may be named ''",
            )
        if not weights:
            raise ModelFileError(f"set {name!r} has no tensors, and a file cannot store an empty set")
        keys = (f"{name}/{key}" for key in keys_in_file(weights, form))
        named += zip(keys, weights.values(), strict=True)
    dump_tensors(file, named, form)


def keys_in_file(weights: Weights, form: ModelForm) -> list[str]:
    """The keys of the tensors in a file of this form, in their order."""
    return list(weights) if form.keys == "names" else [str(position) for position in range(len(weights))]


def dump_tensors(file: BinaryIO, named: Iterable[tuple[str, Tensor]], form: ModelForm) -> None:
    """Write tensors under these keys to an open file."""
    named = list(named)
    for name, tensor in named:
        if odd := _oddity(tensor):
            what, advice = odd
            raise ModelFileError(
                f"tensor {name!r} is {what}: a model file can only hold dense tensors", hint=advice, tensor=name
            )
    if form.suffix == ".npz":
        dump_npz(file, named)
    elif form.suffix in BARE:
        dump_bare(file, named, form.suffix)
    else:
        dump_safetensors(file, named)


def read_seed_model(
    path: Path, *, buffers: Sequence[str] | None = None, bare: Suffix | None = None
) -> tuple[Weights, ModelForm]:
    """A seed model with its buffers identified (see ``with_buffers``), and the form in which global models are staged.

    In addition to the formats of ``read_model``, it may be a .pt or .pth file of a dictionary of tensors, or of one
    under ``"state_dict"``. Its global models are .npz files with names (.safetensors, if a dtype needs it).

    Args:
        bare: Its global models are staged in this form of one bare array; so is the file, unless it is an .npz.

    Raises:
        ModelFileError: If the file or its metadata cannot be used; pickles of other objects than tensors are refused.
        ConfigError: If one of the patterns in ``buffers`` matches no tensor.
    """
    try:
        weights, form = _seed_model(path, bare)
        if not weights:
            raise ModelFileError(f"{path}: contains no tensors", path=str(path))
    except ModelFileError as error:
        raise ModelFileError(error.message, hint=error.hint or _OF_A_SEED, **error.fields) from error
    return with_buffers(weights, path, patterns=buffers), form


def is_state_dict(path: Path) -> bool:
    """Whether a seed model is a file of ``torch.save()``, by its name or its content."""
    return path.suffix in TORCH_SUFFIXES or is_torch_file(path)


def _seed_model(path: Path, bare: Suffix | None) -> tuple[Weights, ModelForm]:
    if is_state_dict(path):
        weights = Weights(_state_dict(path)).detach()
        form = ModelForm(".npz" if all(can_hold(tensor) for tensor in weights.values()) else ".safetensors")
        return weights, form
    file = MappedFile(path, max_bytes=None)
    if bare is None and _known_suffix(file) is None:
        bare = bare_by_content(file)
    if bare is not None:
        tensors = load_npz(file) if bytes(file.view[:4]) == _ZIP else load_bare(file, bare)
        weights, form = _weights(tensors), ModelForm(bare, "positions")
    else:
        weights, form = read_model(path), detect_form(path)
    return weights, form


def load_tensors(file: MappedFile) -> dict[str, Tensor]:
    """The tensors of a file by their keys."""
    suffix = _suffix_of(file)
    if suffix in BARE:
        return load_bare(file, suffix)
    return load_npz(file) if suffix == ".npz" else load_safetensors(file)


def _weights(tensors: dict[str, Tensor]) -> Weights:
    """The tensors, in the order of their positions if these are the keys."""
    if keys_of(tensors) == "positions":
        tensors = {str(i): tensors[str(i)] for i in range(len(tensors))}
    return Weights(tensors)


def _suffix_of(file: MappedFile) -> Suffix:
    if (suffix := _known_suffix(file)) is not None:
        return suffix
    helpers = "if FEDn's binaryhelper, androidhelper or numpyarrayhelper wrote it, set that one: helper: binaryhelper"
    raise file.error("is neither an .npz nor a .safetensors file", hint=f"{_WRITE_IT}; {helpers}")


def _known_suffix(file: MappedFile) -> Suffix | None:
    """The suffix of a bare array, else the format that the content shows; None if it shows none.

    Raises:
        ModelFileError: It is in a known format that is not read.
    """
    for suffix in BARE:
        if file.path.suffix == suffix:
            return suffix
    start = bytes(file.view[:9])
    if start[:4] in (_ZIP, b"PK\5\6"):
        return ".npz"
    if start[8:] in (b"{", b"") and len(start) >= 8:
        return ".safetensors"
    if start[:4] == b"\x89HDF":
        raise file.error(
            "is an HDF5 file, as written by Keras",
            hint="save the weights: numpy.savez(path, **{str(i): w for i, w in enumerate(model.get_weights())})",
        )
    if start[:1] == b"\x80":
        raise file.error("is a Python pickle, which is never loaded", hint=_WRITE_IT)
    if start[:6] == b"\x93NUMPY":
        raise file.error("is a single .npy array, not an .npz file", hint=_WRITE_IT)
    return None


def _oddity(tensor: Tensor) -> tuple[str, str] | None:
    """The kind of a tensor that is not dense, and how to convert it; None if it is dense."""
    if tensor.is_nested:
        return "nested", "pad it, or save its parts as separate tensors"
    if tensor.is_quantized:
        return "quantised", "save its dequantize()"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})", "save its to_dense()"
    return ("on the device meta, where tensors have no values", "load the model first") if tensor.is_meta else None


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
        raise ModelFileError(f"{path}: contains a {type(loaded).__name__}, not a dictionary of tensors", path=str(path))
    size_bytes = 0
    for name, tensor in loaded.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and not _oddity(tensor)):
            raise ModelFileError(
                f"{path}: entry {name!r:.200} is not a named dense tensor", path=str(path), tensor=str(name)
            )
        size_bytes += tensor.numel() * tensor.element_size()
    if size_bytes > max(_FREE_BYTES, _MAX_EXPANSION * path.stat().st_size):  # such as one number, expanded
        raise ModelFileError(f"{path}: its tensors need {size_bytes} bytes, far more than the file has", path=str(path))
    return dict(loaded)
