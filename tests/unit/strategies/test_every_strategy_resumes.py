"""One contract over the registry: every strategy, killed in the middle of a federation, resumes to the same bits."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cohorts import COMPOSED, STEPPING, STRATEGY_NAMES, STRATEGY_SPECS, section_of
from warm import warm_python

from fedpkg.config import RunConfig, dump_config
from fedpkg.config_reading import config_from_json
from fedpkg.controller.events import Event, Preparing, RequestAsked, TaskEnded, TaskStarted
from fedpkg.session import beginning, resuming
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

DRIFTING = Path(__file__).resolve().parents[2] / "packages" / "drifting"
QUADRATIC = DRIFTING.with_name("quadratic")
DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"

TRANSFORMED: dict[str, dict[str, Any]] = {
    "few numbers of few bits, the rest later": {
        "aggregator": "weighted_mean",
        "transforms": [{"name": "top_k", "share": 0.2}, {"name": "quantise", "bits": 4}, "zstd"],
        "download_transforms": ["quantise"],
    },
    "noise at both ends": {
        "name": "fedavgm",
        "transforms": [{"name": "local_dp", "norm": 1.0, "epsilon": 1.0}],
        "server_transforms": [{"name": "gaussian_noise", "std": 0.1}, {"name": "random_k", "share": 0.5}],
    },
    "asynchronous, of few numbers": {
        **section_of("fedbuff"),
        "transforms": [{"name": "top_k", "share": 0.4}],
        "download_transforms": ["bfloat16"],
    },
}
TWICE = {"bucketing of krum", "norm bounding by examples"}  # what is kept of it is that of another name
# Those that are FedAvg to the server, and differ in what they send, stand for each other.
TWICE |= {spec.name for spec in STRATEGY_SPECS if spec.make.__module__.endswith("client_methods")} - {"fedprox"}
SECTIONS = {name: section_of(name) for name in (*STRATEGY_NAMES, *COMPOSED, *STEPPING) if name not in TWICE}
SECTIONS |= TRANSFORMED
# One for each kind of state; the others are left to `make soak`.
KINDS_OF_STATE = {
    "fedavg": "the model alone",
    "median, then Adam by a cosine": "moments of the server's optimiser, and where its schedule is",
    "bucketing of centred clipping": "the mean of before, and draws of the server",
    "dp_fedavg": "noise, a quantile that adapts, what is spent",
    "scaffold": "controls of the server and of the clients",
    "ifca": "several models",
    "accvrcs": "a generator that asks a random number of times",
    "noise at both ends": "noise of clients and of the server",
    "asynchronous, of few numbers": "requests that outlive a step, models of before, what clients have not sent yet",
}
assert KINDS_OF_STATE.keys() <= SECTIONS.keys()


def config_of(section: dict[str, Any]) -> RunConfig:
    """Nine clients of which one fails in the second round; draws that nobody seeds; a counter; state of the clients."""
    package, clients, arguments = DRIFTING, {"count": 9}, {"train": {"fails": "client-5@2"}}
    if section.get("name") in STEPPING:
        groups = {"server": ["client-0"], "f": ["client-[12]"], "g": ["client-[3-5]"]}
        package, clients = QUADRATIC, {"count": 6, "groups": groups}
        arguments = {"all": {"drifts": True}, "train": {"fails": "client-5@2"}, "gradient": {"fails": "client-4@2"}}
    return config_from_json(
        {
            "package": str(package),
            "rounds": 2,
            "clients": clients,
            "strategy": section,
            "arguments": arguments,
            "validation": {"every": 0},
            "executor": {"workers": 2},
        }
    )


def outcome_of(home: Home) -> tuple[list[str], Any]:
    with open_store(home, read_only=True) as store:
        session_id = store.list_sessions()[-1].session_id
        return [model.digest for model in store.list_models(session_id)], store.load_strategy_state(session_id)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in KINDS_OF_STATE else pytest.mark.soak) for name in SECTIONS],
)
def test_killed_in_its_last_round_it_resumes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    calm, killed = (Home.open(tmp_path / folder / ".fedpkg") for folder in ("in Ruhe", "getötet"))
    events: list[Event] = []
    config = config_of(SECTIONS[name])
    beginning.run(config, calm, watch=events.append)
    events = [event for event in events if not isinstance(event, (Preparing, RequestAsked, TaskStarted))]
    ends = [number for number, event in enumerate(events, 1) if isinstance(event, TaskEnded)]
    kill_at = ends[-min(4, len(ends) // 2)]
    (tmp_path / "config.json").write_text(json.dumps(dump_config(config)))
    command = [*warm_python(), str(DRIVE), str(killed.root), "--run", str(tmp_path / "config.json")]
    done = subprocess.run([*command, "--kill-at", str(kill_at)], stdout=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL
    with open_store(killed, read_only=True) as store:
        session_id = store.list_sessions()[-1].session_id
    resuming.resume(session_id, killed, watch=lambda event: None)
    models, state = outcome_of(calm)
    assert len(models) == 3 and len(set(models)) == 3, "every round made another model"
    assert outcome_of(killed) == (models, state)
