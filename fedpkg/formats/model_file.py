"""The one door to model files: reads and writes them in any form, with one set of weights or several named ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.files import atomic_write
from fedpkg.formats.bare import dump_bare, load_bare
from fedpkg.formats.base import BARE, ModelForm, Suffix, keys_of
from fedpkg.formats.buffers import with_buffers
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.npz import can_hold, dump_npz, load_npz, npz_names
from fedpkg.formats.safetensors import dump_safetensors, load_safetensors, safetensors_names
from fedpkg.formats.torch_file import load_torch
from fedpkg.weights.weights import Weights

_ZIP = b"PK\3\4"
TORCH_SUFFIXES = (".pt", ".pth")
_FREE_BYTES, _MAX_EXPANSION = 64 << 20, 16  # tensors of a .pt file may share their numbers, with others and themselves
_SET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def read_model(path: Path, *, max_bytes: int | None = None) -> Weights:
    """The tensors of an .npz or .safetensors file (told by its content), mapped where possible, never unpickled.

    Bare arrays have nothing in them that would tell: see ``bare.py`` for the suffixes that do.

    Tensors under positions come in the order 0 … n-1, others in the file's. They may be written to: the file stays as
    it is. It must not be cut short while they live.

    Raises:
        ModelFileError: the file is damaged, not of these formats, or holds more than ``max_bytes`` of tensors.
    """
    return _weights(load_tensors(MappedFile(path, max_bytes=max_bytes)))


def read_sets(path: Path, *, max_bytes: int | None = None) -> dict[str, Weights]:
    """The named weight sets of a file, mapped as ``read_model`` does, in the order in which they begin.

    The tensor ``fc.weight`` of the set ``x`` has the key ``x/fc.weight``. A file without ``/`` in any key is one set,
    named ``""``.

    Raises:
        ModelFileError: as ``read_model``; or a key names no set, though others do.
    """
    file = MappedFile(path, max_bytes=max_bytes)
    tensors = load_tensors(file)
    if not any("/" in key for key in tensors):
        return {"": _weights(tensors)}
    sets: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, slash, tensor_name = key.partition("/")
        if not (slash and _SET_NAME.fullmatch(name)):
            raise file.error("its key names no set", key, hint="the tensor 'w' of the set 'x' has the key 'x/w'")
        sets.setdefault(name, {})[tensor_name] = tensor
    return {name: _weights(tensors) for name, tensors in sets.items()}


def detect_form(path: Path) -> ModelForm:
    """The form of a model file, by its content.

    Raises:
        ModelFileError: as ``read_model`` does for the file's directory; tensors are not looked at.
    """
    file = MappedFile(path, max_bytes=None)
    suffix = _suffix_of(file)
    if suffix in BARE:
        return ModelForm(suffix, "positions")
    return ModelForm(suffix, keys_of(names_in(file)))


def names_in(file: MappedFile) -> list[str]:
    """The keys of a file's tensors, in its order; tensors are not looked at."""
    return npz_names(file) if _suffix_of(file) == ".npz" else safetensors_names(file)


def write_model(path: Path, weights: Weights, form: ModelForm, *, durable: bool = False) -> None:
    """Write a model file, whole or not at all; with ``durable`` it is on disk on return.

    Raises:
        ModelFileError: the form cannot hold a tensor, or the file cannot be written.
    """
    write_whole(path, lambda file: dump_model(file, weights, form), durable=durable)


def write_sets(path: Path, sets: Mapping[str, Weights], form: ModelForm, *, durable: bool = False) -> None:
    """Write named weight sets to one file, whole or not at all; the inverse of ``read_sets``.

    Raises:
        ModelFileError: as ``write_model``; or the sets could not be read back as they are.
    """
    write_whole(path, lambda file: dump_sets(file, sets, form), durable=durable)


def write_whole(path: Path, dump: Callable[[BinaryIO], None], *, durable: bool) -> None:
    """Write a file, whole or not at all.

    Raises:
        ModelFileError: what ``dump`` raises, with the path; or the file cannot be written.
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
    """Write a model to an open file, from its start; the same model makes the same bytes.

    ``file`` needs only ``write``, so it may be a wrapper that digests what passes.
    """
    dump_tensors(file, zip(keys_in_file(weights, form), weights.values(), strict=True), form)


def dump_sets(file: BinaryIO, sets: Mapping[str, Weights], form: ModelForm) -> None:
    """Write named weight sets to an open file, as ``dump_model`` does; positions count within each set."""
    if list(sets) == [""]:
        if strange := next((key for key in keys_in_file(sets[""], form) if "/" in key), None):
            raise ModelFileError(
                f"tensor {strange!r}: its name would be read as that of a set", hint="name the set", tensor=strange
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
                hint="letters, digits, '_' and '-', beginning with a letter or '_'; one set alone may be named ''",
            )
        if not weights:
            raise ModelFileError(f"set {name!r} holds no tensors, so a file cannot tell of it")
        keys = (f"{name}/{key}" for key in keys_in_file(weights, form))
        named += zip(keys, weights.values(), strict=True)
    dump_tensors(file, named, form)


def keys_in_file(weights: Weights, form: ModelForm) -> list[str]:
    """What the tensors are called in a file of this form, in their order."""
    return list(weights) if form.keys == "names" else [str(position) for position in range(len(weights))]


def dump_tensors(file: BinaryIO, named: Iterable[tuple[str, Tensor]], form: ModelForm) -> None:
    """Write tensors under these keys to an open file."""
    named = list(named)
    for name, tensor in named:
        if odd := _oddity(tensor):
            what, advice = odd
            raise ModelFileError(
                f"tensor {name!r} is {what}: a model file holds dense tensors", hint=advice, tensor=name
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
    """A seed model, its buffers told apart (see ``with_buffers``), and the form in which its global models are staged.

    Besides the formats of ``read_model``, a .pt or .pth file that holds a dictionary of tensors, or one under
    ``"state_dict"``. It is staged as an .npz file with names (.safetensors, if a dtype needs it).

    Args:
        bare: its global models are staged in this form of one bare array; so is the file, unless it is an .npz.

    Raises:
        ModelFileError: the file or its metadata cannot be used; a pickle that holds more than tensors is not loaded.
        ConfigError: one of the patterns in ``buffers`` matches no tensor.
    """
    if path.suffix in TORCH_SUFFIXES:
        weights = Weights(_state_dict(path)).detach()
        form = ModelForm(".npz" if all(can_hold(tensor) for tensor in weights.values()) else ".safetensors")
    elif bare is not None:
        file = MappedFile(path, max_bytes=None)
        tensors = load_npz(file) if bytes(file.view[:4]) == _ZIP else load_bare(file, bare)
        weights, form = _weights(tensors), ModelForm(bare, "positions")
    else:
        weights, form = read_model(path), detect_form(path)
    if not weights:
        raise ModelFileError(f"{path}: holds no tensors", path=str(path))
    return with_buffers(weights, path, patterns=buffers), form


def load_tensors(file: MappedFile) -> dict[str, Tensor]:
    """The tensors of a file by their keys."""
    suffix = _suffix_of(file)
    if suffix in BARE:
        return load_bare(file, suffix)
    return load_npz(file) if suffix == ".npz" else load_safetensors(file)


def _weights(tensors: dict[str, Tensor]) -> Weights:
    """In the order of positions, where tensors stand under theirs."""
    if keys_of(tensors) == "positions":
        tensors = {str(i): tensors[str(i)] for i in range(len(tensors))}
    return Weights(tensors)


def _suffix_of(file: MappedFile) -> Suffix:
    for suffix in BARE:
        if file.path.suffix == suffix:
            return suffix
    start = bytes(file.view[:9])
    if start[:4] in (_ZIP, b"PK\5\6"):
        return ".npz"
    if start[8:] in (b"{", b"") and len(start) >= 8:
        return ".safetensors"
    hint = "write it with numpy.savez() or safetensors.torch.save_file()"
    if start[:4] == b"\x89HDF":
        raise file.error(
            "is an HDF5 file, such as Keras writes its models to",
            hint="save the weights: numpy.savez(path, **{str(i): w for i, w in enumerate(model.get_weights())})",
        )
    if start[:1] == b"\x80":
        raise file.error("is a Python pickle, which is never loaded", hint=hint)
    if start[:6] == b"\x93NUMPY":
        raise file.error("is a single .npy array, not an .npz file", hint=hint)
    helpers = "if FEDn's binaryhelper, androidhelper or numpyarrayhelper wrote it, name that one: helper: binaryhelper"
    raise file.error("is neither an .npz nor a .safetensors file", hint=f"{hint}; {helpers}")


def _oddity(tensor: Tensor) -> tuple[str, str] | None:
    """What a tensor is that is not numbers in memory, one for each place of its shape; and how to make it that."""
    if tensor.is_nested:
        return "nested", "pad it, or save its parts as tensors of their own"
    if tensor.is_quantized:
        return "quantised", "save its dequantize()"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})", "save its to_dense()"
    return ("on the device meta, where there are no numbers", "load the model first") if tensor.is_meta else None


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
    size_bytes = 0
    for name, tensor in loaded.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and not _oddity(tensor)):
            raise ModelFileError(
                f"{path}: entry {name!r:.200} is not a named dense tensor", path=str(path), tensor=str(name)
            )
        size_bytes += tensor.numel() * tensor.element_size()
    if size_bytes > max(_FREE_BYTES, _MAX_EXPANSION * path.stat().st_size):  # one number, expanded to a terabyte
        raise ModelFileError(f"{path}: its tensors need {size_bytes} bytes, far more than it has", path=str(path))
    return dict(loaded)
