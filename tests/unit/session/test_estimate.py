"""What a session needs is told before it starts, and refused where the disk cannot hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedpkg.config import RunConfig
from fedpkg.config_reading import config_of
from fedpkg.controller.events import Estimated, Event
from fedpkg.errors import StoreError
from fedpkg.library import run
from fedpkg.session.configuration import resolved
from fedpkg.session.estimate import Estimate, Known, check_disk, estimate, known_of, total
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.prune import size_of

DRIFTING = Path(__file__).resolve().parents[2] / "packages" / "drifting"


def tree(**values: Any) -> dict[str, Any]:
    return {"package": str(DRIFTING), "rounds": 4, "clients": {"count": 10}, **values}


def config(**values: Any) -> RunConfig:
    return config_of(tree(**values), resolve=resolved)


def test_models_replies_and_logs_are_counted_by_the_rules_that_keep_them() -> None:
    mb = 1_000_000
    everything = estimate(config(), Known(100 * mb))
    assert everything.num_tasks == 80 and everything.has_models
    assert 1800 * mb < everything.disk_bytes < 1810 * mb, "4 + 4 models, and the replies of one round"
    last = estimate(config(keep={"models": "last 1", "task_folders": "last 1"}), Known(100 * mb))
    assert 1600 * mb < last.disk_bytes < 1601 * mb
    updates = estimate(config(keep={"updates": True}), Known(100 * mb))
    assert updates.disk_bytes == everything.disk_bytes + 3000 * mb
    fewer = estimate(config(sampler={"count": 2}, validation={"every": 0}), Known(100 * mb))
    assert fewer.num_tasks == 8 and 1000 * mb < fewer.disk_bytes < 1001 * mb
    assert total([everything, last]).disk_bytes == everything.disk_bytes + last.disk_bytes


@pytest.mark.soak
def test_estimate_of_a_session_is_near_what_it_has_taken(tmp_path: Path) -> None:
    session = run(tree(rounds=3), tmp_path, progress=False)
    with open_store(session.home, read_only=True) as store:
        known = known_of(config(), store)
    assert known.model_bytes == session.models[0].size_bytes and known.task_s is not None and known.task_s > 0
    needed = estimate(config(rounds=3), known)
    taken = size_of(session.home.session_folder(session.id)) + session.home.state_db.stat().st_size
    # Files are smaller than the blocks and folders that they take.
    assert taken < needed.disk_bytes < 10 * taken
    assert needed.seconds == pytest.approx(sum(row.wall_s or 0 for row in session.rounds))


def test_words_have_sizes_and_times_as_people_read_them() -> None:
    assert str(estimate(config(), Known(10**9, 10.0))) == "80 tasks: about 18.0 GB of disk and 7 minutes"
    assert str(Estimate(2_300_000_000_000, 1, 7e6)) == "1 task: about 2.3 TB of disk and 81 days"
    assert str(estimate(config(), Known())) == (
        "80 tasks: about 1 MB of disk without the models, whose size is not known yet; "
        "how long they take is known after the first round"
    )


def test_session_that_the_disk_cannot_hold_is_refused_before_its_first_round(tmp_path: Path) -> None:
    seen: list[Event] = []
    with pytest.raises(StoreError, match=r"the session has 20,000,000,000 tasks: about .* GB left") as caught:
        run(tree(rounds=10**9), tmp_path, progress=False, watch=seen.append)
    assert "keep.models: last 1" in str(caught.value)
    with open_store(Home.open(tmp_path), read_only=True) as store:
        assert store.list_sessions() == []
    (told,) = (event for event in seen if isinstance(event, Estimated))
    assert told.num_tasks == 20_000_000_000 and told.disk_bytes > 10**13


def test_small_estimates_are_not_checked(tmp_path: Path) -> None:
    check_disk(Home.open(tmp_path), estimate(config(), Known(100)), "the session")


def test_large_run_says_what_it_needs_before_it_starts(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from fedpkg.cli.main import fedpkg

    path = tmp_path / "run.yaml"
    few = {"sampler": {"count": 1}, "rounds": 1, "validation": {"every": 0}, "seed_model": None}
    path.write_text(json.dumps(tree(**few) | {"clients": {"count": 10_000}}))
    told = CliRunner().invoke(fedpkg, ["run", str(path), "--home", str(tmp_path / "home")])
    assert told.exit_code == 0, told.output
    assert "1 task: about" in told.output
