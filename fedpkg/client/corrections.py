"""The gradient of a linear and a quadratic term in a client's loss, from which most methods are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedpkg.client.errors import ClientError
from fedpkg.client.models import Given
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import Tensor, nn

    Tensors = Mapping[str, Tensor]


class Correction:
    """g <- g + l + mu (y - a): adds the gradient of <l, y> + mu/2 |y - a|^2 at the model's parameters y.

    Args:
        linear: l, by the names of parameters.
        anchor: a, likewise; the gradients of parameters that are in neither do not change.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        linear: Tensors | None = None,
        anchor: Tensors | None = None,
        mu: float = 0.0,
    ) -> None:
        linear, anchor = linear or {}, (anchor or {}) if mu else {}
        self.mu = float(mu)
        self._terms = [
            (p, linear[name].to(p) if name in linear else None, anchor[name].to(p) if name in anchor else None)
            for name, p in bare(model).named_parameters()
            if name in linear or name in anchor
        ]

    def correct_gradients(self) -> None:
        """Correct the gradients, between ``loss.backward()`` and ``optimizer.step()``, except of frozen parameters."""
        import torch

        with torch.no_grad():
            for parameter, linear, anchor in self._terms:
                if not parameter.requires_grad:
                    continue
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                if linear is not None:
                    parameter.grad.add_(linear)
                if anchor is not None:
                    parameter.grad.add_(parameter - anchor, alpha=self.mu)


def fedprox(model: nn.Module, given: Given, mu: float | None = None) -> Correction:
    """The correction of mu/2 |y - x|^2, where x is the global model; mu is the strategy's ``proximal_mu``, or else 0.

    Tensors that stay with the client (``given.local``) have no such term.

    Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv:1812.06127
    """
    mu = given.parameters.get("proximal_mu", 0.0) if mu is None else mu
    return Correction(model, anchor=given.shared, mu=mu)


def proximal_term(model: nn.Module, anchor: Tensors, mu: float) -> Tensor:
    """mu/2 |y - a|^2 over the model's parameters y, to be added to a loss; ``anchor`` may be ``given.shared``."""
    import torch

    squares = [((p - anchor[name].to(p)) ** 2).sum() for name, p in bare(model).named_parameters() if name in anchor]
    return mu / 2 * torch.stack(squares).sum() if squares else torch.zeros(())


def prox(model: nn.Module, given: Given) -> Correction:
    """For the entry point ``prox``, the correction of <linear, y> + |y - center|^2 / (2 theta), from the center.

    Raises:
        ClientError: If the strategy's request is of another kind.
    """
    if not {"center", "linear"} <= given.sets.keys() or "theta" not in given.parameters:
        raise ClientError("this is not a request for a proximal step: it needs the sets center and linear, and theta")
    theta = given.parameters["theta"]
    linear, center = (
        {key: tensor for key, tensor in given.sets[name].items() if key not in given.local}
        for name in ("linear", "center")
    )
    return Correction(model, linear=linear, anchor=center, mu=1 / theta)
