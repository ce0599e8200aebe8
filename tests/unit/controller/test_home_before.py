"""A home that a version before this one wrote, with a session of each kind: it opens, shows, checks and resumes."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedpkg.cli.main import run_command
from fedpkg.errors import ConfigError
from fedpkg.means import means
from fedpkg.session import resuming
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

HOMES = Path(__file__).resolve().parents[2] / "homes"
TOLD: dict[str, Any] = json.loads((HOMES / "rules-2.json").read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home, in another folder than that in which it was written; so is the file of a session's strategy."""
    folder = tmp_path_factory.mktemp("hem från förr")
    with tarfile.open(HOMES / "rules-2.tar.gz") as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    with closing(sqlite3.connect(folder / "home" / "state.db")) as database, database:
        moved = {"old": TOLD["folder"], "new": json.dumps(str(folder), ensure_ascii=False)[1:-1]}
        database.execute("update sessions set config = replace(config, :old, :new)", moved)
    home = Home.open(folder / "home", create=False)
    open_store(home).close()  # brings it up to date, as resuming a session does
    return home


@pytest.mark.slow
def test_home_before_is_shown_and_is_whole(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> Any:
        assert run_command([*words, "--home", str(home.root), "--json"]) == 0, words
        return json.loads(capsys.readouterr().out)

    sessions = printed("session", "list")
    assert {row["name"]: row["status"] for row in sessions} == TOLD["status"]
    for row in sessions:
        shown = printed("session", "show", row["session_id"])
        assert shown["rounds"][0]["status"] == "finished"
        assert printed("session", "show", row["session_id"], "--round", "2"), row["name"]
        folders = [failure["folder"] for failure in shown["failures"]]
        assert all(Path(folder).is_dir() for folder in folders), "paths of the rows lie in the home where it is now"
    printed("home", "check")


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLD["outcomes"])
def test_session_of_a_home_before_resumes_to_the_bits_of_an_undisturbed_run(home: Home, name: str) -> None:
    if name == "isolated" and means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    if name == "private":
        pytest.importorskip("dp_accounting")
    session_id, before = answered(home, name)
    if name == "own":
        mend_strategy(session_id, home)
    resuming.resume(session_id, home, watch=lambda _: None, rounds=3)
    with open_store(home) as store:
        models = [store.get_model(f"{session_id}.{number}").digest for number in range(4)]
        metrics = [row.metrics for row in store.list_rounds(session_id)]
    assert models == TOLD["outcomes"][name]["models"]
    assert metrics == TOLD["outcomes"][name]["metrics"]
    _, after = answered(home, name)
    assert before <= after, "what was on record was not asked again"
    assert len({(request, client) for _, request, client in after}) == len(after)


def answered(home: Home, name: str) -> tuple[str, set[tuple[str, str | None, str]]]:
    """The session of that name, and its tasks of round 2 that succeeded, with their requests and clients."""
    with open_store(home) as store:
        (session_id,) = (row.session_id for row in store.list_sessions() if row.name == name)
        tasks = store.list_tasks(session_id, round_number=2)
    return session_id, {(task.task_id, task.request_id, task.client_id) for task in tasks if task.status == "ok"}


def mend_strategy(session_id: str, home: Home) -> None:
    """A strategy of one's own was written for the version before: it is refused with what to write instead."""
    with pytest.raises(ConfigError, match="'entry_points'; it is one of the traits"):
        resuming.resume(session_id, home, watch=lambda _: None)
    file = home.root.parent / "own.py"
    mended = (
        file.read_text()
        .replace("entry_points = ", "traits = Traits(entry_points=")
        .replace('"validate")', '"validate"))')
    )
    file.write_text(f"from fedpkg.strategies import Traits\n{mended}")
