"""The names that Scaleout allows to server functions."""

from fedn.network.combiner.hooks.allowed_import import (
    Dict,
    List,
    ServerFunctionsBase,
    Tuple,
    api_client,
    logger,
    np,
    random,
)

__all__ = ["Dict", "List", "ServerFunctionsBase", "Tuple", "api_client", "logger", "np", "random"]
