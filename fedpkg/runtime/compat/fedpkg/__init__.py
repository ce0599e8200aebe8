"""Stands for fedpkg where it is not installed: it has ``fedpkg.client``, and nothing else."""
