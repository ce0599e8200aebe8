"""What identifies a set of weights: their norm, to compare loosely, and a digest of their bytes, to compare exactly."""

import hashlib


def identify(weights):
    """Norm and sha256 of named tensors, by name."""
    digest = hashlib.sha256()
    squares = 0.0
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().data)
        squares += weights[name].double().square().sum().item()
    return {"norm": squares**0.5, "sha256": digest.hexdigest()}
