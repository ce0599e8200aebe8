"""A full disk stops a session with a clear error; when there is space again it goes on to the same bits."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from federation import DRIFTING, Federation

from fedpkg.cli.main import run_command
from fedpkg.config import RunConfig
from fedpkg.controller.events import Event
from fedpkg.dispatch.attempt import Disk, failure_of_ours
from fedpkg.errors import DispatchError, StoreError
from fedpkg.files import remove_tree
from fedpkg.replies.reading import Reading, tensors_of
from fedpkg.replies.travel import decode
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store
from fedpkg.stores.sqlite import SqliteStore
from fedpkg.types import ReplyKind
from fedpkg.waist.order import ReplySpec
from fedpkg.weights.weights import Weights


def config_of(federation: Federation) -> RunConfig:
    return federation.config(
        package=str(DRIFTING),
        clients=4,
        rounds=3,
        validation={"every": 2},
        arguments={"train": {"fails": "client-1@2"}},
    )


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with open(path, "wb", buffering=0) as file:
        for size_bytes in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(os.urandom(size_bytes))
            except OSError:
                continue


def outcome_of(federation: Federation, session: SessionRow) -> list[object]:
    rounds = federation.store.list_rounds(session.session_id)
    facts = [(row.counted, row.num_failed, row.metrics) for row in rounds]
    return [federation.digests(session.session_id), facts]


def run_short_of(federation: Federation, small_disk: Path, room: int, take: Callable[[Path, int], None]) -> str:
    """Run in a home on a disk with so much ``room``, then as the error says with all of it; how the first run ended."""
    home, filler = small_disk / f"a home {room}", small_disk / "filler"
    take(filler, room)
    try:
        end = Federation(Home.open(home)).run(config_of(federation)).status
    except StoreError as error:
        end = str(error)
        assert error.exit_code == 7
        assert "full" in end or "No space left" in end
        assert error.hint is not None and "space" in error.hint
    remove_tree(filler)
    small = Federation(Home.open(home))
    with SqliteStore(home / "state.db") as store:
        known = [session.session_id for session in store.list_sessions()]
    assert not [finding for finding in small.findings() if finding.damaged], end
    session = small.resume(known[0]) if known else small.run(config_of(federation))
    assert outcome_of(small, session) == outcome_of(federation, federation.store.list_sessions()[0]), end
    shutil.rmtree(home)
    return end


def take_bytes(filler: Path, room_pages: int) -> None:
    fill(filler)
    os.truncate(filler, max(0, filler.stat().st_size - 4096 * room_pages))


def take_files(filler: Path, room: int) -> None:
    filler.mkdir()
    names = iter(range(10**9))
    with suppress(OSError):
        while True:
            (filler / str(next(names))).touch()
    for path in list(filler.iterdir())[:room]:
        path.unlink()


def test_home_on_a_full_disk_can_be_pruned(small_disk: Path) -> None:
    home = Federation(Home.open(small_disk / "home"))
    session = home.run(config_of(home))
    home.store.close()
    fill(small_disk / "filler")
    assert run_command(["home", "prune", "--home", str(home.home.root), "--keep-task-folders", "last 1"]) == 0
    rounds = sorted(path.name for path in home.home.session_folder(session.session_id).glob("round-*"))
    assert rounds == ["round-3"]
    with open_store(home.home) as store:
        assert len(store.list_kept_models()) == 4
    assert run_command(["home", "prune", "--home", str(home.home.root), "--keep-models", "last 1"]) == 0
    with open_store(home.home) as store:
        assert [model.round_number for model in store.list_kept_models()] == [0, 2, 3]  # a state names the second


def test_disk_on_which_another_task_has_just_made_room_was_full_while_this_one_ran(small_disk: Path) -> None:
    disk, filler = Disk(), small_disk / "filler"
    began = time.monotonic()
    fill(filler)
    disk.look(small_disk)  # as the other task does when it has run
    filler.unlink()
    assert disk.was_full(small_disk, since=began)
    assert not disk.was_full(small_disk, since=time.monotonic())


def test_update_that_a_full_disk_keeps_from_being_decoded_is_no_bad_file(small_disk: Path) -> None:
    sent = Weights({"w": torch.ones(64, 64)})
    spec = ReplySpec(kind=ReplyKind.UPDATE, tensors=tensors_of(sent), transforms=({"name": "delta"},), weighted=False)
    reading = Reading(spec)
    assert reading.chain is not None
    message = small_disk / "sent"
    message.write_bytes(reading.chain.encode(sent, sent, seed=0, is_difference=False).content)
    fill(small_disk / "filler")
    with pytest.raises(OSError, match="No space left") as caught:
        decode(reading, message, lambda _name: sent)
    assert caught.value.errno == errno.ENOSPC


def test_command_that_a_full_disk_keeps_from_starting_fails_for_want_of_space_also_when_there_is_room_again() -> None:
    error = DispatchError("cannot start the command: OSError: …", errno=errno.ENOSPC)
    assert failure_of_ours(error).kind == "no_space"
    assert failure_of_ours(DispatchError("cannot start the command: OSError: …", errno=errno.EACCES)).kind == "executor"


ROOMS_IN_PAGES = [0, 2, 4, 8, 16, 24, 32, *range(40, 60, 3), 64, 80, 350, 2048]
ROOMS_IN_FILES = [0, 4, 9, *range(10, 40, 3), 80, 390]


@pytest.mark.parametrize(
    "rooms",
    [
        pytest.param([0, 32, 350, 2048], marks=pytest.mark.slow, id="some"),
        pytest.param(ROOMS_IN_PAGES, marks=pytest.mark.soak, id="all"),
    ],
)
def test_whatever_a_full_disk_cuts_off_the_run_comes_to_the_same_bits(
    federation: Federation, small_disk: Path, rooms: list[int]
) -> None:
    """From a disk on which nothing fits to one on which all does: sooner or later every kind of file is the one."""
    federation.run(config_of(federation))
    ends = [run_short_of(federation, small_disk, room, take_bytes) for room in rooms]
    print(*zip(rooms, ends, strict=True), sep="\n")
    for words in ("home", "state.db cannot", "train of client-", "finished"):
        assert any(words in end for end in ends), words


@pytest.mark.parametrize(
    "rooms",
    [
        pytest.param([0, 9, 16, 25, 80, 390], marks=pytest.mark.slow, id="some"),
        pytest.param(ROOMS_IN_FILES, marks=pytest.mark.soak, id="all"),
    ],
)
def test_disk_that_cannot_hold_one_more_file_is_a_full_disk(
    federation: Federation, small_disk: Path, rooms: list[int]
) -> None:
    federation.run(config_of(federation))
    subprocess.run(["mount", "-o", "remount,nr_inodes=400", str(small_disk)], check=True)
    ends = [run_short_of(federation, small_disk, room, take_files) for room in rooms]
    print(*zip(rooms, ends, strict=True), sep="\n")
    for words in ("home", "state.db cannot", "build failed", "train of client-", "finished"):
        assert any(words in end for end in ends), words


@pytest.mark.parametrize(
    "moment",
    [pytest.param(k, marks=pytest.mark.slow if k in (1, 7, 13) else pytest.mark.soak) for k in (1, 4, 7, 10, 13, 16)],
)
@pytest.mark.every_push("7")
def test_session_on_a_full_disk_stops_and_resumes_to_the_same_bits(
    federation: Federation, small_disk: Path, moment: int
) -> None:
    undisturbed = federation.run(config_of(federation)).session_id
    small = Federation(Home.open(small_disk / "a home"))
    filler = small_disk / "filler"
    seen = 0

    def watch(_event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            fill(filler)

    with pytest.raises(StoreError) as caught:
        small.run(config_of(small), watch=watch)
    assert caught.value.exit_code == 7
    assert "full" in str(caught.value) or "No space left" in str(caught.value)
    assert "session resume" in str(caught.value)
    filler.unlink()
    session = small.store.list_sessions()[-1]
    assert small.resume(session.session_id).status == "finished"
    assert small.digests(session.session_id) == federation.digests(undisturbed)
    rounds, expected = (f.store.list_rounds(s) for f, s in ((small, session.session_id), (federation, undisturbed)))
    assert [(row.counted, row.num_failed, row.metrics) for row in rounds] == [
        (row.counted, row.num_failed, row.metrics) for row in expected
    ]
