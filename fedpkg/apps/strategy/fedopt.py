"""Server optimisers on top of FedAvg: momentum, Adagrad, Adam and Yogi."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedpkg.apps.strategy.base import positive
from fedpkg.apps.strategy.fedavg import FedAvg

if TYPE_CHECKING:
    from fedpkg.strategies.server_optimisers.base import ServerOptimiser


def _decay(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be a number from 0 to below 1")
    return value


class FedAvgM(FedAvg):
    """FedAvg with momentum on the server (`fedpkg.strategies.server_optimisers.sgd`).

        g = w - a;  m <- beta m + g;  w <- w - eta m,  a the mean     [Hsu et al. 2019, arXiv:1909.06335]

    With both defaults it is FedAvg.

    Args:
        server_learning_rate: Step size eta.
        server_momentum: Momentum beta.
        common: Parameters of FedAvg.
    """

    needs_sent_arrays = True

    def __init__(self, *, server_learning_rate: float = 1.0, server_momentum: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.server_learning_rate = positive("server_learning_rate", server_learning_rate)
        self.server_momentum = _decay("server_momentum", server_momentum)

    def server_optimiser(self) -> ServerOptimiser | None:
        from fedpkg.strategies.server_optimisers.sgd import Sgd

        if self.server_learning_rate == 1 and self.server_momentum == 0:
            return None
        return Sgd(self.server_learning_rate, self.server_momentum)


class FedOpt(FedAvg):
    """The base of the adaptive server optimisers (`fedpkg.strategies.server_optimisers.fedopt`).

        D = a - w;  m <- b1 m + (1 - b1) D;  v by each;  w <- w + eta m / (sqrt(v) + tau),  a the mean

    from m = 0 and v = tau^2, without bias correction [Reddi et al. 2021, arXiv:2003.00295, Alg. 2]. Buffers (running
    means and variances, counters) are averaged, and no step is taken in them. The moments are in
    ``stepping.state["server_optimiser"]``.

    Args:
        eta: Step size of the server.
        eta_l: Step size of the clients; the server does not use it.
        beta_1, beta_2: Decays b1 and b2 of the moments.
        tau: Added to sqrt(v).
        common: Parameters of FedAvg.
    """

    needs_sent_arrays = True

    def __init__(
        self,
        *,
        eta: float = 1e-1,
        eta_l: float = 1e-1,
        beta_1: float = 0.0,
        beta_2: float = 0.0,
        tau: float = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.eta = positive("eta", eta)
        self.eta_l = positive("eta_l", eta_l)
        self.beta_1 = _decay("beta_1", beta_1)
        self.beta_2 = _decay("beta_2", beta_2)
        self.tau = positive("tau", tau)


class FedAdagrad(FedOpt):
    """Adagrad on the server: v <- v + D^2. See `FedOpt`."""

    def __init__(self, *, eta: float = 1e-1, eta_l: float = 1e-1, tau: float = 1e-3, **common: Any) -> None:
        super().__init__(eta=eta, eta_l=eta_l, tau=tau, **common)

    def server_optimiser(self) -> ServerOptimiser:
        from fedpkg.strategies.server_optimisers.fedopt import Adagrad

        return Adagrad(self.eta, self.beta_1, self.tau)


class FedAdam(FedOpt):
    """Adam on the server: v <- b2 v + (1 - b2) D^2. See `FedOpt`."""

    def __init__(
        self,
        *,
        eta: float = 1e-1,
        eta_l: float = 1e-1,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(eta=eta, eta_l=eta_l, beta_1=beta_1, beta_2=beta_2, tau=tau, **common)

    def server_optimiser(self) -> ServerOptimiser:
        from fedpkg.strategies.server_optimisers.fedopt import Adam

        return Adam(self.eta, self.beta_1, self.beta_2, self.tau)


class FedYogi(FedOpt):
    """Yogi on the server: v <- v - (1 - b2) D^2 sign(v - D^2). See `FedOpt`."""

    def __init__(
        self,
        *,
        eta: float = 1e-2,
        eta_l: float = 0.0316,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(eta=eta, eta_l=eta_l, beta_1=beta_1, beta_2=beta_2, tau=tau, **common)

    def server_optimiser(self) -> ServerOptimiser:
        from fedpkg.strategies.server_optimisers.fedopt import Yogi

        return Yogi(self.eta, self.beta_1, self.beta_2, self.tau)
