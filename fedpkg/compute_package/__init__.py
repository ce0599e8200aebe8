"""Compute packages: their fedn.yaml, building, unpacking and looking at them."""
