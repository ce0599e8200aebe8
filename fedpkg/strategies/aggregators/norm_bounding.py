"""Norm bounding: the mean of steps whose norms are bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpkg.registry import Positive
from fedpkg.strategies.aggregators.robust import RobustAggregator
from fedpkg.strategies.registry import register_aggregator

if TYPE_CHECKING:
    from fedpkg.strategies.updates.held import Updates
    from fedpkg.weights.weights import Weights


@register_aggregator(
    "norm_bounding",
    equation="d_k = w_k - w;  w <- w + sum_k a_k d_k min(1, M / |d_k|),  a_k = 1 / n, by_examples: n_k / sum_j n_j",
    paper="Sun et al. 2019, Can You Really Backdoor Federated Learning?, arXiv:1911.07963",
    attackers="none; one attacker shifts a round by at most M / n",
)
@dataclass(frozen=True)
class NormBounding(RobustAggregator):
    """The mean of the clients' steps, whose norms are clipped to a bound.

    Args:
        max_norm: Largest L2 norm M of a client's step, over all parameters. Smaller values limit attackers more, but
            slow down learning; very large ones clip nothing. null: the median of the steps' norms.
        by_examples: Weight the steps by the numbers of examples that clients report. An attacker can report any number.
    """

    max_norm: Positive | None = None
    by_examples: bool = False

    @property
    def takes_means(self) -> bool:
        return not self.by_examples

    def stands(self, count: int) -> int:
        return 0

    def combine(self, updates: Updates) -> Weights:
        from fedpkg.strategies.updates.clipping import clipped_mean

        weights = updates.num_examples if self.by_examples else None
        return updates.with_rest(clipped_mean(updates, None, self.max_norm, weights))
