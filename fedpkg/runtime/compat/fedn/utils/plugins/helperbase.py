"""The base of helpers where FEDn 0.5 to 0.7 had it."""

from fedn.utils.helpers.helperbase import HelperBase

__all__ = ["HelperBase"]
