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


def add_products(total: Array, rows: Array) -> Array:
    """The upper triangle of ``total + rows rows^T``; ``total``, which is overwritten, has the order of Fortran."""
    made = _of("scipy.linalg.blas").dsyrk(1.0, rows.T, beta=1.0, c=total, trans=1, overwrite_c=1)
    return np.asarray(made)


def components(are_linked: np.ndarray[Any, np.dtype[np.bool_]]) -> list[list[int]]:
    """The connected components of a graph that have at least two nodes."""
    sparse = _of("scipy.sparse")
    number, labels = _of("scipy.sparse.csgraph").connected_components(sparse.csr_matrix(are_linked), directed=False)
    found: list[list[int]] = [[] for _ in range(number)]
    for node, label in enumerate(labels.tolist()):
        found[label].append(node)
    return [nodes for nodes in found if len(nodes) > 1]


def check_scipy() -> None:
    """Raises ConfigError: SciPy is not installed."""
    _of("scipy")


def _of(module: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError("finding clusters needs SciPy", hint="pip install 'fedpkg[clusters]'") from error
