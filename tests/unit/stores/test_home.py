"""The home folder: its layout, its lock, and names for sessions."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedpkg.errors import HomeLocked, NotFound, StoreError
from fedpkg.stores.base import PackageRow, SessionRow
from fedpkg.stores.home import Home
from fedpkg.stores.opening import open_store

HOLDER = """
import sys
from pathlib import Path
from fedpkg.stores.home import Home
with Home.open(Path(sys.argv[1])).lock(clock=lambda: 86400.0 * 365):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "mein Projekt ☂" / ".fedpkg"


def holder(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_opening_makes_the_folders_and_changes_nothing_later(root: Path) -> None:
    for _ in range(2):
        home = Home.open(root)
        assert sorted(path.name for path in root.iterdir()) == [".gitignore", "data", "models", "packages", "sessions"]
    assert home.session_folder("s-1") == root / "sessions" / "s-1"
    assert home.state_db == root / "state.db"


def test_home_that_is_absent_is_only_made_on_request(root: Path) -> None:
    with pytest.raises(NotFound, match="no fedpkg home at") as caught:
        Home.open(root, create=False)
    assert "--home" in str(caught.value)
    assert not root.exists()
    Home.open(root)
    assert Home.open(root, create=False).root == root


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        Home.open(tmp_path / "file" / ".fedpkg")
    home = Home.open(tmp_path / "home")
    (home.root / "lock").mkdir()
    with pytest.raises(StoreError, match="cannot be used: Is a directory"), home.lock():
        pass


def test_second_process_is_told_who_holds_the_home(root: Path) -> None:
    home = Home.open(root)
    with holder(root) as process:
        with pytest.raises(HomeLocked) as caught, home.lock():
            pass
        message = str(caught.value)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(86400.0 * 365))
        assert f"is in use by process {process.pid} on {os.uname().nodename} since {since} (-c " in message
        assert "fedpkg session stop" in message
        assert caught.value.fields["pid"] == process.pid
        assert str(pickle.loads(pickle.dumps(caught.value))) == message
        process.communicate("", timeout=60)
    with home.lock():  # the holder left
        assert json.loads((root / "lock.json").read_text())["pid"] == os.getpid()
    assert not (root / "lock.json").exists()


def test_killed_holder_leaves_the_home_free(root: Path) -> None:
    home = Home.open(root)
    with holder(root) as process:
        process.kill()
        process.wait()
    assert json.loads((root / "lock.json").read_text())["pid"] == process.pid  # what it left behind misleads nobody
    with home.lock():
        assert json.loads((root / "lock.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("left", [None, "", "[]", '{"pid": 1}'])
def test_lock_without_readable_facts_is_still_a_lock(root: Path, left: str | None) -> None:
    home = Home.open(root)
    with home.lock():
        (root / "lock.json").unlink()
        if left is not None:
            (root / "lock.json").write_text(left)
        with pytest.raises(HomeLocked, match="in use by another process"), Home.open(root).lock():
            pass


def test_two_threads_of_one_process_exclude_each_other(root: Path) -> None:
    home, outcomes = Home.open(root), []

    def attempt() -> None:
        try:
            with home.lock():
                outcomes.append("held")
        except HomeLocked:
            outcomes.append("locked")

    with home.lock():
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    attempt()
    assert outcomes == ["locked", "held"]


def test_program_started_by_the_holder_does_not_inherit_the_lock(root: Path) -> None:
    home = Home.open(root)
    with home.lock():
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with home.lock():
        child.communicate(timeout=60)


def test_session_ids_are_readable_and_never_taken_twice(root: Path) -> None:
    home = Home.open(root)
    now = 1767225600.0
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    with open_store(home) as store:
        store.add_package(PackageRow(digest="p", name="p", size_bytes=1, entry_points={}, created_at=1.0))
        ids = []
        for _ in range(3):
            session_id = home.new_session_id("digits", store, clock=lambda: now)
            ids.append(session_id)
            store.create_session(
                SessionRow(
                    session_id=session_id,
                    name="digits",
                    config={},
                    package_digest="p",
                    seed=1,
                    num_rounds=1,
                    created_at=now,
                    updated_at=now,
                )
            )
        assert ids == [f"digits-{stamp}", f"digits-{stamp}-2", f"digits-{stamp}-3"]
        home.session_folder(f"digits-{stamp}-4").mkdir()  # left by a start that died before it was recorded
        assert home.new_session_id("digits", store, clock=lambda: now) == f"digits-{stamp}-5"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Größe 7/../x.y", "Größe-7-x-y"),
        ("--rm -rf", "rm--rf"),
        ("../..", "session"),
        ("", "session"),
        ("é" * 300, "é" * 50),
    ],
)
def test_any_name_makes_an_id_that_is_one_folder(root: Path, name: str, word: str) -> None:
    home = Home.open(root)
    with open_store(home) as store:
        session_id = home.new_session_id(name, store, clock=lambda: 0.0)
    assert session_id.startswith(f"{word}-19")
    home.session_folder(session_id).mkdir()
