"""The helper for Keras weights, by its name in FEDn 0.1 (which pickled them; this one does not)."""

from fedn.utils._classes import KerasHelper as KerasWeightsHelper

__all__ = ["KerasWeightsHelper"]
