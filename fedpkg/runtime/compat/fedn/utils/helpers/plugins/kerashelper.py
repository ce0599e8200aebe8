"""The helper for Keras models (FEDn 0.5 to 0.7): the list of ``model.get_weights()`` in an npz file."""

from __future__ import annotations

from fedn.utils.helpers.plugins import numpyhelper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Helper(numpyhelper.Helper):
    """For the lists of arrays that Keras returns."""

    name = "kerashelper"

    def average_weights(self, weights: Sequence[Sequence[Any]]) -> list[Any]:
        """The unweighted mean of models, array by array."""
        return [sum(arrays[1:], arrays[0]) / len(arrays) for arrays in zip(*weights)]

    def set_weights(self, weights_: Any, weights: Any) -> None:
        """Do nothing, as in FEDn."""

    def get_weights(self, weights: Any) -> Any:
        return weights
