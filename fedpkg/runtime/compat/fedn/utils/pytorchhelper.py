"""The helper for PyTorch models, with its name in FEDn 0.2 to 0.4."""

from fedn.utils._classes import PytorchHelper

__all__ = ["PytorchHelper"]
