"""A client's personal models in addition to the global one: Ditto, pFedMe, and fine-tuning before evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedpkg.client.corrections import Correction
from fedpkg.client.models import Given
from fedpkg.client.state import keep, kept
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import nn


_STATE = "personal"


def personal_model(model: nn.Module, name: str = _STATE) -> nn.Module:
    """A copy of the model with the weights that this client has kept under a name; until then, with its own weights."""
    own = copy.deepcopy(model)
    own.zero_grad(set_to_none=True)
    found = kept(name)
    if found is not None:
        bare(own).load_state_dict(found)
    return own


def keep_model(model: nn.Module, name: str = _STATE) -> None:
    """Keep a model's weights under a name, for this client's later tasks."""
    keep(name, bare(model).state_dict())


def fine_tuned(model: nn.Module, tune: Callable[[nn.Module], object]) -> nn.Module:
    """A copy of the model after training by ``tune``; the model itself does not change, for the metrics before."""
    own = copy.deepcopy(model)
    own.zero_grad(set_to_none=True)
    own.train()
    tune(own)
    return own.train(model.training)


class Ditto:
    """v <- v - eta (g(v) + lambda (v - x)): a personal model v near the global model x, which is trained as usual.

    ``model`` is v, initially x. lambda is the strategy's ``ditto_lambda``; without it ``active`` is False, and nothing
    is kept.

    Li et al. 2021, Ditto: Fair and Robust Federated Learning Through Personalization, arXiv:2012.04221, Alg. 1
    """

    def __init__(self, model: nn.Module, given: Given, lam: float | None = None) -> None:
        lam = given.parameters.get("ditto_lambda") if lam is None else lam
        self.active = lam is not None
        self.model = personal_model(model)
        if kept(_STATE) is None:  # the model may already have been trained
            bare(self.model).load_state_dict(dict(given.start))
        self._correction = Correction(self.model, anchor=given.shared, mu=lam or 0.0)

    def correct_gradients(self) -> None:
        """Correct v's gradients; call it before each step of v's optimiser."""
        self._correction.correct_gradients()

    def finish(self) -> None:
        """Keep v; `personal_model` returns it."""
        if self.active:
            keep_model(self.model)


class PFedMe:
    """theta ~ argmin f(theta) + lambda/2 |theta - w|^2, then w <- w - eta lambda (w - theta), batch by batch.

    The model that is trained is theta; w is this client's copy of the global model, which it sends. lambda and eta are
    the strategy's ``pfedme_lambda`` and ``pfedme_eta``; with lambda = 0 the model is trained and sent as usual.

    Dinh, Tran and Nguyen 2020, Personalized Federated Learning with Moreau Envelopes, arXiv:2006.08848, Alg. 1
    """

    def __init__(self, model: nn.Module, given: Given, lam: float | None = None, eta: float | None = None) -> None:
        self._model = model
        self.lam = float(given.parameters.get("pfedme_lambda", 0.0) if lam is None else lam)
        self.eta = float(given.parameters.get("pfedme_eta", 0.005) if eta is None else eta)
        self._w = {name: p.detach().clone() for name, p in bare(model).named_parameters() if name not in given.local}

    def correct_gradients(self) -> None:
        """Correct theta's gradients; call it before each step of theta's optimiser."""
        import torch

        with torch.no_grad():
            for name, theta in bare(self._model).named_parameters():
                if theta.grad is not None and name in self._w:
                    theta.grad.add_(theta - self._w[name], alpha=self.lam)

    def step(self) -> None:
        """Update w; call it when a batch's theta has been found."""
        parameters = dict(bare(self._model).named_parameters())
        for name, w in self._w.items():
            w.add_(parameters[name].detach() - w, alpha=self.eta * self.lam)

    def finish(self) -> None:
        """Keep theta, which `personal_model` returns, and copy w into the model, to be saved."""
        if self.lam:
            keep_model(self._model)
            bare(self._model).load_state_dict(self._w, strict=False)
