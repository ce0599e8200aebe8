"""The base of helpers at the path of FEDn 0.5 to 0.7."""

from fedn.utils.helpers.helperbase import HelperBase

__all__ = ["HelperBase"]
