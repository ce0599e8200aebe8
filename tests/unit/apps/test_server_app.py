"""ServerApps as coordinators: rounds, replies, errors, and the same bits after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from federation import Federation
from records_at_once import PACKAGE, RecordsAtOnce
from server_apps import IMPORTS, ROUNDS, dying

from fedpkg.config import RunConfig


def config_of(federation: Federation, tmp_path: Path, app: str, **changes: Any) -> RunConfig:
    folder = tmp_path / "my app ü"
    (folder / "my_app").mkdir(parents=True, exist_ok=True)
    (folder / "my_app" / "server_app.py").write_text(app)
    strategy = {"name": "server_app", "folder": str(folder), "app": "my_app.server_app:app"}
    return federation.config(
        **{
            "package": str(PACKAGE),
            "clients": 4,
            "rounds": None,
            "run_config": {"num-server-rounds": 3},
            "strategy": {**strategy, **changes.pop("strategy", {})},
            **changes,
        }
    )


def main_of(lines: str) -> str:
    """An app whose main function has these lines."""
    body = "".join(f"    {line}\n" for line in lines.strip().splitlines())
    return f"{IMPORTS}\n@app.main()\ndef main(grid, context):\n{body}"


def outcome_of(federation: Federation, session_id: str) -> list[object]:
    rounds = federation.store.list_rounds(session_id)
    return [
        federation.digests(session_id),
        [(row.cohort, row.num_ok, row.strategy_metrics, row.train_metrics, row.metrics) for row in rounds],
    ]


def test_an_app_runs_in_rounds_that_are_shown_as_those_of_any_session(
    federation: Federation, tmp_path: Path, at_once: RecordsAtOnce, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="fedpkg.server_app"):
        session = federation.run(config_of(federation, tmp_path, dying(ROUNDS, "")))
    assert (session.status, session.error, session.num_rounds) == ("finished", None, 3)
    rounds = federation.store.list_rounds(session.session_id)
    assert [row.round_number for row in rounds] == [1, 2, 3]
    assert all(set(row.train_metrics) == set(row.metrics) == {"loss", "num_examples"} for row in rounds)
    assert all(row.strategy_metrics["strange"] is None for row in rounds)
    assert [row.round_number for row in federation.store.list_models(session.session_id)] == [1, 2, 3]
    assert list(federation.model(f"{session.session_id}.3")) == ["w", "b"]
    told = [record.getMessage() for record in caplog.records if record.name == "fedpkg.server_app"]
    assert [line.partition("text=")[2] for line in told] == [
        f"'round {number} of [\\'num-server-rounds\\']'" for number in (1, 2, 3)
    ] or len(told) == 3
