"""MOON: pulls a client's features towards the global model's, and away from those of its own previous model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedpkg.client.models import Given
from fedpkg.client.state import keep, kept
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import Tensor, nn

_STATE = "moon"


def moon_loss(z: Tensor, z_global: Tensor, z_previous: Tensor, temperature: float = 0.5) -> Tensor:
    """-log e^{s_g / tau} / (e^{s_g / tau} + e^{s_p / tau}), the mean over the batch; s is the cosine with z.

    Args:
        z: Features of the model that is trained, of shape (batch, …); the others' have this shape, and no gradients.
    """
    import torch
    from torch.nn.functional import cosine_similarity, softplus

    z, z_global, z_previous = (torch.flatten(each, 1) for each in (z, z_global.detach(), z_previous.detach()))
    difference = cosine_similarity(z, z_previous) - cosine_similarity(z, z_global)
    return softplus(difference / temperature).mean()


class Moon:
    """The model-contrastive term; the global model and this client's previous one are frozen copies of the model.

    ``mu`` and ``temperature`` are the strategy's ``moon_mu`` and ``moon_temperature``; with mu = 0 it has no effect.
    A client's first previous model is the global one, so that the term is constant.
    Tensors that stay with the client are its own also in the global model.

    Li, He and Song 2021, Model-Contrastive Federated Learning, arXiv:2103.16257
    """

    def __init__(
        self, model: nn.Module, given: Given, mu: float | None = None, temperature: float | None = None
    ) -> None:
        self._model = model
        self.mu = float(given.parameters.get("moon_mu", 0.0) if mu is None else mu)
        self.temperature = float(given.parameters.get("moon_temperature", 0.5) if temperature is None else temperature)
        if self.mu:
            self.global_model = _frozen(model)
            bare(self.global_model).load_state_dict(dict(given.start))
            self.previous = _frozen(model)
            bare(self.previous).load_state_dict(kept(_STATE) or dict(given.start))

    def loss(self, z: Tensor, features: Callable[[nn.Module], Tensor]) -> Tensor:
        """mu times `moon_loss` of the features z; ``features`` computes another model's: ``lambda m: m.body(x)``."""
        import torch

        if not self.mu:
            return z.new_zeros(())
        with torch.no_grad():
            theirs = features(self.global_model), features(self.previous)
        return self.mu * moon_loss(z, *theirs, self.temperature)

    def finish(self) -> None:
        """Keep the model as the previous one of the next round."""
        if self.mu:
            keep(_STATE, bare(self._model).state_dict())


def _frozen(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)
