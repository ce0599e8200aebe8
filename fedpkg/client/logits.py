"""FedLC: logits calibrated by the frequencies of a client's classes, so that it does not forget the rare ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """The number of a client's examples of each class: n_c."""
    import torch

    return torch.bincount(labels.reshape(-1), minlength=classes)


def calibrated_logits(logits: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """f_c - tau n_c^(-1/4), for the training loss; with tau = 0 the logits themselves.

    A class without examples becomes -inf, the limit, so that training does not push it away. Its label must not occur.

    Args:
        logits: Logits of shape (…, classes).

    Zhang et al. 2022, Federated Learning with Label Distribution Skew via Logits Calibration, arXiv:2209.00189
    """
    if not tau:
        return logits
    return logits - tau * counts.to(logits) ** -0.25
