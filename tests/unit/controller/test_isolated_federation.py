"""A whole federation whose clients are isolated: the same model, and a client that spies is a failure of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from federation import Federation

from fedpkg.errors import ConfigError
from fedpkg.means import means

ISOLATE = {"enabled": True}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    if means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    for number in range(4):
        folder = tmp_path / "Daten der Kunden" / f"client-{number}"
        folder.mkdir(parents=True)
        (folder / "data.csv").write_text(f"{number}")
    return {"folders": str(tmp_path / "Daten der Kunden" / "*")}


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["process", "forkserver"])
@pytest.mark.every_push("forkserver")
def test_isolated_federation_gives_the_same_models(
    federation: Federation, folders: dict[str, Any], executor: str
) -> None:
    run: dict[str, Any] = {"clients": folders, "rounds": 2, "executor": {"name": executor, "workers": 2}}
    open_session = federation.run(**run)
    isolated = federation.run(**run, isolate=ISOLATE)
    assert federation.digests(isolated.session_id) == federation.digests(open_session.session_id)
    assert federation.steps_taken(isolated, 2) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("executor", ["process", "forkserver"])
def test_client_that_spies_fails_and_the_others_mean_stands(
    federation: Federation, folders: dict[str, Any], executor: str
) -> None:
    session = federation.run(
        clients=folders, plan={"client-1": "spy"}, isolate=ISOLATE, executor={"name": executor, "workers": 2}
    )
    row = federation.task(session, "client-1")
    assert row.failure == "exit_code"
    assert "; the task was isolated, and its log contains " in (row.message or "")
    assert "nothing to see" in (row.log_tail or "")
    assert [federation.task(session, f"client-{number}").status for number in (0, 2, 3)] == ["ok"] * 3
    assert federation.steps_taken(session, 1) == pytest.approx(1.0, abs=1e-6)


def test_isolated_session_resumes_isolated(federation: Federation, folders: dict[str, Any]) -> None:
    session = federation.run(clients=folders, plan={"client-1@2": "spy"}, isolate=ISOLATE)
    resumed = federation.resume(session.session_id, rounds=2)
    assert "nothing to see" in (federation.task(resumed, "client-1").log_tail or "")


def test_resident_is_refused_before_anything_is_recorded(federation: Federation) -> None:
    with pytest.raises(ConfigError, match=r"'isolate\.enabled' excludes the executor 'resident'"):
        federation.config(isolate=ISOLATE, executor={"name": "resident"})
    assert not federation.home.state_db.exists() or not federation.store.list_sessions()
