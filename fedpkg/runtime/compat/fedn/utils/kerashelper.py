"""The helper for Keras models, with its name in FEDn 0.2 to 0.4."""

from fedn.utils._classes import KerasHelper

__all__ = ["KerasHelper"]
