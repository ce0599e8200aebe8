"""FedLC: logits by how often a client sees their class, so that it does not forget the rare ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """How many of a client's examples each class has: n_c."""
    import torch

    return torch.bincount(labels.reshape(-1), minlength=classes)


def calibrated_logits(logits: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """f_c - tau n_c^(-1/4), for the loss of training; with tau = 0 the logits themselves.

    A class that the client has none of becomes -inf, the limit: it is not pushed away. So its labels must not occur.

    Args:
        logits: of shape (…, classes).

    Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration, arXiv:2209.00189
    """
    if not tau:
        return logits
    return logits - tau * counts.to(logits) ** -0.25
