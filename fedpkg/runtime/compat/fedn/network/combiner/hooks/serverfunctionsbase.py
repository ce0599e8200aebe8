"""The base of server functions. The strategy `server_functions` calls those that a file defines."""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class RoundType(enum.Enum):
    """What clients are chosen for, in later versions of Scaleout."""

    TRAINING = "training"
    VALIDATION = "validation"
    PREDICTION = "prediction"


class ServerFunctionsBase:
    """Each may be defined or not; a server leaves out those that are not."""

    def aggregate(self, previous_global: Any, client_updates: Any) -> Any:
        """The next global model."""

    def incremental_aggregate(self, client_id: str, model: Any, client_metadata: Any, previous_global: Any) -> None:
        """Take one update."""

    def get_incremental_aggregate_model(self) -> Any:
        """The next global model, from what was taken."""

    def client_selection(self, client_ids: list[str]) -> Any:
        """Who takes part."""

    def client_settings(self, global_model: Any) -> Any:
        """What clients find in ``<in>-metadata``."""
