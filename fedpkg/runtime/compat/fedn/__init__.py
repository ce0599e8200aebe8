"""What FEDn provides for compute packages: helpers for model files, and a client whose callbacks run one task.

These modules have no network and no server.
"""

__version__ = "0.33.0"  # the last version of FEDn whose packages these modules serve


def __getattr__(name: str) -> object:
    if name == "FednClient":
        from fedn.network.clients.fedn_client import FednClient

        return FednClient
    if name == "APIClient":
        from fedn.network.api.client import APIClient

        return APIClient
    raise AttributeError(
        "module 'fedn' has no %r here: fedpkg runs this package without FEDn's network, and has only what packages "
        "import of it. If it needs FEDn itself, install FEDn in the package's environment: pip install fedn" % name
    )
