"""Validation of the global model by the clients: who, when, and what the averages are."""

from __future__ import annotations

import pytest
from federation import Federation


def test_metrics_are_averaged_over_clients_by_their_examples(federation: Federation) -> None:
    session = federation.run(clients=2, rounds=2, validation={"every": 1})
    rows = federation.store.list_validations(session.session_id, round_number=2)
    assert [row.client_id for row in rows] == ["client-0", "client-1"]
    assert {row.weight_source for row in rows} == {"reply"}
    metrics = federation.store.get_round(session.session_id, 2).metrics
    assert metrics["w_mean"] == pytest.approx(float(federation.model(f"{session.session_id}.2")["w"].mean()), abs=1e-5)
    assert metrics["num_examples"] == sum(row.weight for row in rows)


def test_validation_every_second_round_and_after_the_last(federation: Federation) -> None:
    session = federation.run(clients=2, rounds=5, validation={"every": 2})
    validated = {row.round_number for row in federation.store.list_validations(session.session_id)}
    assert validated == {2, 4, 5}


def test_fraction_of_the_clients_validates(federation: Federation) -> None:
    session = federation.run(clients=6, rounds=2, validation={"every": 1, "fraction": 0.3})
    chosen = [
        tuple(row.client_id for row in federation.store.list_validations(session.session_id, round_number=n))
        for n in (1, 2)
    ]
    assert [len(clients) for clients in chosen] == [2, 2]
    again = federation.run(clients=6, rounds=2, validation={"every": 1, "fraction": 0.3})
    assert (
        tuple(row.client_id for row in federation.store.list_validations(again.session_id, round_number=1)) == chosen[0]
    )


@pytest.mark.parametrize(
    ("word", "failure"),
    [("exit3", "exit_code"), ("bad_json", "bad_json"), ("no_file", "no_file"), ("raise", "exit_code")],
)
def test_client_that_cannot_validate_is_recorded_and_left_out(federation: Federation, word: str, failure: str) -> None:
    session = federation.run(
        clients=3, validation={"every": 1}, arguments={"validate": {"plan": f'{{"client-1": "{word}"}}'}}
    )
    assert session.status == "finished"
    assert federation.task(session, "client-1", "validate").failure == failure
    assert [row.client_id for row in federation.store.list_validations(session.session_id)] == ["client-0", "client-2"]


def test_nan_metrics_are_kept_but_do_not_spoil_the_average(federation: Federation) -> None:
    session = federation.run(
        clients=2, validation={"every": 1}, arguments={"validate": {"plan": '{"client-0": "nan"}'}}
    )
    rows = federation.store.list_validations(session.session_id)
    assert len(rows) == 2
    assert "nan" in str(rows[0].metrics).lower()
    averages = federation.store.get_round(session.session_id, 1).metrics
    assert averages and all(value == value for value in averages.values())


def test_nested_metrics_are_kept_whole(federation: Federation) -> None:
    session = federation.run(
        clients=1, validation={"every": 1}, arguments={"validate": {"plan": '{"client-0": "nested"}'}}
    )
    (row,) = federation.store.list_validations(session.session_id)
    assert isinstance(row.metrics, dict) and any(isinstance(value, (dict, list)) for value in row.metrics.values())


def test_package_that_cannot_validate_is_not_asked_to(federation: Federation, tmp_path: object) -> None:
    from pathlib import Path

    package = Path(str(tmp_path)) / "only train"
    package.mkdir()
    source = Path(federation.config().package)
    (package / "entrypoint.py").write_bytes((source / "entrypoint.py").read_bytes())
    commands = {"build": "python entrypoint.py init_seed", "train": "python entrypoint.py train"}
    lines = [f"  {name}:\n    command: {command}" for name, command in commands.items()]
    (package / "fedn.yaml").write_text("entry_points:\n" + "\n".join(lines) + "\n")
    session = federation.run(package=str(package), validation={"every": 1})
    assert session.status == "finished"
    assert federation.store.list_validations(session.session_id) == []
