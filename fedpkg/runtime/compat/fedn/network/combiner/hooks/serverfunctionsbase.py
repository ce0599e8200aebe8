"""The base of server functions. The strategy `server_functions` calls those that a file defines."""

from __future__ import annotations

import enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class RoundType(enum.Enum):
    """What clients are selected for (later versions of Scaleout)."""

    TRAINING = "training"
    VALIDATION = "validation"
    PREDICTION = "prediction"


class ServerFunctionsBase:
    """The functions that a server calls. All of them are optional."""

    def aggregate(self, previous_global: Any, client_updates: Any) -> Any:
        """Return the next global model."""

    def incremental_aggregate(self, client_id: str, model: Any, client_metadata: Any, previous_global: Any) -> None:
        """Add one update."""

    def get_incremental_aggregate_model(self) -> Any:
        """Return the next global model, made from the added updates."""

    def client_selection(self, client_ids: list[str]) -> Any:
        """Return the clients that take part in the round."""

    def client_settings(self, global_model: Any) -> Any:
        """Return the settings that clients find in ``<in>-metadata``."""
