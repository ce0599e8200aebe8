"""FEDn's helpers, each of which reads and writes one format of model files, and detects the one of a package."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

NpzHelper = Literal["numpyhelper", "pytorchhelper", "kerashelper", "splitlearninghelper"]
BareHelper = Literal["binaryhelper", "androidhelper", "numpyarrayhelper"]

HELPERS: tuple[str, ...] = get_args(NpzHelper) + get_args(BareHelper)
# The suffixes of the helpers whose files are one bare array; other files are recognised by their content.
BARE_SUFFIXES: Mapping[str, Literal[".f64", ".f32", ".txt"]] = {
    "binaryhelper": ".f64",
    "androidhelper": ".f32",
    "numpyarrayhelper": ".txt",
}


def mention_helper(texts: Iterable[bytes]) -> bool:
    """Whether scripts contain a word for which `helper_named` looks: most do not, and need not be parsed."""
    words = [word.encode() for word in (*HELPERS, "raw_binary")]
    return any(word in text for text in texts for word in words)


def helper_named(scripts: Iterable[ast.Module]) -> str | None:
    """The one helper that a package's scripts use, in ``get_helper("binaryhelper")`` or an import; None if several.

    The numpyhelper writes files of the binaryhelper if it is called with ``file_type="raw_binary"``.
    """
    found: set[str] = set()
    is_raw = False
    for node in (node for tree in scripts for node in ast.walk(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.Import):
            found.update(alias.name.rpartition(".")[2] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").rpartition(".")[2])
        elif isinstance(node, ast.keyword) and node.arg == "file_type":
            is_raw = is_raw or getattr(node.value, "value", None) == "raw_binary"
    found.intersection_update(HELPERS)
    if is_raw:
        found = found - {"numpyhelper"} | {"binaryhelper"}
    return found.pop() if len(found) == 1 else None
