"""Strategies that tolerate some malicious nodes. Each reply counts once, whatever weight it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedpkg.apps.strategy.fedavg import FedAvg


def _count(name: str, value: int, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value}; it must be a whole number from {least} on")
    return value


class FedMedian(FedAvg):
    """The median of each element, or the mean of the two middle ones [Yin et al. 2018, arXiv:1803.01498]."""

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.median import Median

        return Median()


class FedTrimmedAvg(FedAvg):
    """The mean of each element without the largest and smallest ones [Yin et al. 2018, arXiv:1803.01498].

    Args:
        beta: The share of the elements that is cut off at each end, below 0.5.
        common: Parameters of FedAvg.
    """

    def __init__(self, *, beta: float = 0.2, **common: Any) -> None:
        super().__init__(**common)
        if not 0 <= beta < 0.5:
            raise ValueError(f"beta is {beta}; it must be from 0 to below 0.5, as that share is cut off at each end")
        self.beta = beta

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.trimmed_mean import TrimmedMean

        return TrimmedMean(self.beta)


class _Tolerating(FedAvg):
    """A strategy for a number of malicious nodes."""

    def __init__(self, *, num_malicious_nodes: int = 0, **common: Any) -> None:
        super().__init__(**common)
        self.num_malicious_nodes = _count("num_malicious_nodes", num_malicious_nodes)

    @property
    def needs(self) -> int:  # type: ignore[override]
        needed: int = self.aggregator().needs
        return needed


class Krum(_Tolerating):
    """The arrays that are nearest to those of their neighbours [Blanchard et al. 2017, arXiv:1703.02757].

    Distances are exact also for large weights with small differences.

    Args:
        num_malicious_nodes: The number f of malicious nodes; a round needs 2 f + 3 nodes.
        common: Parameters of FedAvg.
    """

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.krum import Krum as Aggregator

        return Aggregator(self.num_malicious_nodes)


class MultiKrum(_Tolerating):
    """The plain mean of the arrays that are nearest to those of their neighbours.

    Args:
        num_malicious_nodes: The number f of malicious nodes; a round needs 2 f + 3 nodes.
        num_nodes_to_select: The number of nodes that are averaged; 1 is Krum.
        common: Parameters of FedAvg.
    """

    def __init__(self, *, num_malicious_nodes: int = 0, num_nodes_to_select: int = 1, **common: Any) -> None:
        super().__init__(num_malicious_nodes=num_malicious_nodes, **common)
        self.num_nodes_to_select = _count("num_nodes_to_select", num_nodes_to_select, 1)

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.krum import MultiKrum as Aggregator

        return Aggregator(self.num_malicious_nodes, self.num_nodes_to_select)


class Bulyan(_Tolerating):
    """Krum selects arrays, and of these the elements around the median are averaged [El Mhamdi et al. 2018].

    Args:
        num_malicious_nodes: The number f of malicious nodes; a round needs 4 f + 3 nodes.
        selection_rule: Must be None: Krum selects.
        common: Parameters of FedAvg.
    """

    def __init__(
        self, *, num_malicious_nodes: int = 0, selection_rule: Callable[..., Any] | None = None, **common: Any
    ) -> None:
        super().__init__(num_malicious_nodes=num_malicious_nodes, **common)
        if selection_rule is not None:
            raise ValueError("selection_rule cannot be changed: Bulyan selects by Krum; leave it out")

    def aggregator(self) -> Any:
        from fedpkg.strategies.aggregators.bulyan import Bulyan as Aggregator

        return Aggregator(self.num_malicious_nodes)
