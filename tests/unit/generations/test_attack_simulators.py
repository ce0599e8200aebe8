"""Packages whose clients attack where their environment says so: as they are, beside a robust strategy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "controller"))
from federation import Federation

from fedpkg.config_reading import config_of
from fedpkg.errors import ConfigError
from fedpkg.means import means
from fedpkg.stores.home import Home

CLIENT = """
import os
import numpy as np
from fedn.utils.helpers.helpers import get_helper, save_metadata
import sys

helper = get_helper("numpyhelper")
malicious = os.environ.get("MALICIOUS", "false").strip().lower() == "true"
factor = int(os.environ.get("INFLATION_FACTOR", "1"))
number = int(os.environ["CLIENT_ID"].rpartition("-")[2])
step = 1.0 + 0.01 * number
if malicious and os.environ.get("ATTACK_TYPE") == "grad_boost_basic":
    step *= -factor
helper.save([array + step for array in helper.load(sys.argv[1])], sys.argv[2])
save_metadata({"num_examples": 10}, sys.argv[2])
"""
EVIL = {"MALICIOUS": "true", "ATTACK_TYPE": "grad_boost_basic", "INFLATION_FACTOR": "100"}


@pytest.mark.parametrize(
    "where",
    [
        "forkserver",
        "resident",
        pytest.param("process", marks=pytest.mark.soak),
        pytest.param("isolated", marks=pytest.mark.skipif(means().warm is None, reason="no isolation here")),
    ],
)
def test_krum_withstands_clients_that_attack_by_their_environment(tmp_path: Path, where: str) -> None:
    executor = "forkserver" if where == "isolated" else where
    federation = Federation(Home.open(tmp_path / "Heim" / ".fedpkg"))
    package = tmp_path / "client"
    package.mkdir()
    (package / "train.py").write_text(CLIENT)
    (package / "fedn.yaml").write_text("entry_points: {train: {command: python train.py}}\n")
    np.savez(tmp_path / "seed.npz", **{"0": np.zeros(2)})
    models = {}
    for name, strategy in (("krum", {"name": "krum", "attackers": 2}), ("fedavg", {"name": "fedavg"})):
        session = federation.run(
            federation.config(
                package=str(package),
                clients={"count": 7, "groups": {"evil": ["client-[56]"]}, "environment": {"evil": EVIL}},
                environment={"CLIENT_ID": "{client_id}"},
                seed_model=str(tmp_path / "seed.npz"),
                buffers=[],
                rounds=1,
                executor={"name": executor, "workers": 1},
                isolate={"enabled": where == "isolated"},
                validation={"every": 0},
                strategy=strategy,
            )
        )
        models[name] = federation.model(federation.digests(session.session_id)[-1])["0"].numpy()
    assert np.all(np.abs(models["krum"] - 1.0) < 0.05)
    assert np.all(models["fedavg"] < -20)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"good": {"A": "1"}}, "'clients.environment' has names of groups as keys, and 'clients.groups' has no 'good'"),
        ({"evil": {"OMP_NUM_THREADS": "2"}}, "'OMP_NUM_THREADS' in 'clients.environment.evil' cannot be set"),
        ({"evil": {"FEDPKG_SEED": "2"}}, "'FEDPKG_SEED' in 'clients.environment.evil' cannot be set"),
    ],
)
def test_environment_of_a_group_that_cannot_be_is_refused(environment: dict[str, dict[str, str]], message: str) -> None:
    clients = {"count": 3, "groups": {"evil": ["client-1"]}, "environment": environment}
    with pytest.raises(ConfigError, match=message):
        config_of({"package": "p", "rounds": 1, "clients": clients}, [])


def test_values_of_a_groups_environment_are_text_as_they_are_written() -> None:
    given = {"package": "p", "rounds": 1, "clients": {"count": 3, "groups": {"evil": ["client-1"]}}}
    config = config_of(given, ["clients.environment.evil.MALICIOUS=True"])
    assert config.clients.environment == {"evil": {"MALICIOUS": "True"}}
