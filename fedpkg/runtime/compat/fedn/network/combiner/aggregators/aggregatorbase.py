"""The base of FEDn's aggregators. They are not called: the strategy `split` only uses the server model of the file."""

from __future__ import annotations


class AggregatorBase:
    """A server of FEDn would call this."""
