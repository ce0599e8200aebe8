"""Where datasets come from: one file for each kind of source."""

from fedpkg.data.sources.registry import register_dataset

__all__ = ["register_dataset"]
