"""The functions of SciPy that clustering needs (extra ``[clusters]``)."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from fedpkg.errors import ConfigError

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def linkage(distances: Array, method: str) -> Array:
    """The merges of agglomerative clustering, in order: two clusters, their distance, the size.

    Args:
        distances: a symmetric matrix of at least two rows.
    """
    clusters = _of("scipy.cluster.hierarchy")
    above = distances[np.triu_indices(len(distances), 1)]
    return np.asarray(clusters.linkage(above, method))


def check_scipy() -> None:
    """Raises ConfigError: SciPy is not installed."""
    _of("scipy")


def _of(module: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError("finding clusters needs SciPy", hint="pip install 'fedpkg[clusters]'") from error
