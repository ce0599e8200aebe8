"""Updates of clients that really train: softmax regression on the digits of scikit-learn, in groups that disagree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedpkg.strategies.base import Reply
from fedpkg.strategies.updates.held import Updates
from fedpkg.weights.weights import Weights

Data: TypeAlias = "tuple[Tensor, Tensor]"
_LEARNING_RATE = 0.5


@functools.cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images (n, 8, 8) from 0 to 1 and labels, in an order drawn once."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order].reshape(-1, 8, 8) / 16, labels[order]


def permuted(sizes: Sequence[int]) -> list[Data]:
    """Clients of two groups: the second one has the labels 9 - y."""
    return _clients(sizes, lambda group, images, labels: (images, 9 - labels if group else labels))


def rotated(sizes: Sequence[int]) -> list[Data]:
    """Clients of up to four groups, whose images are rotated by 0, 90, 180 and 270 degrees."""
    return _clients(sizes, lambda group, images, labels: (np.rot90(images, group, axes=(1, 2)), labels))


def _clients(sizes: Sequence[int], changed: Callable[[int, Any, Any], tuple[Any, Any]]) -> list[Data]:
    images, labels = digits()
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    made = []
    for part, group in zip(np.array_split(np.arange(len(labels)), len(groups)), groups, strict=True):
        pictures, targets = changed(group, images[part], labels[part])
        flat = torch.from_numpy(np.ascontiguousarray(pictures.reshape(len(part), -1))).float()
        made.append((flat, torch.from_numpy(targets.copy())))
    return made


def trained(model: Weights, data: Data, steps: int) -> Weights:
    """The model after steps of gradient descent."""
    weight, bias = model["weight"].clone().requires_grad_(), model["bias"].clone().requires_grad_()
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(data[0] @ weight.T + bias, data[1])
        for tensor, gradient in zip((weight, bias), torch.autograd.grad(loss, (weight, bias)), strict=True):
            tensor.data -= _LEARNING_RATE * gradient
    return Weights({"weight": weight.detach(), "bias": bias.detach()})


def updates_of(clients: Sequence[Data], *, steps: int = 5) -> Updates:
    """The updates of all clients of a model that has converged on all of their data."""
    pooled = (torch.cat([images for images, _ in clients]), torch.cat([labels for _, labels in clients]))
    start = Weights({"weight": torch.zeros(10, 64), "bias": torch.zeros(10)})
    model = trained(start, pooled, 300)
    replies = (
        Reply("train", number, f"client-{number:02d}", {"": trained(model, data, steps)}, len(data[1]))
        for number, data in enumerate(clients)
    )
    return Updates(replies, model)
