"""SCAFFOLD's client: its control variate, and the correction of local steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedpkg.client.corrections import Correction
from fedpkg.client.errors import ClientError
from fedpkg.client.models import Given
from fedpkg.client.state import keep, kept
from fedpkg.client.wrapped import bare

if TYPE_CHECKING:
    from torch import Tensor, nn

    Tensors = Mapping[str, Tensor]

_STATE = "scaffold"


class Scaffold:
    """y <- y - eta_l (g(y) - c_i + c); c_i is this client's own, initially 0.

    The local optimiser is plain SGD in the paper; with another, or momentum, pass the gradient to `finish`. Without the
    set ``c`` (another strategy) it has no effect. Tensors that stay with the client have no control variate.

    Karimireddy et al. 2020, SCAFFOLD, arXiv:1910.06378, Alg. 1
    """

    def __init__(self, model: nn.Module, given: Given) -> None:
        self._model, self._x, self._local = model, given.weights, given.local
        self._c: Tensors = {} if "m" in given.sets else given.sets.get("c", {})  # with m, c is Mime's
        self._own = kept(_STATE) or {name: c.new_zeros(c.shape) for name, c in self._c.items()}
        linear = {name: c - self._own[name] for name, c in self._c.items() if name not in given.local}
        self._correction = Correction(model, linear=linear)
        self._steps = 0

    def correct_gradients(self) -> None:
        """Correct the gradients; call it before each step of the optimiser, because it also counts the steps."""
        self._correction.correct_gradients()
        self._steps += 1

    def finish(self, *, learning_rate: float | None = None, gradient: Tensors | None = None) -> dict[str, Tensors]:
        """Keep the new c_i; returns ``sets`` for `save`, with dc = c_i+ - c_i.

        Option II: c_i+ = c_i - c + (x - y) / (K eta_l), after K steps with ``learning_rate`` eta_l.
        Option I: c_i+ = ``gradient``, the gradient over all the client's data at x (see `fedpkg.client.gradient`).
        """
        if not self._c:
            return {}
        if gradient is not None:
            after = {name: gradient[name].to(c) for name, c in self._c.items()}
        elif not learning_rate or not self._steps:
            raise ClientError(
                "SCAFFOLD's new control variate needs the learning rate and at least one step, or the gradient at x",
                "finish(learning_rate=lr), and correct_gradients() before each optimizer.step()",
            )
        else:
            y, scale = bare(self._model).state_dict(), 1 / (self._steps * learning_rate)
            after = {name: self._own[name] - c + scale * (self._x[name] - y[name].to(c)) for name, c in self._c.items()}
        after.update({name: self._own[name] for name in self._local if name in after})
        keep(_STATE, after)
        return {"dc": {name: c - self._own[name] for name, c in after.items()}}
