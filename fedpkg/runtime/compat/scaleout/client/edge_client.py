"""FEDn's client under the name of its successor."""

from fedn.network.clients.fedn_client import ConnectToApiResult, GrpcConnectionOptions
from fedn.network.clients.fedn_client import FednClient as EdgeClient

__all__ = ["ConnectToApiResult", "EdgeClient", "GrpcConnectionOptions"]
