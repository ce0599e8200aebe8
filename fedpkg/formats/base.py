"""The form of a model file: its container format, and the names of the tensors in it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

Suffix = Literal[".npz", ".safetensors", ".f64", ".f32", ".txt"]
SUFFIXES: tuple[Suffix, ...] = get_args(Suffix)
SEED_SUFFIXES = (".npz", ".safetensors")  # of the files that `build` may be asked for, or write by itself
BARE: tuple[Suffix, ...] = (".f64", ".f32", ".txt")
"""The forms of one bare array, known only by the suffix; all others are recognised by their content."""


@dataclass(frozen=True)
class ModelForm:
    """How a model is stored in a file.

    ``keys``: tensors are stored under their names, or under their positions ``"0"`` … ``"n-1"`` (FEDn's numpyhelper).
    """

    suffix: Suffix
    keys: Literal["names", "positions"] = "names"

    @property
    def of_state(self) -> ModelForm:
        """The form of a strategy's own weights: under their names, never as one bare array."""
        return ModelForm(".npz" if self.suffix in BARE else self.suffix)


WITHOUT_MODEL = ModelForm(".npz")  # of sessions whose strategy has no model


def keys_of(names: Collection[str]) -> Literal["names", "positions"]:
    """``"positions"`` if the names are exactly 0 … n-1, in any order."""
    return "positions" if names and set(names) == {str(i) for i in range(len(names))} else "names"
