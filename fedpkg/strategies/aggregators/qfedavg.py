"""q-FedAvg: clients with a larger loss weigh more, so that the model is fair to all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import NotNegative, Positive
from fedpkg.strategies.base import Reply
from fedpkg.strategies.folds import Fold, Folded, MeansFold, Term
from fedpkg.strategies.registry import register_aggregator
from fedpkg.strategies.traits import Traits
from fedpkg.strategies.weighing import Said

if TYPE_CHECKING:
    from fedpkg.weights.weights import Weights

_LEAST_LOSS = 1e-10  # as in the authors' code: F^(q - 1) is not defined at 0


@register_aggregator(
    "qfedavg",
    equation="D_k = L (w - w_k),  L = 1 / eta;  h_k = q F_k^(q-1) |D_k|^2 + L F_k^q;  "
    "w <- w - sum_k F_k^q D_k / sum_k h_k",
    paper="Li et al. 2020, Fair Resource Allocation in Federated Learning, arXiv:1905.10497, Alg. 2",
)
@dataclass(frozen=True)
class QFedAvg:
    """Fair federated averaging, in which clients with a larger loss weigh more.

    Clients report their loss F_k at the global model in the metadata of their model. An update without it is left out,
    with a warning in the log. Buffers are averaged with the weights F_k^q.

    Args:
        q: Exponent q of the losses. 0 is the uniform mean; 0.1 to 5 is usual. With a large q the clients with the
            highest loss decide alone, and learning slows down.
        learning_rate: Learning rate eta of the clients' local training, which must be the value that the package uses.
        loss_key: Key in the metadata under which clients report their loss at the global model.
    """

    q: NotNegative = 0.1
    learning_rate: Positive = 0.1
    loss_key: str = "train_loss"

    traits = Traits(
        treatment="step", in_trees="above_clients", why_not_in_trees="it needs each client's loss at the model it got"
    )

    def fold(self, model: Weights, start: int = 0) -> Fold[Weights]:
        from fedpkg.strategies.steps import gradient_of, moved, squared_norm
        from fedpkg.weights.fold import MAX_WEIGHT, check_fits, left_to_right

        said = Said(self.loss_key, 0, 1e30, "a loss")
        inverse_rate = 1 / self.learning_rate

        def term(reply: Reply) -> Term:
            loss = max(said.of(reply), _LEAST_LOSS)
            limit = math.log(MAX_WEIGHT)  # whatever loss is reported, the weight stays in the range of the fold
            weight = math.exp(min(max(self.q * math.log(loss), -limit), limit))
            if not self.q:
                return Term(reply.weights, weight, {"weights": weight, "h": 0.0})
            check_fits(reply.position, reply.weights, model)
            squared = inverse_rate**2 * squared_norm(gradient_of(model, reply.weights))
            return Term(reply.weights, weight, {"weights": weight, "h": self.q * (weight / loss) * squared})

        # The mean m with weights F_k^q is such that sum_k F_k^q D_k = L (sum_k F_k^q) (w - m).
        def finish(mean: Folded) -> Weights:
            pairs = zip(mean.numbers["weights"], mean.numbers["h"], strict=True)
            steps = left_to_right(number for weight, h in pairs for number in (inverse_rate * weight, h))
            return moved(model, mean.weights, inverse_rate * mean.total("weights") / steps if steps else 1.0)

        return MeansFold(model, term, finish, start)
