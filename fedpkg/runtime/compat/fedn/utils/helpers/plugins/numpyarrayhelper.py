"""The helper for one array as text, with one row per line (FEDn 0.2 to 0.7)."""

from __future__ import annotations

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Helper(HelperBase):
    """For models that are one array of one or two dimensions."""

    name = "numpyarrayhelper"
    suffix = ""

    def increment_average(self, model: Any, model_next: Any, num_examples: float, total_examples: float) -> Any:
        return np.add(model, (num_examples / total_examples) * np.subtract(model_next, model))

    def save(self, model: Any, path: str | None = None) -> str:
        path = path or self.get_tmp_path()
        np.savetxt(path, model)
        return path

    def load(self, path: Any) -> Any:
        return np.loadtxt(path)
