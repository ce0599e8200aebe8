"""FEDn's model in memory under the name of its successor."""

from fedn.utils.model import FednModel as ScaleoutModel

__all__ = ["ScaleoutModel"]
