"""FedProx: FedAvg whose clients stay near the arrays that they were sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fedpkg.apps.log import logger
from fedpkg.apps.strategy.base import positive
from fedpkg.apps.strategy.fedavg import FedAvg
from fedpkg.records.value_records import ConfigRecord

if TYPE_CHECKING:
    from fedpkg.apps.message import Message
    from fedpkg.records.array_record import ArrayRecord

PROXIMAL_MU = "proximal-mu"


class FedProx(FedAvg):
    """FedAvg whose clients add a proximal term to their loss, the weight mu of which is ``config["proximal-mu"]``.

        loss + mu / 2 sum_i |y_i - w_i|^2,  w the arrays that were sent  [Li et al. 2020, arXiv:1812.06127]

    With PyTorch, before training: ``sent = [p.detach().clone() for p in model.parameters()]``; in each step:
    ``loss = loss + mu / 2 * sum((p - w).square().sum() for p, w in zip(model.parameters(), sent))``.

    Args:
        proximal_mu: Weight mu; 0 is FedAvg.
        common: Parameters of FedAvg.
    """

    config_key = PROXIMAL_MU

    def __init__(self, *, proximal_mu: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.proximal_mu = positive("proximal_mu", proximal_mu, or_zero=True)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        config = ConfigRecord(config)
        config[self.config_key] = self.proximal_mu
        return super().configure_train(server_round, arrays, config, grid)

    def summary(self) -> None:
        super().summary()
        if self.proximal_mu == 0:
            logger.warning("proximal_mu is 0, with which FedProx is FedAvg")
