"""The helper for one array, by its name in FEDn 0.1."""

from fedn.utils._classes import NumpyArrayHelper as NumpyHelper

__all__ = ["NumpyHelper"]
