"""Strategies in sessions: their rounds are those of the session, and a killed app goes on to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation import Federation
from records_at_once import RecordsAtOnce
from server_apps import IMPORTS, dying

from tests.unit.apps.test_server_app import config_of, outcome_of

APP = (
    IMPORTS
    + """
from fedpkg.apps.strategy import FedAdam, FedAvg, FedStrategy

class Early(FedAvg):
    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        die(f"aggregated-{server_round}")
        return found

    def should_stop(self, server_round, result):
        return server_round == 2

@app.main()
def main(grid, context):
    def evaluate(server_round, arrays):
        return MetricRecord({"sum": float(arrays["w"].numpy().sum())})

    initial = ArrayRecord({"w": np.zeros(3), "b": np.random.rand(2, 2)})
    first = Early(fraction_train=0.5).start(grid, initial, num_rounds=5, evaluate_fn=evaluate)
    second = FedAdam(fraction_train=0.5).start(grid, first.arrays, num_rounds=1)
    die("adam")
    FedStrategy("fedexp", fraction_evaluate=0).start(grid, second.arrays, num_rounds=1)
"""
)


def test_rounds_are_those_of_the_session_and_a_killed_app_goes_on_to_the_same_bits(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce
) -> None:
    session = federation.run(config_of(federation, tmp_path, dying(APP, "")))
    assert (session.status, session.error, session.num_rounds) == ("finished", None, 4)
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.num_ok for row in rounds] == [6, 6, 6, 4]
    assert [list(row.strategy_metrics) for row in rounds] == [["server_sum"], ["server_sum"], [], []]
    assert rounds[0].train_metrics.keys() == rounds[0].metrics.keys() == {"loss", "num_examples"}
    model = federation.model(f"{session.session_id}.2")
    assert float(model["w"].sum()) == pytest.approx(rounds[1].strategy_metrics["server_sum"])

    marks = tmp_path / "marks"
    marks.mkdir()
    places = ("aggregated-2", "adam")
    killed = federation.run(config_of(federation, tmp_path, dying(APP, str(marks), *places)))
    assert {path.name for path in marks.iterdir()} == set(places)
    assert outcome_of(federation, killed.session_id) == outcome_of(federation, session.session_id)


def test_a_node_that_fails_is_left_out(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    at_once.fails = {"client-1@1"}
    app = IMPORTS + (
        "\nfrom fedpkg.apps.strategy import FedAvg\n\n@app.main()\ndef main(grid, context):\n"
        '    FedAvg().start(grid, ArrayRecord({"w": np.zeros(3)}), num_rounds=2)\n'
    )
    with caplog.at_level("INFO", logger="fedpkg.server_app"):
        session = federation.run(config_of(federation, tmp_path, app))
    assert session.status == "finished"
    assert [row.num_ok for row in federation.store.list_rounds(session.session_id)] == [6, 8]
    told = " ".join(record.getMessage() for record in caplog.records if record.name == "fedpkg.server_app")
    assert "round 1: training: node 2 is left out: error 2: exit_code: it fails" in told
    assert "round 1: training, 3 of 4 replies: loss" in told
