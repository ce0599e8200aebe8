"""TensorBoard's event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.stores.base import RoundRow
from fedpkg.tracking.base import TrackedRound, TrackedRun
from fedpkg.tracking.tensorboard import TensorBoard

ROUNDS: dict[str, Any] = {"clients": 3, "rounds": 3, "validation": {"every": 2}}


def read(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
        found.Reload()
    return found


def test_scalars_text_and_histograms_are_what_the_rows_say(federation: Federation, at_once: AtOnce) -> None:
    trackers = [{"name": "tensorboard", "histograms": True, "aggregates": ["worst_tenth", "median"]}]
    session = federation.run(**ROUNDS, tracking=trackers, environment={"HF_TOKEN": "hf_123"})
    found = read(federation.home.session_folder(session.session_id) / "tensorboard")
    rows = federation.store.list_metric_rows(session.session_id)
    for name, attribute in (("", "weighted_mean"), ("/worst_tenth", "worst_tenth")):
        for phase, metric in {(row.phase, row.metric) for row in rows}:
            alike = [row for row in rows if (row.phase, row.metric) == (phase, metric)]
            expected = [(row.round_number, pytest.approx(getattr(row, attribute), rel=1e-6)) for row in alike]
            assert [(one.step, one.value) for one in found.Scalars(f"{phase}/{metric}{name}")] == expected
    assert [one.step for one in found.Scalars("validate/mean")] == [2, 3]
    assert [one.value for one in found.Scalars("round/ok")] == [3, 3, 3]
    histograms = found.Histograms("weights/w")
    assert [one.step for one in histograms] == [1, 2, 3]
    assert histograms[2].histogram_value.num == 21
    assert histograms[2].histogram_value.sum == pytest.approx(
        float(federation.model(f"{session.session_id}.3")["w"].sum()), rel=1e-5
    )
    (text,) = found.Tensors("config/text_summary")
    assert b"rounds: 3" in text.tensor_proto.string_val[0]
    assert b"HF_TOKEN: (hidden)" in text.tensor_proto.string_val[0]


def test_round_that_was_written_before_a_kill_counts_once(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(**ROUNDS, tracking=["tensorboard"])
    folder = federation.home.session_folder(session.session_id)
    (folder / "tracking" / "tensorboard.json").write_text(json.dumps({"rounds": 2, "kept": {}}))
    federation.resume(session.session_id, rounds=4)
    found = read(folder / "tensorboard")
    assert [one.step for one in found.Scalars("round/ok")] == [1, 2, 3, 4]


def test_point_of_a_sweep_has_its_choices_as_hyperparameters(tmp_path: Path) -> None:
    choices = {"arguments.train.lr": 0.5, "strategy": {"name": "fedavg"}, "seed": 3}
    tracker = TensorBoard(folder=str(tmp_path))
    run = TrackedRun("s-1", "s", tmp_path, {"rounds": 1}, 1, sweep=lambda: ("digits", choices))
    tracker.begin(run)
    row = RoundRow(session_id="s-1", round_number=1, cohort=[], target=0, started_at=0.0, strategy_metrics={"eps": 2.0})
    tracker.round(TrackedRound(row, ()))
    tracker.end("finished")
    metadata = read(tmp_path / "s-1").summary_metadata
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= set(metadata)
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    content = metadata["_hparams_/session_start_info"].plugin_data.content
    started = parse_session_start_info_plugin_data(content)
    assert started.hparams["arguments.train.lr"].number_value == 0.5
    assert started.hparams["strategy"].string_value == "{'name': 'fedavg'}"
