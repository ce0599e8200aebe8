"""A model in memory, with the interfaces of all versions of FEDn and Scaleout."""

from __future__ import annotations

import hashlib
import io
import shutil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class FednModel(io.BytesIO):
    """The bytes of a model's file.

    It is a BytesIO (callbacks up to FEDn 0.33), returns its arrays through a helper (later callbacks, and Scaleout's),
    and iterates over its arrays.
    """

    has_training_model, has_inference_model = True, False

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(data)
        self.model_id: str | None = None
        self.helper: Any = None
        self.metadata: dict[str, Any] = {}

    def get_model_params(self, helper: Any = None) -> Any:
        """The parameters, read by the helper."""
        helper = helper or self.helper
        if helper is None:
            raise ValueError("reading a model's parameters needs a helper: get_model_params(get_helper('numpyhelper'))")
        return helper.load(self.get_stream())

    get_training_model = get_model_params

    def get_stream(self) -> io.BytesIO:
        return io.BytesIO(self.getvalue())

    get_training_model_stream = get_stream

    def get_stream_unsafe(self) -> FednModel:
        self.seek(0)
        return self

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.getvalue()).hexdigest()

    def verify_checksum(self, checksum: str | None) -> bool:
        return checksum is None or checksum == self.checksum

    def save_to_file(self, file_path: str) -> None:
        with open(file_path, "wb") as file:
            file.write(self.getvalue())

    @classmethod
    def from_model_params(cls, model_params: Any, helper: Any = None, metadata: Any = None) -> FednModel:
        stream = io.BytesIO()
        (helper or _helper_for(model_params)).save(model_params, stream)
        model = cls(stream.getvalue())
        model.helper = helper
        model.metadata = dict(metadata or {})
        return model

    from_training_model = from_model_params

    @classmethod
    def from_file(cls, file_path: str) -> FednModel:
        with open(file_path, "rb") as file:
            return cls(file.read())

    @classmethod
    def from_stream(cls, stream: Any) -> FednModel:
        return cls(stream.read())

    def _arrays(self) -> list[Any]:
        import numpy as np

        with np.load(self.get_stream(), allow_pickle=False) as arrays:
            return [arrays[name] for name in arrays.files]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._arrays())

    def __getitem__(self, position: Any) -> Any:
        return self._arrays()[position]

    def __len__(self) -> int:
        return len(self._arrays())

    def __bool__(self) -> bool:
        return True


def write_model(model: Any, path: str) -> None:
    """Write a model returned by a callback: a file in memory, bytes, a list or dictionary of arrays, or a path."""
    if isinstance(model, str):
        shutil.copyfile(model, path)
        return
    with open(path, "wb") as file:
        if hasattr(model, "getvalue"):
            file.write(model.getvalue())
        elif hasattr(model, "read"):
            model.seek(0)
            shutil.copyfileobj(model, file)
        elif isinstance(model, (bytes, bytearray, memoryview)):
            file.write(model)
        elif isinstance(model, (list, tuple, dict)):
            _helper_for(model).save(model, file)
        else:
            raise SystemExit(
                "the train callback returned a model of the type %s; it must be a file in memory, bytes, a path or a "
                "list of arrays" % type(model).__name__
            )


def _helper_for(parameters: Any) -> Any:
    from fedn.utils.helpers.helpers import get_helper

    return get_helper("pytorchhelper" if isinstance(parameters, dict) else "numpyhelper")
