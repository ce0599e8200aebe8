"""The nodes as strategies of the older form see them: clients, among which a manager chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from fedpkg.apps.errors import TooFewNodes
from fedpkg.apps.log import logger
from fedpkg.apps.strategy.parts import sampled


@dataclass(frozen=True)
class ClientProxy:
    """A node, as the older form names it."""

    node_id: int

    @property
    def cid(self) -> str:
        return str(self.node_id)


class Criterion(ABC):
    """Decides which clients may be drawn."""

    @abstractmethod
    def select(self, client: ClientProxy) -> bool: ...


class ClientManager(ABC):
    """Chooses clients. A ServerApp registers all nodes before the first round."""

    @abstractmethod
    def num_available(self) -> int:
        """The number of clients."""

    @abstractmethod
    def register(self, client: ClientProxy) -> bool:
        """Add a client; whether it is new."""

    @abstractmethod
    def unregister(self, client: ClientProxy) -> None:
        """Remove a client."""

    @abstractmethod
    def all(self) -> dict[str, ClientProxy]:
        """All clients by their ``cid``."""

    @abstractmethod
    def wait_for(self, num_clients: int, timeout: int = 86400) -> bool:
        """Whether there are as many clients."""

    @abstractmethod
    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """That number of clients."""


class SimpleClientManager(ClientManager):
    """Draws clients by the generator of `random`, and returns them in the order of the nodes."""

    def __init__(self) -> None:
        self.clients: dict[str, ClientProxy] = {}

    def __len__(self) -> int:
        return len(self.clients)

    def num_available(self) -> int:
        return len(self)

    def register(self, client: ClientProxy) -> bool:
        return self.clients.setdefault(client.cid, client) is client

    def unregister(self, client: ClientProxy) -> None:
        self.clients.pop(client.cid, None)

    def all(self) -> dict[str, ClientProxy]:
        return self.clients

    def wait_for(self, num_clients: int, timeout: int = 86400) -> bool:
        """Whether there are as many clients: all nodes are there from the beginning."""
        return len(self) >= num_clients

    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """That number of clients; none if the criterion lets too few be drawn.

        Raises:
            TooFewNodes: There are fewer than either number.
        """
        needed = max(num_clients, min_num_clients or 0)
        if len(self) < needed:
            raise TooFewNodes(
                f"there are {len(self)} nodes, and {needed} are needed: run with --nodes {needed}, or lower "
                "min_fit_clients, min_evaluate_clients and min_available_clients"
            )
        among = [one for one in self.clients.values() if criterion is None or criterion.select(one)]
        if len(among) < num_clients:
            logger.warning("no client is drawn: the criterion selects %d, and %d are needed", len(among), num_clients)
            return []
        return [among[place] for place in sampled(range(len(among)), num_clients)]


def register_all(nodes: Iterable[int], manager: ClientManager | None) -> ClientManager:
    """A manager with all nodes: the given one, or a new one."""
    manager = SimpleClientManager() if manager is None else manager
    for node in nodes:
        manager.register(ClientProxy(node))
    return manager
