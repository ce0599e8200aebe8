"""Named tensors and the core operations on them."""

from fedpkg.weights.averaging import average_gradients, average_parameters, average_parameters_weighted
from fedpkg.weights.records import Records
from fedpkg.weights.weights import Weights

__all__ = ["Records", "Weights", "average_gradients", "average_parameters", "average_parameters_weighted"]
