"""The helper of FEDn 0.1 for whole Keras models, which explains why it is not supported."""

from __future__ import annotations


class KerasSequentialHelper:
    """Not supported: .h5 files of whole Keras models contain code as well as weights."""

    def __init__(self, *_arguments: object, **_keywords: object) -> None:
        raise NotImplementedError(
            "KerasSequentialHelper saved whole Keras models (.h5), which fedpkg does not read. Save the weights: "
            "from fedn.utils.kerashelper import KerasHelper; KerasHelper().save_model(model.get_weights(), path)"
        )
