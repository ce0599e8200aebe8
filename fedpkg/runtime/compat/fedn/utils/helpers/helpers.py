"""The functions that packages call: for helpers of model files, metadata beside a model, and metrics."""

from __future__ import annotations

import importlib
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fedn.utils.helpers.helperbase import HelperBase

HELPERS = (
    *("numpyhelper", "pytorchhelper", "kerashelper", "numpyarrayhelper"),
    *("binaryhelper", "androidhelper", "splitlearninghelper"),
)


def get_helper(helper_module_name: str) -> HelperBase:
    """The helper of that name. Raises ModuleNotFoundError for unknown names, like FEDn."""
    if helper_module_name not in HELPERS:
        raise ModuleNotFoundError(
            "FEDn has no helper %r; its helpers are: %s" % (helper_module_name, ", ".join(HELPERS)),
            name="fedn.utils.helpers.plugins.%s" % helper_module_name,
        )
    helper: HelperBase = importlib.import_module("fedn.utils.helpers.plugins." + helper_module_name).Helper()
    return helper


def save_metadata(metadata: dict[str, Any], filename: str) -> None:
    """Write metadata (``num_examples`` …) to ``<filename>-metadata``, beside the model ``filename``."""
    with open(os.fspath(filename) + "-metadata", "w") as file:
        json.dump(metadata, file)


def load_metadata(filename: str) -> dict[str, Any]:
    """The metadata beside the model ``filename``; for an input model, the session's settings for clients."""
    with open(os.fspath(filename) + "-metadata") as file:
        metadata: dict[str, Any] = json.load(file)
    return metadata


def save_metrics(metrics: dict[str, Any], filename: str) -> None:
    """Write metrics to the file ``filename``."""
    with open(filename, "w") as file:
        json.dump(metrics, file)
