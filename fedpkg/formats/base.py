"""The form of a model file: its container, and what its tensors are called in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Suffix = Literal[".npz", ".safetensors"]


@dataclass(frozen=True)
class ModelForm:
    """How a model lies in a file.

    ``keys``: tensors stand under their own names, or under their positions ``"0"`` … ``"n-1"`` (FEDn's numpyhelper).
    """

    suffix: Suffix
    keys: Literal["names", "positions"] = "names"


def keys_of(names: Collection[str]) -> Literal["names", "positions"]:
    """``"positions"`` if the names are exactly 0 … n-1, in any order."""
    return "positions" if names and set(names) == {str(i) for i in range(len(names))} else "names"
