"""The names that FEDn allows to server functions."""

from __future__ import annotations

import random
from typing import Dict, List, Tuple

import numpy as np

from fedn.common.log_config import logger
from fedn.network.combiner.hooks.serverfunctionsbase import ServerFunctionsBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _ApiClient:
    """The part of FEDn's API client that server functions use: the attributes that clients have logged."""

    def __init__(self) -> None:
        self.attributes: Dict[str, Dict[str, Any]] = {}  # filled by the program that runs the server functions

    def get_current_attributes(self, client_list: List[str]) -> Dict[str, Dict[str, Any]]:
        """The last values that each client has logged."""
        return {client_id: dict(self.attributes.get(client_id, {})) for client_id in client_list}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError("api_client has no %r here: there is no server; it has get_current_attributes" % name)


api_client = _ApiClient()

__all__ = ["Dict", "List", "ServerFunctionsBase", "Tuple", "api_client", "logger", "np", "random"]
