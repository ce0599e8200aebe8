"""A federation across a socket has the bits of a local one, also when its controller or its far end was killed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from desk import FarProcess
from driven import outcome_of, write_config
from federation import DRIFTING, PACKAGES, Federation
from near_end import over
from warm import warm_python

from fedpkg.controller.events import TaskEnded
from fedpkg.session import executors
from fedpkg.stores.home import Home

FAILS = {"train": {"fails": "client-1@2,client-2@3,client-0@1"}}
KINDS = {
    # Draws that nobody seeds, what each client keeps beside its code, error feedback, validation.
    "updates": {
        "package": str(DRIFTING),
        "strategy": {"name": "fedavg", "transforms": [{"name": "top_k", "share": 0.3}]},
        "validation": {"every": 2, "fraction": 0.5},
    },
    "sets": {"package": str(PACKAGES / "control-variates"), "strategy": {"name": "sets_strategy:WithControl"}},
}


def killed(federation: Federation, far: FarProcess, *words: str) -> None:
    """A controller that killed itself while its tasks ran at the far end."""
    script = Path(__file__).with_name("drive_far.py")
    command = [*warm_python(), str(script), str(far.port), str(federation.home.root)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, (words, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("kind", "is_killed"),
    [
        pytest.param(kind, is_killed, marks=pytest.mark.slow if (kind == "updates") == is_killed else pytest.mark.soak)
        for kind in KINDS
        for is_killed in (True, False)
    ],
)
@pytest.mark.every_push("updates")
def test_federation_across_a_socket_has_the_bits_of_a_local_one(
    far: FarProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_killed: bool
) -> None:
    federation = Federation(Home.open(tmp_path / "ein Heim ü" / ".fedpkg"))
    changes = {"clients": 4, "rounds": 3, "sampler": {"fraction_train": 0.75}, "arguments": FAILS, **KINDS[kind]}
    config = federation.config(**changes)
    expected = outcome_of(federation, federation.run(config).session_id)
    assert any(row[3] for row in expected[1]), "some client failed"  # type: ignore[attr-defined]
    second_round = [
        number
        for number, event in enumerate(federation.events, 1)
        if isinstance(event, TaskEnded) and event.order.round_number == 2
    ]
    if not is_killed:
        monkeypatch.setattr(executors, "make_executor", over(far.port))
        assert outcome_of(federation, federation.run(config).session_id) == expected
        assert federation.findings() == []
        return
    # Killed in the middle of a round, while the far end lives on; killed again, and the far end as well.
    killed(federation, far, "--run", write_config(federation, config), "--kill-at", str(second_round[0]))
    session_id = federation.store.list_sessions()[-1].session_id
    assert not [finding for finding in federation.findings() if finding.damaged]
    killed(federation, far, "--resume", session_id, "--kill-at-step", "before:commit_round:1")
    far.kill()
    far.start()
    monkeypatch.setattr(executors, "make_executor", over(far.port))
    assert federation.resume(session_id).status == "finished"
    assert outcome_of(federation, session_id) == expected
    assert far.home.joinpath("sessions", session_id, "clients").is_dir(), "clients' states lie there"
    assert not federation.home.session_folder(session_id).joinpath("clients").exists(), "and not here"
