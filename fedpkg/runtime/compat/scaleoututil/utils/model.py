"""FEDn's model in memory under the name of its successor."""

from fedn.utils.model import FednModel as ScaleoutModel

__all__ = ["ScaleoutModel"]


def __getattr__(name: str) -> object:
    if name == "ScaleoutModelBuilder":  # an ImportError, because the message of any other error would be lost
        raise ImportError(
            "fedpkg has no ScaleoutModelBuilder: a callback may return the arrays, or "
            "ScaleoutModel.from_training_model(arrays, helper)"
        )
    raise AttributeError("module 'scaleoututil.utils.model' has no %r" % name)
