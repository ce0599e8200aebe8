"""Sessions of the tests of experiments share zygotes."""

from zygotes import shared_zygotes

__all__ = ["shared_zygotes"]
