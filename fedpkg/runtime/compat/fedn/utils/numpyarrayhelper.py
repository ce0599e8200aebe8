"""The helper for one array, with its name in FEDn 0.2 to 0.4."""

from fedn.utils._classes import NumpyArrayHelper

__all__ = ["NumpyArrayHelper"]
