"""What the code says of parameters, keys and fields: types, defaults and descriptions, from signatures and docstrings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

_ARGS = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ARG = re.compile(r"^    (\w+): (.*(?:\n     +.*)*)", re.MULTILINE)


def arguments(doc: str) -> dict[str, str]:
    """Names and descriptions of the section ``Args:`` of a docstring."""
    section = _ARGS.search(doc)
    return {} if section is None else {name: " ".join(text.split()) for name, text in _ARG.findall(section[1])}


def arguments_of(made: Any) -> dict[str, str]:
    """Descriptions of the parameters of a class or a function."""
    return arguments(inspect.getdoc(made) or "")


def kind(annotation: Any) -> str:
    """What values of a type are, in words."""
    from fedpkg.config_shape import describe

    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "a section"
    return describe(annotation)


def default(value: Any) -> str:
    """A default as a run.yaml would write it."""
    if isinstance(value, (tuple, frozenset)):
        value = list(value)
    if isinstance(value, msgspec.Struct):
        return ""
    return json.dumps(value, ensure_ascii=False, default=str)


def field_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    if field.default is not msgspec.NODEFAULT:
        return default(field.default)
    made = field.default_factory()
    return default(made) if isinstance(made, (dict, list)) else ""


def fields(struct: type) -> Mapping[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}
