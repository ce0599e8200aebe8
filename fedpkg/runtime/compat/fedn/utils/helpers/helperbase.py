"""The base of all helpers."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HelperBase(ABC):
    """Reads, writes and averages models of one format."""

    name = ""
    suffix = ".npz"  # suffix of temporary files

    @abstractmethod
    def increment_average(self, model: Any, model_next: Any, num_examples: float, total_examples: float) -> Any:
        """The mean of all models so far; ``model`` is the mean of the models before ``model_next``."""

    @abstractmethod
    def save(self, model: Any, path: str | None = None) -> str:
        """Write a model to ``path`` or to a temporary file; returns the path."""

    @abstractmethod
    def load(self, path: Any) -> Any:
        """Read a model from a path or an open file."""

    def get_tmp_path(self, suffix: str | None = None) -> str:
        """The path of a new, empty file for a model."""
        handle, path = tempfile.mkstemp(suffix=self.suffix if suffix is None else suffix)
        os.close(handle)
        return path
