"""q-FedAvg: nodes with a larger loss weigh more."""

from __future__ import annotations

from typing import Any

from fedpkg.apps.strategy.base import positive
from fedpkg.apps.strategy.fedavg import FedAvg


class QFedAvg(FedAvg):
    """Fair federated averaging, in which nodes with a larger loss weigh more [Li et al. 2020, arXiv:1905.10497].

    Replies report their loss at the arrays that they were sent, before training. A reply without it is left out.

    Args:
        client_learning_rate: The learning rate of the clients' training.
        q: Exponent of the losses; 0 is the uniform mean.
        train_loss_key: The metric with the loss.
        common: Parameters of FedAvg.
    """

    needs_sent_arrays = True

    def __init__(
        self, *, client_learning_rate: float, q: float = 0.1, train_loss_key: str = "train_loss", **common: Any
    ) -> None:
        super().__init__(**common)
        self.client_learning_rate = positive("client_learning_rate", client_learning_rate)
        self.q = positive("q", q, or_zero=True)
        self.train_loss_key = train_loss_key

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.qfedavg import QFedAvg as Aggregator

        return Aggregator(self.q, self.client_learning_rate, self.train_loss_key)
