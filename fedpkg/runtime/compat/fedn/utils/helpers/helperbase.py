"""What all helpers have in common."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HelperBase(ABC):
    """Reads, writes and averages models of one form."""

    name = ""
    suffix = ".npz"  # of temporary files

    @abstractmethod
    def increment_average(self, model: Any, model_next: Any, num_examples: float, total_examples: float) -> Any:
        """The mean of all models so far, when ``model`` is that of the ones before ``model_next``."""

    @abstractmethod
    def save(self, model: Any, path: str | None = None) -> str:
        """Write a model to ``path``, or to a temporary file; the path."""

    @abstractmethod
    def load(self, path: Any) -> Any:
        """Read a model from a path or an open file."""

    def get_tmp_path(self, suffix: str | None = None) -> str:
        """A new, empty file for a model."""
        handle, path = tempfile.mkstemp(suffix=self.suffix if suffix is None else suffix)
        os.close(handle)
        return path
