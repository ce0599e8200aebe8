"""Tied parameters: one tensor of a module that has several names in its model file."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedpkg.weights.weights import Weights, raw_bytes


def tied_parameters(seed_model: Weights) -> list[list[str]]:
    """Groups of parameters that are bit-equal copies of one another, each in the model's order.

    Constant tensors (biases that begin at 0, scales at 1) are equal without being tied, so they are left out.
    """
    alike: dict[object, list[list[str]]] = {}
    for name in seed_model.parameters:
        tensor = seed_model[name]
        flat = tensor.reshape(-1)
        if flat.numel() < 2 or bool((flat == flat[0]).all()):
            continue
        # The first bytes distinguish most tensors, so that few are compared as a whole.
        groups = alike.setdefault((tensor.shape, tensor.dtype, bytes(raw_bytes(flat[:16]).tolist())), [])
        for group in groups:
            if torch.equal(raw_bytes(tensor), raw_bytes(seed_model[group[0]])):
                group.append(name)
                break
        else:
            groups.append([name])
    return [group for groups in alike.values() for group in groups if len(group) > 1]


def still_tied(groups: Sequence[Sequence[str]], total: Weights) -> list[list[str]]:
    """The groups whose sums of updates are also bit-equal."""
    return [
        list(group)
        for group in groups
        if all(torch.equal(raw_bytes(total[name]), raw_bytes(total[group[0]])) for name in group)
    ]
