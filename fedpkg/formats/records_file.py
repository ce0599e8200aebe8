"""Files of records: named sets of tensors and a JSON document, in the format of model files.

docs/reference/records.md defines their layout.

The tensor ``t`` of the set ``s`` has the key ``s/t``, both names percent-encoded, so that they may be any text. Keys
that begin with ``%`` but encode nothing have a special meaning: ``%json`` is the document in UTF-8 as uint8, and
``s/%empty`` stands for a set ``s`` without tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

import torch
from torch import Tensor

from fedpkg.errors import ModelFileError
from fedpkg.formats.base import BARE, ModelForm
from fedpkg.formats.mapped import MappedFile
from fedpkg.formats.metadata import dump_json, parse_json
from fedpkg.formats.model_file import dump_tensors, load_tensors, names_in, write_whole
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

MOST_TENSORS = 1 << 16
_JSON, _EMPTY = "%json", "%empty"
_ENCODED = re.compile(r"(?:[^%/]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_HINT = "docs/reference/records.md defines the keys of the tensors in a records file"


def write_records(path: Path, records: Records, form: ModelForm, *, durable: bool = False) -> None:
    """Write records to one file atomically. Equal records give equal bytes.

    Raises:
        ModelFileError: If the format does not support a tensor, a name is not valid Unicode, the data are not JSON or
            too big, or the file cannot be written.
    """
    write_whole(path, lambda file: dump_records(file, records, form), durable=durable)


def dump_records(file: BinaryIO, records: Records, form: ModelForm) -> None:
    """Write records to an open file, as `fedpkg.formats.model_file.dump_model` does."""
    dump_tensors(file, _named(records, form), form)


def read_records(path: Path, *, max_bytes: int | None = None) -> Records:
    """The records in a file, mapped as by `fedpkg.formats.model_file.read_model`; their values are not read.

    Raises:
        ModelFileError: As ``read_model``; or if the file contains other tensors than those of records.
    """
    return records_in(MappedFile(path, max_bytes=max_bytes))


def records_in(file: MappedFile) -> Records:
    """The records in a mapped file, or in a part of one; see `read_records`."""
    names = _names(file, names_in(file))  # before any tensor is read
    tensors = load_tensors(file)
    sets: dict[str, dict[str, Tensor]] = {}
    for key, (name, tensor_name) in names.items():
        one = sets.setdefault(name, {})
        if tensor_name is not None:
            one[tensor_name] = tensors[key]
    data = None
    if (text := tensors.get(_JSON)) is not None:
        if text.dtype != torch.uint8 or text.ndim != 1:
            raise file.error("is not a JSON document: it must be one-dimensional, of dtype uint8", _JSON, hint=_HINT)
        data = parse_json(text.numpy().tobytes(), f"{file.path}: tensor '{_JSON}'")
    return Records({name: Weights(one) for name, one in sets.items()}, data)


def is_records(path: Path) -> bool:
    """Whether a file looks like records, judging by its keys: one is that of a JSON document."""
    try:
        return _JSON in names_in(MappedFile(path, max_bytes=None))
    except ModelFileError:
        return False


def _named(records: Records, form: ModelForm) -> Iterator[tuple[str, Tensor]]:
    if form.suffix in BARE:
        raise ModelFileError(
            f"records cannot be sent in a run whose model files are bare arrays ({form.suffix})",
            hint="use a package without the helper for bare arrays",
        )
    if sum(max(len(one), 1) for one in records.sets.values()) >= MOST_TENSORS:
        raise ModelFileError(f"records can have fewer than {MOST_TENSORS} tensors; these have more")
    yield _JSON, torch.frombuffer(bytearray(dump_json(records.data)), dtype=torch.uint8)
    for name, weights in records.sets.items():
        if not weights:
            yield f"{_encoded(name)}/{_EMPTY}", torch.empty(0, dtype=torch.uint8)
        for tensor_name, tensor in weights.items():
            yield f"{_encoded(name)}/{_encoded(tensor_name)}", tensor


def _encoded(name: str) -> str:
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{name!r:.100} cannot be a name in records: it is not valid Unicode") from error


def _names(file: MappedFile, keys: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """The names of set and tensor by key; for an empty set, None in place of a tensor's name.

    Raises:
        ModelFileError: If a key is not one of records, or means the same as another one.
    """
    found: dict[str, tuple[str, str | None]] = {}
    for key in keys:
        if len(found) == MOST_TENSORS:
            raise file.error(f"contains more than {MOST_TENSORS} tensors")
        if key != _JSON:
            found[key] = _name(file, key)
    if len(set(found.values())) < len(found):
        raise file.error("two of its keys mean the same tensor", hint=_HINT)
    return found


def _name(file: MappedFile, key: str) -> tuple[str, str | None]:
    name, slash, tensor_name = key.partition("/")
    is_empty = tensor_name == _EMPTY
    if not slash or not all(_ENCODED.fullmatch(part) for part in ((name,) if is_empty else (name, tensor_name))):
        raise file.error("its key is not that of a records file", key, hint=_HINT)
    try:
        return unquote(name, errors="strict"), None if is_empty else unquote(tensor_name, errors="strict")
    except UnicodeDecodeError as error:
        raise file.error("its key does not encode UTF-8 text", key, hint=_HINT) from error
