"""The helper for Keras models, as FEDn 0.2 to 0.4 had it."""

from fedn.utils._classes import KerasHelper

__all__ = ["KerasHelper"]
