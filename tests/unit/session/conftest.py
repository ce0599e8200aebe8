"""A home in which a script for FEDn's API has run one session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from api_support import PACKAGE, client_in, finish, write_data
from zygotes import shared_zygotes

from fedpkg.api_client import APIClient

__all__ = ["shared_zygotes"]


@pytest.fixture(scope="session")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[APIClient, str, Path]:
    """A client whose package and seed were uploaded, and the id of its finished session."""
    folder = tmp_path_factory.mktemp("från fedn")
    client = client_in(folder, data=write_data(folder))
    np.savez(folder / "seed.npz", **{"0": np.ones(1)})
    assert client.set_active_package(str(PACKAGE), "numpyhelper", "means")["message"] == "Package uploaded"
    assert client.set_active_model(str(folder / "seed.npz"))["message"] == "Model added successfully"
    session_id = finish(client, name="first")
    client.add_attributes({"key": "charging", "value": "yes", "sender": {"name": "site-1", "client_id": "site-1"}})
    return client, session_id, folder
