"""The base of FEDn's aggregators. Nothing calls them: of such a file, the strategy `split` takes the server model."""

from __future__ import annotations


class AggregatorBase:
    """What a server of FEDn would call."""
