"""Damage to recorded replies and states, as by a power loss, is found on resume; the tasks run again: same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from driven import killed, outcome_of, write_config
from federation import DRIFTING, Federation

from fedpkg.config import RunConfig
from fedpkg.errors import StoreError
from fedpkg.files import remove_tree


def config_of(federation: Federation, *, rounds: int) -> RunConfig:
    return federation.config(package=str(DRIFTING), clients=4, rounds=rounds, validation={"every": 2})


def flip_a_bit(path: Path, place: int = -200) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def empty_files(folder: Path) -> None:
    """What remains of files that were made and renamed, but never synchronised."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.slow
def test_damaged_replies_and_states_of_an_unfinished_round_are_made_again(federation: Federation) -> None:
    config = config_of(federation, rounds=2)
    undisturbed = federation.run(config)
    killed(federation, "--run", write_config(federation, config), "--kill-at-step", "after:record_task:7")
    session = federation.store.list_sessions()[-1]
    folder = federation.home.session_folder(session.session_id)
    recorded = [task.client_id for task in federation.store.list_tasks(session.session_id, round_number=2)]
    assert len(recorded) == 3
    flipped, zeroed, emptied = recorded
    flip_a_bit(folder / "round-2" / flipped / "train.reply" / "out.npz")
    metadata = folder / "round-2" / zeroed / "train.reply" / "out.npz-metadata"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "calls": 99}))
    empty_files(folder / "clients" / emptied / "2-train")
    assert sorted(Path(f.place).name for f in federation.findings() if f.damaged) == [
        "2-train",
        "train.reply",
        "train.reply",
    ]

    # What is taken back loses its files before the row says so: killed in between, it is taken back once more.
    killed(federation, "--resume", session.session_id, "--kill-at-step", "before:record_task:3", "--unflushed")
    assert [task.status for task in federation.store.list_tasks(session.session_id, round_number=2)] == ["ok"] * 3
    assert len([path for path in (folder / "round-2").glob("*/train.reply") if path.is_dir()]) == 1

    # All of the second round's training, then two of the four validations.
    killed(federation, "--resume", session.session_id, "--kill-at-step", "after:record_task:9")
    trained = federation.store.list_tasks(session.session_id, round_number=2, entry_point="train")
    again = [task for task in trained if task.status == "cancelled"]
    assert sorted(task.client_id for task in again) == sorted(recorded)
    reasons = [(task.message or "").removeprefix("run again, because its ") for task in again]
    assert sorted(reason.partition(" ")[2][:20] for reason in reasons) == [
        "cannot be read: No s",
        "cannot be read: No s",
        "has another checksum",
    ]
    validated = federation.store.list_tasks(session.session_id, round_number=2, entry_point="validate")
    assert len(validated) == 2
    remove_tree(folder / "clients" / validated[0].client_id / "2-validate")
    empty_files(folder / "clients" / validated[1].client_id / "2-validate")
    federation.resume(session.session_id)
    assert outcome_of(federation, session.session_id) == outcome_of(federation, undisturbed.session_id)
    assert len(federation.store.list_validations(session.session_id, round_number=2)) == 4
    states = [client.state_version or "" for client in federation.store.list_clients(session.session_id)]
    assert all(state.startswith("2-validate") for state in states), f"each client has validated last: {states}"
    assert not [finding for finding in federation.findings() if finding.damaged]


@pytest.mark.slow
def test_missing_committed_state_stops_the_session_until_it_is_put_back(federation: Federation) -> None:
    expected = outcome_of(federation, federation.run(config_of(federation, rounds=3)).session_id)
    session = federation.run(config_of(federation, rounds=2))
    client = federation.store.list_clients(session.session_id)[2]
    assert client.state_version is not None
    state = federation.home.session_folder(session.session_id) / "clients" / client.client_id / client.state_version
    state.rename(state.with_name("elsewhere"))
    with pytest.raises(StoreError, match=f"the state of {client.client_id} is missing: {state}") as caught:
        federation.resume(session.session_id, rounds=3)
    assert f"session resume {session.session_id}" in (caught.value.hint or "")
    row = federation.store.get_session(session.session_id)
    assert (row.status, row.error) == ("failed", caught.value.message)
    assert all(task.status == "ok" for task in federation.store.list_tasks(session.session_id))
    state.with_name("elsewhere").rename(state)
    federation.resume(session.session_id, rounds=3)
    assert outcome_of(federation, session.session_id) == expected
