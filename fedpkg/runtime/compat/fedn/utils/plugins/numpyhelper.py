"""The numpyhelper where FEDn 0.5 to 0.7 had it."""

from fedn.utils.helpers.plugins.numpyhelper import Helper

__all__ = ["Helper"]
