"""The helper classes of FEDn 0.1 to 0.4, based on later ones: other method names, unweighted averages."""

from __future__ import annotations

import io
import os

from fedn.utils.helpers.plugins import kerashelper, numpyarrayhelper, pytorchhelper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Old:
    """The methods that changed in 0.5. In the bases of a class, it precedes the helper of the same format."""

    def increment_average(self, model: Any, model_next: Any, n: int) -> Any:
        """The mean of ``n`` models; ``model`` is the mean of all except ``model_next``."""
        return super().increment_average(model, model_next, 1, n)  # type: ignore[misc]

    def save_model(self, model: Any, path: str | None = None) -> Any:
        return self.save(model, path)  # type: ignore[attr-defined]

    def load_model(self, path: Any = "weights.npz") -> Any:
        return self.load(path)  # type: ignore[attr-defined]

    def load_model_from_BytesIO(self, model_bytesio: bytes) -> Any:
        """Read a model from bytes."""
        path = self.get_tmp_path()  # type: ignore[attr-defined]
        try:
            with open(path, "wb") as file:
                file.write(model_bytesio)
            return self.load(path)  # type: ignore[attr-defined]
        finally:
            os.unlink(path)

    def serialize_model_to_BytesIO(self, model: Any) -> io.BytesIO:
        """A file in memory with the bytes of the model, positioned at its end."""
        path = self.save_model(model)
        try:
            stream = io.BytesIO()
            with open(path, "rb") as file:
                stream.write(file.read())
            return stream
        finally:
            os.unlink(path)


class PytorchHelper(_Old, pytorchhelper.Helper):
    """For dictionaries of arrays."""


class KerasHelper(_Old, kerashelper.Helper):
    """For lists of arrays."""


class NumpyArrayHelper(_Old, numpyarrayhelper.Helper):
    """For one array, as text."""
