"""FedDyn's client: its linear term, and the quadratic term towards the global model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedpkg.client.corrections import Correction
from fedpkg.client.models import Given
from fedpkg.client.state import keep, kept
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import nn

_STATE = "feddyn"


class FedDyn:
    """argmin_y L(y) - <g, y> + alpha/2 |y - x|^2;  g <- g - alpha (y - x), initially 0.

    Without the strategy's ``alpha`` it has no effect. Tensors that stay with the client have neither term.

    Acar et al. 2021, Federated Learning Based on Dynamic Regularization, arXiv:2111.04263, Alg. 1
    """

    def __init__(self, model: nn.Module, given: Given, alpha: float | None = None) -> None:
        self._model = model
        self._alpha = float(given.parameters.get("alpha", 0.0) if alpha is None else alpha)
        self._x = {name: given.weights[name] for name in given.parameter_names if name not in given.local}
        own = kept(_STATE) or {}
        self._g = {name: own[name] if name in own else x.new_zeros(x.shape) for name, x in self._x.items()}
        linear = {name: -g for name, g in self._g.items()} if self._alpha else {}
        self._correction = Correction(model, linear=linear, anchor=self._x, mu=self._alpha)

    def correct_gradients(self) -> None:
        """Correct the gradients; call it between ``loss.backward()`` and ``optimizer.step()``."""
        self._correction.correct_gradients()

    def finish(self) -> None:
        """Keep the new g for the next round."""
        if self._alpha:
            y = bare(self._model).state_dict()
            keep(_STATE, {name: self._g[name] - self._alpha * (y[name].to(x) - x) for name, x in self._x.items()})
