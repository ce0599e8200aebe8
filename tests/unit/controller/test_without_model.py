"""Sessions without a model: statistics over clients, asked for as records by a strategy, and by a coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting import Counting, make_package
from driven import killed, wait_until_gone, write_config
from federation import Federation

from fedpkg.cli.main import run_command
from fedpkg.config import RunConfig
from fedpkg.errors import ConfigError, FedpkgError, NotFound, SessionFailed
from fedpkg.session.session import Session
from fedpkg.types import ReplyKind
from fedpkg.weights import Weights
from tests.unit.data.reading import read_dataset

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "statistics"
COLUMNS, BINS = [0, 1, 7], 6
STRATEGY = {"file": str(EXAMPLE / "columns.py"), "columns": COLUMNS, "bins": BINS}
COORDINATOR = {
    "name": "coordinator",
    "command": "python server.py",
    "folder": str(EXAMPLE / "server"),
    "parameters": {"columns": COLUMNS, "bins": BINS},
    "has_model": False,
}
BOTH = pytest.mark.parametrize("strategy", [STRATEGY, COORDINATOR], ids=["strategy", "coordinator"])


def config_of(federation: Federation, strategy: dict[str, Any], **changes: Any) -> RunConfig:
    clients = {"count": 3, "data": {"dataset": "sklearn/breast_cancer"}}
    plain = {"package": str(EXAMPLE / "client"), "rounds": 5, "clients": clients, "strategy": strategy}
    return federation.config(**{**plain, **changes})


def pooled() -> list[dict[str, Any]]:
    """What one would compute who had all the data in one place."""
    x = read_dataset("sklearn/breast_cancer").arrays["x_train"].astype(np.float64)
    found = []
    for column in COLUMNS:
        counts, edges = np.histogram(x[:, column], np.linspace(x[:, column].min(), x[:, column].max(), BINS + 1))
        histogram = {"edges": edges.tolist(), "counts": counts.tolist()}
        mean, variance = x[:, column].mean(), x[:, column].var()
        found.append({"column": column, "rows": len(x), "mean": mean, "variance": variance, "histogram": histogram})
    return found


def told(federation: Federation, session_id: str) -> list[tuple[Any, ...]]:
    """All that must be the same however a session was run."""
    rounds = federation.store.list_rounds(session_id)
    state = federation.store.load_strategy_state(session_id)
    if state is not None and "rounds" in state[1]:  # a coordinator's: its record names what else differs
        state = None
    return [(row.cohort, row.counted, row.num_ok, json.dumps(row.strategy_metrics)) for row in rounds] + [(state,)]


@BOTH
@pytest.mark.parametrize(
    "executor", ["forkserver", *(pytest.param(name, marks=pytest.mark.slow) for name in ("process", "resident"))]
)
@pytest.mark.every_push("forkserver-strategy|resident-coordinator")
def test_statistics_are_those_of_the_pooled_data(
    federation: Federation, strategy: dict[str, Any], executor: str
) -> None:
    session = federation.run(config_of(federation, strategy, executor={"name": executor, "workers": 2}))
    assert (session.status, session.error) == ("finished", "all columns are done")
    rounds = federation.store.list_rounds(session.session_id)
    for row, expected in zip(rounds, pooled(), strict=True):
        numbers = {name: value for name, value in row.strategy_metrics.items() if name != "histogram"}
        assert row.strategy_metrics["histogram"]["counts"] == expected["histogram"]["counts"]
        assert row.strategy_metrics["histogram"]["edges"] == pytest.approx(expected.pop("histogram")["edges"])
        assert numbers == pytest.approx(expected, rel=1e-9)
        assert (row.model_id, row.num_ok, row.num_failed) == (None, 6, 0)
    assert federation.store.list_models() == []
    assert federation.findings() == []
    assert list(federation.home.session_folder(session.session_id).rglob("*.reply")) == []


@BOTH
@pytest.mark.timeout(400)
@pytest.mark.soak
def test_killed_at_any_event_a_session_without_a_model_resumes_to_the_same_bits(
    federation: Federation, strategy: dict[str, Any]
) -> None:
    undisturbed = federation.run(config_of(federation, strategy))
    expected, events = told(federation, undisturbed.session_id), len(federation.events)
    config = write_config(federation, config_of(federation, strategy))
    for kill_at in range(1, events, 7):
        killed(federation, "--run", config, "--kill-at", str(kill_at))
        wait_until_gone(federation)
        session = federation.store.list_sessions()[-1]
        assert federation.resume(session.session_id).status == "finished"
        assert told(federation, session.session_id) == expected, f"killed at event {kill_at}"
    assert federation.findings() == []


@BOTH
@pytest.mark.slow
@pytest.mark.every_push("strategy")
def test_killed_at_its_commit_a_session_without_a_model_resumes_to_the_same_bits(
    federation: Federation, strategy: dict[str, Any]
) -> None:
    undisturbed = federation.run(config_of(federation, strategy))
    config = write_config(federation, config_of(federation, strategy))
    killed(federation, "--run", config, "--kill-at-step", "before:commit_round:2")
    session = federation.store.list_sessions()[-1]
    assert federation.resume(session.session_id).status == "finished"
    assert told(federation, session.session_id) == told(federation, undisturbed.session_id)


def test_commands_say_that_there_is_no_model(
    federation: Federation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    session = federation.run(config_of(federation, {**STRATEGY, "columns": [0]}))
    home = ["--home", str(federation.home.root)]

    def says(*words: str, code: int = 0) -> str:
        assert run_command([*words, *home]) == code, words
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return out + err

    shown = says("session", "show")
    assert "none (the strategy has no model)" in shown and "14.1" in shown
    assert "column-range  " in says("session", "show", "--round", "1")
    assert session.session_id in says("session", "list")
    (row,) = json.loads(says("session", "show", "--json"))["rounds"]
    assert sum(row["strategy_metrics"]["histogram"]["counts"]) == 455
    assert says("model", "list") == "there is no model\n" and says("model", "list", "--json") == "[]\n"
    for words in (["model", "export", "-o", str(tmp_path / "m.npz")], ["model", "trail"]):
        assert f"session {session.session_id} has no model" in says(*words, code=7), words
    assert "nothing damaged" in says("home", "check")
    says("home", "prune", "--keep-models", "last 1", "--keep-task-folders", "last 1", "--orphans")
    opened = Session.open(federation.home)
    assert opened.models == [] and opened.metrics()[0]["mean"] == pytest.approx(14.1, abs=0.5)
    with pytest.raises(NotFound, match="has no model"):
        opened.model()


# ---- what does not go together


@pytest.mark.parametrize("began", ["", "out"])
def test_strategy_that_changes_its_mind_about_a_model_is_refused(
    federation: Federation, tmp_path: Path, began: str
) -> None:
    file = tmp_path / "turning.py"
    code = """
from fedpkg.strategies import Traits, register_strategy

@register_strategy("turning-from-HAS_MODEL")
class Turning:
    traits = Traits(has_model=HAS_MODEL)
    def init(self, seed_model):
        return {"model": seed_model}
    def step(self, state, ctx):
        yield []
        return state
"""
    file.write_text(code.replace("HAS_MODEL", str(not began)))
    session = federation.run(rounds=1, strategy={"file": str(file)})
    file.write_text(file.read_text().replace(f"has_model={not began}", f"has_model={bool(began)}"))
    with pytest.raises(ConfigError, match=f"started with{began} a model, and its strategy now has"):
        federation.resume(session.session_id, rounds=2)


COUNTING: dict[str, Any] = {"strategy": {"name": "counting:Counting"}, "rounds": 1}


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A package with one entry point, which is none of the usual: its third client's reply is no file of records."""
    return make_package(tmp_path / "ein Paket")


def test_reply_that_is_no_records_is_that_clients_failure(federation: Federation, package: str) -> None:
    session = federation.run(package=package, **COUNTING)
    (row,) = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics == {"weights": {"client-0": 0.0, "client-1": 1.0}}
    assert (row.counted, row.num_failed, row.num_examples) == (["client-0", "client-1"], 1, 0.0)
    task = federation.task(session, "client-2", "how-is.it")
    assert task.failure == "bad_file" and "its key is not that of a records file" in (task.message or "")
    (request,) = federation.store.list_requests(session.session_id)
    assert (request.entry_point, request.reply_kind) == ("how-is.it", "records")
    assert federation.store.list_clients(session.session_id)[0].last_num_examples is None


def test_failed_task_of_records_can_be_repeated_by_hand(
    federation: Federation, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = federation.run(package=package, **COUNTING)
    folder = federation.folder(federation.task(session, "client-2", "how-is.it"))
    words = ["package", "call", package, "how-is.it", "--task", str(folder)]
    assert run_command(words) == 8
    assert "its key is not that of a records file" in capsys.readouterr().err
    assert run_command([*words, "--client-id", "client-1", "--json"]) == 0
    called = json.loads(capsys.readouterr().out)
    assert (called["sets"], called["data"], called["num_examples"]) == (["a"], None, 1.0)
    assert [tensor["name"] for tensor in called["tensors"]] == ["a/b"]
    assert run_command([*words, "--client-id", "client-0"]) == 0
    out = capsys.readouterr().out
    assert "sets: none" in out and '"num_examples": 0' in out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed_model": "seed.npz"}, "has no model, but the configuration sets seed_model"),
        ({"buffers": ["x"], "helper": "numpyhelper"}, "has no model, but the configuration sets buffers, helper"),
        ({"validation": {"every": 3}}, r"has no model, but the configuration sets validation\.every"),
        ({"validation": {"fraction": 0.5}}, r"has no model, but the configuration sets validation\.fraction"),
        ({"keep": {"models": "last 2"}}, r"has no model, but the configuration sets keep\.models"),
        ({"strategy": {"name": "counting:WithPrivacy"}}, "so it cannot declare a treatment"),
        ({"arguments": {"how-is.its": {"lr": 1}}}, "unknown entry point 'how-is.its' in 'arguments'; did you mean"),
    ],
)
def test_what_is_said_of_a_model_is_refused_before_anything_runs(
    federation: Federation, package: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        federation.run(package=package, **{**COUNTING, **changes})
    assert federation.store.list_sessions() == []


@pytest.mark.parametrize(
    ("request_", "metrics", "reason"),
    [
        ({"reply_kind": ReplyKind.UPDATE}, {}, "without a model, the strategy asks for update"),
        ({"reply_kind": ReplyKind.SETS, "sets": {"x": None}}, {}, "without a model, the strategy asks for sets"),
        ({"transforms": object()}, {}, "transforms require an update, not records"),
        ({"download": object()}, {}, "transforms of a download"),
        ({"payload": None}, {}, "a payload must be Weights, several named Weights, or Records"),
        ({"entry_point": "how-is.its"}, {}, "the package has no entry point 'how-is.its'; did you mean 'how-is.it'"),
        ({}, {"w": Weights({})}, "metrics are JSON; they cannot contain Weights"),
    ],
)
def test_what_needs_a_model_fails_with_a_reason(
    federation: Federation, package: str, monkeypatch: pytest.MonkeyPatch, request_: Any, metrics: Any, reason: str
) -> None:
    monkeypatch.setattr(Counting, "request", request_)
    monkeypatch.setattr(Counting, "metrics", metrics)
    with pytest.raises(FedpkgError, match=reason):
        federation.run(package=package, **COUNTING)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", ["after:commit_round:1", "before:finish_round:1", "before:commit_round:2"])
@pytest.mark.every_push("commit_round")
def test_records_may_stay_asked_over_rounds_and_controllers(federation: Federation, package: str, kill_at: str) -> None:
    """And a state may hold some."""
    config = federation.config(package=package, strategy={"name": "counting:Polling"}, rounds=2)
    killed(federation, "--run", write_config(federation, config), "--kill-at-step", kill_at)
    wait_until_gone(federation)
    (session,) = federation.store.list_sessions()
    assert federation.resume(session.session_id).status == "finished"
    row = federation.store.list_rounds(session.session_id)[1]
    assert row.strategy_metrics["weights"] == {"client-0": 0.0, "client-1": 1.0}
    names = [["a/b %", [""]], ["", []], ["$weights", ["1", "0"]]]
    assert row.strategy_metrics["kept"] == [names, {"$weights": [None]}]
    assert federation.findings() == []


def test_weights_and_what_fits_them_go_without_a_model(
    federation: Federation, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(package) / "plain.py"
    path.write_text("import sys\nimport numpy as np\nnp.savez(sys.argv[2], **np.load(sys.argv[1]))\n")
    payload = {"payload": Weights({"w": torch.ones(2)}), "reply_kind": ReplyKind.UPDATE}
    monkeypatch.setattr(Counting, "request", payload)
    session = federation.run(package=package, **COUNTING, round={"weighting": "equal"})
    (row,) = federation.store.list_rounds(session.session_id)
    assert row.strategy_metrics["weights"] == {f"client-{i}": 1.0 for i in range(3)}


def test_coordinator_without_a_model_cannot_commit_one(federation: Federation, package: str, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    code = "from fedpkg.client import coordinator\nfor step in coordinator.rounds():\n    assert step.path is None\n"
    (folder / "server.py").write_text(f"{code}    step.commit({{'w': 1.0}})\n")
    with pytest.raises(SessionFailed, match="it committed a model, but the session has none"):
        federation.run(package=package, rounds=1, strategy={**COORDINATOR, "folder": str(folder)})
