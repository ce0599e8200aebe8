"""What packages for Scaleout's client, FEDn's successor, import of it."""

from fedn.network.clients.fedn_client import FednClient as EdgeClient

__all__ = ["EdgeClient"]
