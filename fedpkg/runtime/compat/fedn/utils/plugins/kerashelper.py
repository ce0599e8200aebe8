"""The kerashelper at the path of FEDn 0.5 to 0.7."""

from fedn.utils.helpers.plugins.kerashelper import Helper

__all__ = ["Helper"]
