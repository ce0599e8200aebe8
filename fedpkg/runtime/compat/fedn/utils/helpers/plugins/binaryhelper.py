"""The helper for bare float64 values (FEDn 0.9.4 and later, for clients in C++)."""

from __future__ import annotations

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase
from fedn.utils.helpers.plugins.numpyhelper import write_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Helper(HelperBase):
    """For models whose arrays are saved consecutively and loaded as one vector."""

    name = "binaryhelper"
    suffix = ".bin"

    def increment_average(self, model: Any, model_next: Any, num_examples: float, total_examples: float) -> Any:
        return np.add(model, (num_examples / total_examples) * np.subtract(model_next, model))

    def save(self, model: Any, path: str | None = None) -> str:
        path = path or self.get_tmp_path()
        write_raw(path, model)
        return path

    def load(self, path: Any) -> Any:
        return np.fromfile(path, dtype=np.float64)
