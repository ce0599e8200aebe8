"""What packages import from Scaleout's client, FEDn's successor."""

import importlib
import os

# Between FEDn 0.33 and Scaleout 1.0, FEDn's modules had this name: scaleout.utils.helpers.helpers.
__path__.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fedn"))
_PLACES = {
    "EdgeClient": "scaleout.client.edge_client",
    "FednClient": "fedn.network.clients.fedn_client",
    "APIClient": "scaleoututil.api.client",
    "Scaleout": "scaleoututil.api.client",
    "ScaleoutModel": "scaleoututil.utils.model",
}


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(
        "module 'scaleout' has no %r here: fedpkg runs this package without Scaleout's network, and has %s of it."
        % (name, ", ".join(_PLACES))
    )
