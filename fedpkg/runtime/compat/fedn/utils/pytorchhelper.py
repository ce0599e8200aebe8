"""The helper for PyTorch models, as FEDn 0.2 to 0.4 had it."""

from fedn.utils._classes import PytorchHelper

__all__ = ["PytorchHelper"]
