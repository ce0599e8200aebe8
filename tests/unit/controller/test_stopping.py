"""Stopping by a metric: the rule, its errors, the best model, and the same end however the session was interrupted."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import pytest
from at_once import AtOnce
from federation import Federation

from fedpkg.cli.main import run_command
from fedpkg.config_sections import StopConfig
from fedpkg.controller.events import Event, RoundFinished
from fedpkg.controller.stopping import StopWatch
from fedpkg.errors import ConfigError, Interrupted
from fedpkg.experiments.search import metric_of
from fedpkg.stores.base import RoundRow, SessionRow
from fedpkg.stores.metric_rows import best_round

NAN = float("nan")


def rounds_of(*values: float | None, **changes: Any) -> list[RoundRow]:
    row = RoundRow(session_id="s", round_number=1, cohort=[], target=0, started_at=0.0, status="finished")
    metrics = [{} if value == "unmeasured" else {"acc": value, "test_loss": value} for value in values]
    return [
        dataclasses.replace(row, round_number=number, metrics=found, **changes)
        for number, found in enumerate(metrics, 1)
    ]


def ends(values: list[Any], **stop: Any) -> tuple[int | None, int | None]:
    """The round after which the session stops, and the best round until then."""
    watch = StopWatch(StopConfig(**{"metric": "acc", **stop}), (), is_validated=True)
    rounds = rounds_of(*values)
    for row in rounds:
        watch.look(row)
        if watch.reason:
            break
    assert best_round({"metric": "acc", **stop}, rounds[: row.round_number]) == watch.best
    return (row.round_number if watch.reason else None), watch.best


@pytest.mark.parametrize(
    ("values", "stop", "expected"),
    [
        ([0.5, 0.95, 0.9], {"at_least": 0.95}, (2, 2)),
        ([0.5, 0.9, 0.8], {"at_least": 0.95}, (None, 2)),
        ([0.5, 0.2, 0.1], {"at_most": 0.2}, (2, 2)),
        ([0.5, 0.6, 0.6, 0.55, 0.7], {"patience": 2}, (4, 2)),
        ([0.5, "unmeasured", "unmeasured", 0.6, 0.6], {"patience": 2}, (None, 4)),
        ([0.5, NAN, None, 0.6], {"patience": 2}, (3, 1)),
        ([NAN, NAN], {"patience": 2}, (2, None)),
        ([0.50, 0.54, 0.58, 0.59], {"patience": 1, "min_delta": 0.1}, (2, 2)),
        ([0.50, 0.54, 0.61, 0.63, 0.64], {"patience": 2, "min_delta": 0.1}, (5, 5)),
        ([0.5, 0.4, 0.45, 0.42], {"patience": 2, "mode": "min"}, (4, 2)),
        ([0.5, 0.4, 0.45, 0.42], {"patience": 2, "metric": "test_loss"}, (4, 2)),
        ([0.3, 0.5, 0.5], {}, (None, 2)),
    ],
)
def test_rule_decides_the_last_round_and_the_best_one(
    values: list[Any], stop: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    assert ends(values, **stop) == expected


def test_metric_that_no_round_has_is_an_error_after_the_first_validated_round_with_those_that_exist() -> None:
    watch = StopWatch(StopConfig(metric="ac"), rounds_of("unmeasured", train_metrics={"lr": 1.0}), is_validated=True)
    with pytest.raises(ConfigError, match=r"round 2 has no metric 'ac'; did you mean 'acc'\?") as error:
        watch.look(rounds_of("unmeasured", 0.5, train_metrics={"lr": 1.0})[1])
    assert error.value.hint == "the metrics of the round: acc, test_loss, train/lr"


@pytest.mark.parametrize("metric", ["train/loss", "train_loss"])
def test_metric_of_training_has_two_spellings(metric: str) -> None:
    rounds = [dataclasses.replace(row, train_metrics={"loss": row.metrics["acc"]}) for row in rounds_of(0.9, 0.5, 0.7)]
    assert StopWatch(StopConfig(metric=metric), rounds, is_validated=True).best == 2
    assert best_round({"metric": metric}, rounds) == 2
    assert metric_of(rounds[0], metric) == 0.9
    assert metric_of(rounds[0], "validate/acc") == 0.9


@pytest.mark.parametrize("metric", ["train/loss", "anything"])
def test_metric_of_training_or_without_any_validation_should_be_there_after_the_first_round(metric: str) -> None:
    rounds = rounds_of("unmeasured", train_metrics={"lr": 1.0})
    with pytest.raises(ConfigError, match=f"round 1 has no metric '{metric}'"):
        StopWatch(StopConfig(metric=metric), rounds, is_validated=metric.startswith("train/"))


def test_metric_of_the_server_is_awaited_while_the_server_has_measured_nothing() -> None:
    watch = StopWatch(StopConfig(metric="server/acc", at_least=0.5), rounds_of(0.9), is_validated=True)
    (row,) = rounds_of(0.9)
    watch.look(dataclasses.replace(row, metrics={**row.metrics, "server/acc": 0.6}))
    assert watch.reason == "server/acc is 0.6 in round 1 (stop.at_least: 0.5)"


@pytest.mark.parametrize(
    ("stop", "problem"),
    [
        ({"at_least": 1.0, "at_most": 0.0}, "'stop.at_least' excludes 'stop.at_most'"),
        ({"at_least": 1.0, "mode": "min"}, "'stop.at_least' means that the highest value is best"),
        ({"at_least": NAN}, "'stop.at_least' must be a finite number"),
        ({"patience": 0}, "patience"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(
    federation: Federation, stop: dict[str, Any], problem: str
) -> None:
    with pytest.raises((ConfigError, msgspec.ValidationError), match=problem):
        federation.config(stop={"metric": "acc", **stop})


def outcome(federation: Federation, session: SessionRow) -> list[Any]:
    rounds = federation.store.list_rounds(session.session_id)
    return [federation.digests(session.session_id), [row.metrics for row in rounds], session.status, session.error]


STOPPING = {
    "clients": 2,
    "rounds": 6,
    "validation": {"every": 1},
    "keep": {"models": "last 1"},
    # It grows in each round, and the lowest value is best.
    "stop": {"metric": "mean", "at_most": -1e9, "patience": 3},
}


def test_session_stops_keeps_its_best_model_and_says_why(
    federation: Federation, at_once: AtOnce, capsys: pytest.CaptureFixture[str]
) -> None:
    session = federation.run(**STOPPING)  # type: ignore[arg-type]
    assert session.status == "finished"
    value = federation.store.get_round(session.session_id, 1).metrics["mean"]
    assert session.error == (
        f"mean has not improved in 3 measured rounds (stop.patience); best: {value:.6g} in round 1"
    )
    models = federation.store.list_models(session.session_id)
    assert {row.round_number: row.pruned for row in models} == {0: None, 1: None, 2: "last 1", 3: None, 4: None}
    home = str(federation.home.root)
    assert run_command(["model", "list", session.session_id, "--best", "--json", "--home", home]) == 0
    assert [row["round_number"] for row in json.loads(capsys.readouterr().out)] == [1]
    assert run_command(["home", "prune", "--keep-models", "last 1", "--json", "--home", home]) == 0
    assert federation.store.get_model(f"{session.session_id}.1").pruned is None


def test_stopped_session_ends_the_same_way_when_it_is_resumed(federation: Federation, at_once: AtOnce) -> None:
    session = federation.run(**STOPPING)  # type: ignore[arg-type]
    again = federation.resume(session.session_id)
    assert outcome(federation, again) == outcome(federation, session)
    more = federation.resume(session.session_id, rounds=9)
    assert outcome(federation, more) == outcome(federation, session), "the rule still holds"


def test_session_interrupted_after_any_round_stops_in_the_same_round(federation: Federation, at_once: AtOnce) -> None:
    expected = outcome(federation, federation.run(**STOPPING))  # type: ignore[arg-type]

    for last in (1, 2, 4):

        def interrupt(event: Event, last: int = last) -> None:
            if isinstance(event, RoundFinished) and event.round.round_number == last:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            federation.run(watch=interrupt, **STOPPING)  # type: ignore[arg-type]
        session = federation.store.list_sessions()[-1]
        assert outcome(federation, federation.resume(session.session_id)) == expected


def test_session_whose_metric_never_appears_fails_after_its_first_round(
    federation: Federation, at_once: AtOnce
) -> None:
    changes = {**STOPPING, "stop": {"metric": "maen", "at_least": 1.0}}
    with pytest.raises(ConfigError, match=r"round 1 has no metric 'maen'; did you mean 'mean'\?"):
        federation.run(**changes)  # type: ignore[arg-type]
    session = federation.store.list_sessions()[-1]
    assert (session.status, federation.store.count_rounds(session.session_id)) == ("failed", 1)
    with pytest.raises(ConfigError, match="round 1 has no metric 'maen'"):
        federation.resume(session.session_id)
