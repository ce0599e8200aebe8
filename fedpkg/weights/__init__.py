"""Named tensors and the core operations on them."""
