"""Inputs and results of federated functions ⇄ bytes, as in production.

Algorithms of versions 4 and 5 send plain JSON (`to_json`, `from_json`). Older ones send what `write` and `read` do:
a word, a dot and the content. ``json.`` is JSON, ``pickle.`` is a pickle, and ``typed.`` has the values that such
algorithms send as pickles, in a form that can be read without running code (`typed`). A pickle without a word before it
is the oldest form. Pickles are only read and written with ``allow_pickle``.
"""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

from fedpkg.analytics import typed
from fedpkg.analytics.places import DeserialisationError, NotWritable, SerialisationError, name_of_type, place

FORMS = ("json", "pickle", "typed")
_LONGEST_WORD = 10
_PICKLE = "give --allow-pickle, for code and nodes of your own only: reading a pickle can run any program"
_INSTEAD = {  # what to write for a value of a type that JSON lacks
    "numpy.bool": "bool(…)",
    "numpy.bool_": "bool(…)",
    "numpy.ndarray": ".tolist()",
    "pandas.DataFrame": ".to_json(), and pandas.read_json in the central function",
    "pandas.Series": ".to_dict()",
    "pandas.Index": ".tolist()",
    "torch.Tensor": ".tolist()",
    "set": "sorted(…)",
    "frozenset": "sorted(…)",
    "bytes": "base64.b64encode(…).decode()",
    "datetime.datetime": ".isoformat()",
    "datetime.date": ".isoformat()",
    "pandas.Timestamp": ".isoformat()",
}


class SerialisationWarning(UserWarning):
    """What was written can be read by this program, but not by all others."""


def to_json(value: Any, *, what: str) -> bytes:
    """Write a value as production does with json.dumps: tuples become lists, and keys become text.

    NaN and the infinities are written, too, with a SerialisationWarning, as not every program reads them.

    Args:
        what: For messages: "result of partial_mean".

    Raises:
        SerialisationError: If JSON has no such type; the message has the place in the value.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _json_error(value, what, error) from error
    if "NaN" in text or "Infinity" in text:
        for path, one in _walk(value):
            if isinstance(one, float) and not math.isfinite(one):
                message = f"{what}: {place(path)} is {one}, which is no JSON; Python's json reads it, others may not"
                warnings.warn(message, SerialisationWarning, stacklevel=2)
                break
    return text.encode()


def from_json(data: bytes | bytearray | memoryview, *, what: str) -> Any:
    """Read what `to_json` wrote.

    Raises:
        DeserialisationError: If it is no JSON.
    """
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise DeserialisationError(f"{what}: it is not JSON: {error or 'it is nested too deep'}") from error


def write(value: Any, form: str | None = None, *, what: str, allow_pickle: bool = False) -> bytes:
    """Write a value as algorithms of versions 1 to 3 do.

    Args:
        form: An ``output_format``. "json" is JSON, or what ``to_json()`` of a DataFrame or Series makes. "pickle", or
            None, keeps Python's values: it is written as ``typed``.
        what: For messages: "result of RPC_count".
        allow_pickle: Write a value that ``typed`` does not know as a pickle.

    Raises:
        SerialisationError: If this form has no such type; the message has the place in the value.
    """
    word = "pickle" if form is None else form.lower() if isinstance(form, str) else ""
    if word not in FORMS:
        raise SerialisationError(f"{what}: there is no output_format {form!r:.40}", "write 'json' or 'pickle'")
    if word == "json":
        if name_of_type(value) in ("pandas.DataFrame", "pandas.Series"):
            text: str = value.to_json()
            return b"json." + text.encode()
        return b"json." + to_json(value, what=what)
    try:
        return b"typed." + typed.write(value)
    except NotWritable as error:
        if allow_pickle:
            return _pickled(value, what)
        hint = error.hint or f"send its numbers, texts, arrays or DataFrames; or {_PICKLE}"
        raise SerialisationError(f"{what}: {place(error.path)} {error.reason}", hint) from error


def read(data: bytes | bytearray | memoryview, *, what: str, allow_pickle: bool = False) -> Any:
    """Read what `write` wrote, or what a program of versions 1 to 3 did.

    Args:
        allow_pickle: Read pickles, which can run any program.

    Raises:
        DeserialisationError: If it is damaged, of an unknown form, or a pickle.
    """
    word, content = split(data, what=what)
    if word == "json":
        return from_json(content, what=what)
    if word == "typed":
        try:
            return typed.read(content)
        except ValueError as error:
            raise DeserialisationError(f"{what}: it is damaged: {error}") from error
    if not word and bytes(content[:1]) in (b"{", b"["):
        raise DeserialisationError(f"{what}: its format is not given", "write json. before the JSON")
    if not allow_pickle:
        raise DeserialisationError(f"{what}: it is a pickle, which is not read", _PICKLE)
    try:
        return pickle.loads(content)
    except Exception as error:  # a pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise DeserialisationError(f"{what}: it cannot be read as a pickle: {reason}") from error


def split(data: bytes | bytearray | memoryview, *, what: str) -> tuple[str, memoryview]:
    """The word before the dot, such as "json", and the content after it; without such a word "" and all of it.

    Raises:
        DeserialisationError: If the word is no known format.
    """
    view = memoryview(data).cast("B")
    begin = bytes(view[: 4 * _LONGEST_WORD])
    try:
        text = begin.partition(b".")[0].decode()
    except UnicodeDecodeError:
        return "", view
    if len(text) >= _LONGEST_WORD or b"." not in begin:
        return "", view
    word = text.lower()
    if word not in FORMS:
        raise DeserialisationError(f"{what}: there is no format {word!r}", "the formats are json, pickle and typed")
    return word, view[len(text.encode()) + 1 :]


def _pickled(value: Any, what: str) -> bytes:
    try:
        return b"pickle." + pickle.dumps(value, protocol=4)
    except Exception as error:  # objects can raise anything
        message = f"{what}: it cannot be written as a pickle: {type(error).__name__}: {error}"
        raise SerialisationError(message) from error


# ---- what is wrong with a value, for JSON


def _walk(value: Any) -> Iterator[tuple[list[Any], Any]]:
    """All values inside one, as json.dumps visits them; no deeper than it does, and none inside itself twice."""
    todo: list[tuple[list[Any], Any, frozenset[int]]] = [([], value, frozenset())]
    while todo:
        path, one, above = todo.pop()
        yield path, one
        if not isinstance(one, (dict, list, tuple)) or id(one) in above or len(path) > 1000:
            continue
        inner = list(one.items() if isinstance(one, dict) else enumerate(one))
        todo += [([*path, key], item, above | {id(one)}) for key, item in reversed(inner)]


def _json_error(value: Any, what: str, cause: BaseException) -> SerialisationError:
    above: dict[int, list[Any]] = {}
    if isinstance(cause, TypeError):
        for path, one in _walk(value):
            if one is not None and not isinstance(one, (str, int, float, dict, list, tuple)):
                kind = name_of_type(one)
                instead = _INSTEAD.get(kind) or _instead_of_number(one)
                message = f"{what}: {place(path)} is of the type {kind}; JSON has no such type"
                return SerialisationError(message, f"write {instead}" if instead else "")
            for key in one if isinstance(one, dict) else ():
                if key is not None and not isinstance(key, (str, int, float)):
                    message = f"{what}: {place(path)} has the key {key!r:.60} of the type {name_of_type(key)}"
                    return SerialisationError(f"{message}; keys of JSON are text", "write str(…)")
    else:
        for path, one in _walk(value):
            if isinstance(one, (dict, list, tuple)):
                first = above.setdefault(id(one), path)
                if path[: len(first)] == first and path != first:
                    return SerialisationError(f"{what}: {place(path)} is inside itself, which JSON cannot express")
    return SerialisationError(f"{what}: it cannot be written as JSON: {cause or 'it is nested too deep'}")


def _instead_of_number(value: Any) -> str:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return {"i": "int(…)", "u": "int(…)", "f": "float(…)"}.get(kind, "") if not getattr(value, "shape", 1) else ""
