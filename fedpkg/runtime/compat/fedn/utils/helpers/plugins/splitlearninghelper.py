"""The helper for split learning (FEDn 0.28 and later): embeddings or gradients by client, in an npz file."""

from __future__ import annotations

import numpy as np

from fedn.utils.helpers.helperbase import HelperBase
from fedn.utils.helpers.plugins.numpyhelper import write_npz

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Helper(HelperBase):
    """For dictionaries with one array for each client."""

    name = "splitlearninghelper"

    def increment_average(
        self,
        model: Mapping[str, Any],
        model_next: Mapping[str, Any],
        num_examples: float = 0,
        total_examples: float = 0,
    ) -> dict[str, Any]:
        """The arrays of the clients of both, without averaging."""
        return {**model, **model_next}

    def save(self, data_dict: Mapping[str, Any], path: str | None = None, file_type: str = "npz") -> str:
        self.check_supported_file_type(file_type)
        path = path or self.get_tmp_path()
        with open(path, "wb") as file:  # an open file, so that no suffix is added to its name
            write_npz(file, {str(name): array for name, array in data_dict.items()})
        return path

    def load(self, path: Any, file_type: str = "npz") -> dict[str, Any]:
        self.check_supported_file_type(file_type)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def check_supported_file_type(self, file_type: str) -> bool:
        if file_type != "npz":
            raise ValueError("File type %r is not supported; this is: npz" % file_type)
        return True
