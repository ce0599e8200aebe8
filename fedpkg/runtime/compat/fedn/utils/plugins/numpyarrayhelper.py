"""The numpyarrayhelper at the path of FEDn 0.5 to 0.7."""

from fedn.utils.helpers.plugins.numpyarrayhelper import Helper

__all__ = ["Helper"]
