"""The helper of FEDn 0.1 for whole Keras models, which says why it cannot be."""

from __future__ import annotations


class KerasSequentialHelper:
    """Whole Keras models in .h5 files held code as well as weights: they are not read."""

    def __init__(self, *_arguments: object, **_keywords: object) -> None:
        raise NotImplementedError(
            "KerasSequentialHelper saved whole Keras models (.h5), which fedpkg does not read. Save the weights: "
            "from fedn.utils.kerashelper import KerasHelper; KerasHelper().save_model(model.get_weights(), path)"
        )
