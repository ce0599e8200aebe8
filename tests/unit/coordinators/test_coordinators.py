"""Coordinators: programs that ask clients from outside the slots, killed and started again to the same bits."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from at_once import AtOnce
from bad_programs import BAD, ROUNDS
from federation import DRIFTING, MISBEHAVE, Federation
from warm import warm_python

from fedpkg.config import RunConfig, dump_config
from fedpkg.errors import ConfigError, FedpkgError, Interrupted, SessionFailed
from fedpkg.means import means
from fedpkg.session.session import prepare
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "coordinators.md").read_text()
DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"

# Federated averaging, with the additions of the strategy fedavg (of at most 16 clients).
FEDAVG = """
import torch
from fedpkg.client import coordinator

for step in coordinator.rounds():
    [train] = step.ask("train")
    sums, total, largest = None, sum(reply.num_examples for reply in train), 0
    for reply in train:
        update, n = reply.load(), reply.num_examples
        if sums is None:
            sums = {name: tensor * n if tensor.is_floating_point() else tensor for name, tensor in update.items()}
        else:
            for name, tensor in update.items():
                if tensor.is_floating_point():
                    sums[name].add_(tensor, alpha=n)
                elif n > largest:
                    sums[name] = tensor
        largest = max(largest, n)
    step.commit({name: tensor / total if tensor.is_floating_point() else tensor for name, tensor in sums.items()})
"""

# Whoever is idle begins; the first two to answer move the model. It looks once, goes on, and then waits.
GOES_ON = """
import numpy as np
from fedpkg.client import coordinator
from fedpkg.client.coordinator import Request

busy = set()
for step in coordinator.rounds():
    idle = [one.client_id for one in step.clients if one.client_id not in busy]
    begun = step.ask(*(Request("train", clients=[name], wait="nothing") for name in idle))
    assert all(one.is_outstanding and not one and one.round_number == step.round_number for one in begun)
    busy.update(idle)
    model, found = dict(np.load(step.path)), step.arrived(0)
    while len(found) < 2:
        found += step.arrived()
    for replies in found:
        assert not replies.is_outstanding and replies.round_number <= step.round_number
        busy.remove(replies.asked[0])
        for reply in replies:
            update = np.load(reply.path)
            model = {name: ((model[name] + update[name]) / 2).astype(model[name].dtype) for name in model}
    step.commit(model)
"""

# Two requests in a round, the second to a client that the first chose; what it remembers is in its memory alone.
ASKS_TWICE = """
import os, signal, sys
import numpy as np
from fedpkg.client import coordinator
from fedpkg.client.coordinator import Request

def die_once(where):
    if where in sys.argv[1:] and not os.path.exists(f"{sys.argv[1]}/{where}"):
        open(f"{sys.argv[1]}/{where}", "x").close()
        os.kill(os.getpid(), signal.SIGKILL)

memory = 0.0
for step in coordinator.rounds():
    if step.checkpoint is not None:
        memory = float(step.checkpoint)
    print(step.round_number)
    die_once(f"begun-{step.round_number}")
    [train] = step.ask("train")
    step.log(f"asked, in process {os.getpid()}")
    die_once(f"asked-{step.round_number}")
    mean = {name: np.mean([np.load(reply.path)[name] for reply in train], axis=0) for name in np.load(step.path)}
    mean = {"w": mean["w"].astype(np.float32), "steps": np.int64(mean["steps"])}
    first = train[0].client_id
    again, measured = step.ask(
        Request("train", clients=[first], payload=mean),
        Request("validate", clients=[first], reply_kind="metrics", payload=mean),
    )
    memory = 0.5 * memory + measured[0].metrics["mean"]
    last = {"w": np.load(again[0].path)["w"] + np.float32(memory), "steps": mean["steps"]}
    die_once(f"ends-{step.round_number}")
    keeps = str(memory).encode() if "checkpoints" in sys.argv and step.round_number == 2 else None
    step.commit(last, metrics={"memory": memory}, checkpoint=keeps)
"""


def config_of(federation: Federation, tmp_path: Path, program: str, *words: str, **changes: Any) -> RunConfig:
    folder = tmp_path / "mein Koordinator ü"
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(program)
    strategy = {"name": "coordinator", "folder": str(folder), "command": " ".join(["python server.py", *words])}
    return federation.config(
        **{
            "package": str(DRIFTING),
            "clients": 3,
            "rounds": 3,
            "sampler": {"fraction_train": 0.7},
            "executor": {"workers": 1},
            "strategy": {**strategy, **changes.pop("strategy", {})},
            **changes,
        }
    )


def at_once_config(federation: Federation, tmp_path: Path, program: str, **changes: Any) -> RunConfig:
    plain = {"rounds": 1, "clients": 2, "sampler": {}, "package": str(MISBEHAVE)}
    return config_of(federation, tmp_path, program, **{**plain, **changes})


def processes_of(federation: Federation) -> list[psutil.Process]:
    """What is left of all that was started for this test, and does not end."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(federation.home.root) in str(process.environ().values()) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return psutil.wait_procs(found, timeout=20)[1]


def drive(federation: Federation, *words: str) -> int:
    """A controller in a process of its own."""
    environ = {**os.environ, "TEST_MARK": str(federation.home.root)}
    return subprocess.run([*warm_python(), str(DRIVE), str(federation.home.root), *words], env=environ).returncode


def outcome_of(federation: Federation, session: SessionRow) -> list[object]:
    rounds = federation.store.list_rounds(session.session_id)
    return [
        federation.digests(session.session_id),
        [(row.cohort, row.counted, row.num_ok, row.num_failed, row.strategy_metrics) for row in rounds],
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What ASKS_TWICE comes to when nothing ends it."""
    folder = tmp_path_factory.mktemp("ungestört")
    federation = Federation(Home.open(folder / ".fedpkg"))
    return outcome_of(federation, federation.run(config_of(federation, folder, ASKS_TWICE)))


@pytest.mark.slow
def test_federated_averaging_as_a_program_has_the_bits_of_fedavg(federation: Federation, tmp_path: Path) -> None:
    config = config_of(federation, tmp_path, FEDAVG, rounds=2)
    session = federation.run(config)
    plain = federation.run(msgspec.structs.replace(config, strategy={"name": "fedavg"}))
    assert session.status == "finished"
    assert federation.digests(session.session_id) == federation.digests(plain.session_id)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["begun-2", "asked-2", "ends-3"])
@pytest.mark.every_push("asked-2")
def test_a_coordinator_that_is_killed_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, undisturbed: list[object], where: str
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    killed = federation.run(config_of(federation, tmp_path, ASKS_TWICE, str(marks), where))
    assert [path.name for path in marks.iterdir()] == [where]
    assert outcome_of(federation, killed) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("at", 6),
        pytest.param(("step", "after:commit_round:2"), marks=pytest.mark.soak),
        *(pytest.param(("at", number), marks=pytest.mark.soak) for number in (3, 8, 13)),
    ],
)
def test_a_controller_that_is_killed_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, undisturbed: list[object], words: tuple[str, object]
) -> None:
    how, when = words
    config = config_of(federation, tmp_path, ASKS_TWICE, "checkpoints")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    option = "--kill-at" if how == "at" else "--kill-at-step"
    assert drive(federation, "--run", str(path), option, str(when)) == -signal.SIGKILL
    assert not processes_of(federation)
    [killed] = federation.store.list_sessions()
    session = federation.resume(killed.session_id)
    assert session.status == "finished" and outcome_of(federation, session) == undisturbed
    assert not processes_of(federation)


def test_a_program_goes_on_while_its_requests_are_outstanding(federation: Federation, tmp_path: Path) -> None:
    arguments = {"train": {"up-to": 0.1, "fails": "client-1@2"}}
    config = config_of(federation, tmp_path, GOES_ON, rounds=4, arguments=arguments, executor={"workers": 3})
    session = federation.run(config)
    arrivals = [key for row in federation.store.list_rounds(session.session_id) for got in row.arrivals for key in got]
    assert len(arrivals) >= 8 and any(by_round > 1 for by_round, _ in arrivals)
    replayed = federation.run(msgspec.structs.replace(config, replay=session.session_id))
    assert federation.digests(replayed.session_id) == federation.digests(session.session_id)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [6, 14])
@pytest.mark.every_push("14")
def test_killed_with_outstanding_requests_a_program_is_told_the_same(
    federation: Federation, tmp_path: Path, kill_at: int
) -> None:
    arguments = {"train": {"up-to": 0.1}}
    config = config_of(federation, tmp_path, GOES_ON, rounds=4, arguments=arguments, executor={"workers": 3})
    path = federation.home.root / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    assert drive(federation, "--run", str(path), "--kill-at", str(kill_at)) == -signal.SIGKILL
    session = federation.store.list_sessions()[-1]
    assert federation.resume(session.session_id).status == "finished"
    replayed = federation.run(msgspec.structs.replace(config, replay=session.session_id))
    assert federation.digests(replayed.session_id) == federation.digests(session.session_id)


@pytest.mark.soak
@pytest.mark.slow
def test_a_program_that_changed_within_a_round_is_refused(
    federation: Federation, tmp_path: Path, undisturbed: list[object]
) -> None:
    config = config_of(federation, tmp_path, ASKS_TWICE)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dump_config(config)))
    assert drive(federation, "--run", str(path), "--kill-at", "6") == -signal.SIGKILL
    [killed] = federation.store.list_sessions()
    program = tmp_path / "mein Koordinator ü" / "server.py"
    program.write_text(ASKS_TWICE.replace('mean["w"].astype', '(mean["w"] + 1).astype'))
    for _ in range(2):
        with pytest.raises(
            SessionFailed, match=r"message 2 of round 1 differs from the recorded one: .* now has other bytes"
        ):
            federation.resume(killed.session_id)
    program.write_text(ASKS_TWICE)
    session = federation.resume(killed.session_id)
    assert outcome_of(federation, session) == undisturbed


def test_a_checkpoint_cuts_what_is_on_record(federation: Federation, tmp_path: Path, undisturbed: list[object]) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    session = federation.run(config_of(federation, tmp_path, ASKS_TWICE, str(marks), "begun-3", "checkpoints"))
    folder = federation.home.session_folder(session.session_id) / "coordinator"
    assert (marks / "begun-3").exists()
    assert {path.name for path in (folder / "starts").iterdir()} == {"1", "2"}
    printed = (folder / "starts" / "2" / "stdout.log").read_text()
    assert printed.split() == ["3"], "it was given no round before its checkpoint"
    assert not federation.findings()
    assert outcome_of(federation, session) == undisturbed


def test_a_program_that_sends_something_else_than_on_record_is_refused(federation: Federation, tmp_path: Path) -> None:
    config = config_of(federation, tmp_path, ASKS_TWICE, "undisturbed", rounds=2)
    session = federation.run(config)
    program = tmp_path / "mein Koordinator ü" / "server.py"
    program.write_text(ASKS_TWICE.replace("np.float32(memory)", "np.float32(memory) + 1"))
    with pytest.raises(
        SessionFailed, match=r"round 3: the coordinator: message 3 of round 1 .* now has other bytes in"
    ):
        federation.resume(session.session_id, rounds=3)
    program.write_text(ASKS_TWICE.replace('step.ask("train")', 'step.ask("train", parameters={"mu": 1})'))
    with pytest.raises(SessionFailed, match=r'message 1 of round 1 .*: it sends .*"mu": 1.*, but sent .*"ask"'):
        federation.resume(session.session_id, rounds=3)
    program.write_text(ASKS_TWICE)
    assert federation.resume(session.session_id, rounds=3).status == "finished"
    assert not processes_of(federation)


@pytest.mark.parametrize("words", BAD, ids=[re.sub(r"\W+", "-", word)[:40] for word in BAD])
def test_a_bad_coordinator_is_a_clear_error_and_leaves_nothing_behind(
    federation: Federation, tmp_path: Path, words: str, at_once: AtOnce
) -> None:
    forks = "import os, time\nif not os.fork():\n    os.setsid(); time.sleep(600)\n"
    waits = {"timeout_s": 0.5} if "sent nothing" in words else {}
    config = at_once_config(federation, tmp_path, forks + BAD[words], strategy=waits)
    with pytest.raises(FedpkgError, match=words):
        federation.run(config)
    [session] = federation.store.list_sessions()
    assert session.status == "failed"
    assert not processes_of(federation)
    logs = list((federation.home.session_folder(session.session_id) / "coordinator" / "starts").rglob("*"))
    assert all(path.is_dir() or (path.suffix == ".log" and path.stat().st_size <= 2 << 20) for path in logs)


def test_a_flood_of_log_lines_is_cut(federation: Federation, tmp_path: Path, at_once: AtOnce, caplog: Any) -> None:
    floods = ROUNDS + "[step.log('x' * 9999) for _ in range(3000)]; step.commit()"
    config = at_once_config(federation, tmp_path, floods)
    with caplog.at_level("INFO", logger="fedpkg.coordinators"):
        assert federation.run(config).status == "finished"
    assert len(caplog.records) == 101 and max(len(record.getMessage()) for record in caplog.records) < 600


def test_a_coordinator_ends_the_session_when_it_has_finished(
    federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    ends = ROUNDS + "step.commit(metrics={'n': 1}, finished='enough')"
    session = federation.run(at_once_config(federation, tmp_path, ends, rounds=5))
    assert (session.status, session.error) == ("finished", "enough")
    [row] = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics == {"n": 1}


@pytest.mark.skipif(means().cold is None, reason="no isolation here")
def test_an_isolated_coordinator_sees_its_own_folders_alone(
    federation: Federation, tmp_path: Path, undisturbed: list[object]
) -> None:
    spies = ASKS_TWICE.replace(
        "memory = 0.0\n", f"memory = 0.0\nassert not os.path.exists({str(federation.home.models)!r})\n"
    )
    session = federation.run(config_of(federation, tmp_path, spies, "undisturbed", isolate={"enabled": True}))
    assert outcome_of(federation, session) == undisturbed


def test_a_coordinator_without_its_folder_is_refused_before_anything_runs(federation: Federation) -> None:
    strategy = {"name": "coordinator", "command": "python server.py", "folder": "/nowhere/at/all"}
    with pytest.raises(ConfigError, match="there is no folder /nowhere/at/all"):
        federation.run(federation.config(strategy=strategy))


def test_a_coordinator_does_not_keep_a_session_from_stopping(federation: Federation, tmp_path: Path) -> None:
    began = threading.Event()

    class Began(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            began.set()

    sleeps = ROUNDS + "step.log('it sleeps'); import time; time.sleep(600)"
    session = prepare(at_once_config(federation, tmp_path, sleeps), federation.home)
    logger, handler = logging.getLogger("fedpkg.coordinators"), Began()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        session.start()
        began.wait()
        session.stop()
        with pytest.raises(Interrupted):
            session.join()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert not processes_of(federation)


def test_the_program_of_the_page_runs_as_it_stands_there(
    federation: Federation, tmp_path: Path, at_once: AtOnce
) -> None:
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    config = at_once_config(federation, tmp_path, program, rounds=2, strategy={"parameters": {"step": 0.5}})
    session = federation.run(config)
    [_, last] = federation.store.list_rounds(session.session_id)
    assert session.status == "finished" and last.strategy_metrics["examples"] > 0
    assert len(set(federation.digests(session.session_id))) == 3


def test_a_home_in_the_programs_folder_is_not_copied(federation: Federation, tmp_path: Path, at_once: AtOnce) -> None:
    looks = ROUNDS + "step.commit(metrics={'found': len(os.listdir('.'))})"
    (federation.home.root.parent / "server.py").write_text(looks)
    own = {"name": "coordinator", "command": "python server.py", "folder": str(federation.home.root.parent)}
    session = federation.run(federation.config(strategy=own))
    [row] = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics == {"found": 1}
    with pytest.raises(ConfigError, match="is the home"):
        federation.run(federation.config(strategy={**own, "folder": str(federation.home.root)}))
