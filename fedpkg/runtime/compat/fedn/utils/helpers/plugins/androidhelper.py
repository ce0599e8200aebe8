"""The helper for packed float32 values (FEDn 0.8 and later, for clients on Android)."""

from __future__ import annotations

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Helper(HelperBase):
    """For models that are one vector, which is loaded as float64."""

    name = "androidhelper"
    suffix = ".bin"

    def increment_average(self, model: Any, model_next: Any, num_examples: float, total_examples: float) -> Any:
        return np.add(model, (num_examples / total_examples) * np.subtract(model_next, model))

    def save(self, weights: Any, path: str | None = None) -> str:
        path = path or self.get_tmp_path()
        np.asarray(weights, dtype=np.float32).tofile(path)
        return path

    def load(self, path: Any) -> Any:
        return np.fromfile(path, dtype=np.float32).astype(np.float64)
