"""Mime's client: steps with the server's momentum, and with reduced minibatch variance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fedpkg.client.gradients import gradient
from fedpkg.client.models import Given
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import Tensor, nn


class Mime:
    """g <- (1 - beta) (g(y; z) - g(x; z) + c) + beta m; MimeLite, without c: g <- (1 - beta) g(y; z) + beta m.

    Without the set ``m`` (another strategy) it has no effect, nor has it on tensors that stay with the client.

    Karimireddy et al. 2021, Breaking the Centralized Barrier: Mime, arXiv:2008.03606, Alg. 1

    Args:
        loss: Computes the mean loss of a model on a batch; it is also called with the model at x.
    """

    def __init__(self, model: nn.Module, given: Given, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        self._model, self._loss, self._local = model, loss, given.local
        self._m, self._c = given.sets.get("m"), given.sets.get("c")
        self._beta = float(given.parameters.get("momentum", 0.0))
        if self._c is not None:
            self._x = copy.deepcopy(model)
            bare(self._x).load_state_dict(dict(given.start))

    def correct_gradients(self, batch: Any) -> None:
        """Correct the gradients; call it with the current batch, before each step of plain SGD."""
        if self._m is None:
            return
        at_x = None if self._c is None else gradient(self._x, self._loss, [batch])
        for name, parameter in bare(self._model).named_parameters():
            if parameter.grad is None or name in self._local:
                continue
            if at_x is not None and self._c is not None:
                parameter.grad.add_(self._c[name].to(parameter) - at_x[name])
            parameter.grad.mul_(1 - self._beta).add_(self._m[name].to(parameter), alpha=self._beta)
