"""Partitioners: they divide a dataset among the clients. Each scheme has a file."""

from fedpkg.data.partitioners.registry import make_partitioner, register_partitioner, resolve_partition, tells_count

__all__ = ["make_partitioner", "register_partitioner", "resolve_partition", "tells_count"]
