"""The helper for one array, as FEDn 0.2 to 0.4 had it."""

from fedn.utils._classes import NumpyArrayHelper

__all__ = ["NumpyArrayHelper"]
