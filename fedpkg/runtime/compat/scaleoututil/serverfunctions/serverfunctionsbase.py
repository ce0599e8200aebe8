"""The base of server functions under its later name."""

from fedn.network.combiner.hooks.serverfunctionsbase import RoundType, ServerFunctionsBase

__all__ = ["RoundType", "ServerFunctionsBase"]
