"""The helper for PyTorch models (FEDn 0.5 to 0.7): arrays under the names of the state_dict, in an npz file."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase
from fedn.utils.helpers.plugins.numpyhelper import write_npz

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Helper(HelperBase):
    """For models that are dictionaries of arrays."""

    name = "pytorchhelper"

    def increment_average(
        self, model: Mapping[str, Any], model_next: Mapping[str, Any], num_examples: float, total_examples: float
    ) -> OrderedDict[str, Any]:
        if model.keys() != model_next.keys():
            raise ValueError("the models differ: only one has %s" % sorted(model.keys() ^ model_next.keys()))
        share = num_examples / total_examples
        return OrderedDict((name, x + share * (model_next[name] - x)) for name, x in model.items())

    def save(self, model: Mapping[str, Any], path: str | None = None) -> str:
        path = path or self.get_tmp_path()
        write_npz(path, model)
        return path

    def load(self, path: Any) -> OrderedDict[str, Any]:
        with np.load(path, allow_pickle=False) as arrays:
            return OrderedDict((name, arrays[name]) for name in arrays.files)
