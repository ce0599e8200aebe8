"""What clients leave behind as their state: refused, or made harmless; rounds and the session go on without trouble."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation import Federation

from fedpkg.files import remove_tree
from fedpkg.means import means
from fedpkg.stores.base import SessionRow
from fedpkg.stores.home import Home

LIMITS = {"folder_bytes": 1 << 30, "folder_files": 2000}
REFUSED = {
    "deep_state": ("bad_state", "folders nested deeper than 200 levels"),
    "sparse_state": ("folder_size", "limits.folder_bytes is 1073741824"),
    "many_files_state": ("folder_files", "limits.folder_files is 2000"),
    "mounted_state": ("bad_state", "has something mounted on 'state/mounted'"),
}
KEPT = ("linked_state", "closed_state", "privileged_state", "immutable_state", "write_state")
WORDS = [*REFUSED, *KEPT]


@dataclass
class Left:
    """A session of one round with a client of every kind, which was then resumed for a second one."""

    federation: Federation
    session: SessionRow
    isolated: bool

    def client(self, word: str) -> str:
        return f"client-{WORDS.index(word)}"

    def versions(self, word: str) -> list[Path]:
        folder = self.federation.home.session_folder(self.session.session_id) / "clients" / self.client(word)
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module", params=["open", "isolated"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    isolated = request.param == "isolated"
    if isolated and means().warm is None:
        pytest.skip(f"no isolation here: {means()}")
    home = Home.open(tmp_path_factory.mktemp("hinterlassen") / ".fedpkg")
    plan = {f"client-{number}": word for number, word in enumerate(WORDS)}
    federation = Federation(home)
    session = federation.run(clients=len(WORDS), plan=plan, limits=LIMITS, isolate={"enabled": isolated})
    session = federation.resume(session.session_id, rounds=2)
    yield Left(federation, session, isolated)
    for mounted in home.root.glob("sessions/*/clients/*/*/state/mounted"):
        subprocess.run(["umount", mounted], check=False)
    remove_tree(home.sessions)  # pytest cannot remove what is marked as immutable


@pytest.mark.parametrize("word", REFUSED)
def test_state_that_cannot_be_kept_is_its_clients_failure(left: Left, word: str) -> None:
    kind, message = REFUSED[word]
    tasks = left.federation.store.list_tasks(left.session.session_id, client_id=left.client(word), entry_point="train")
    assert [task.round_number for task in tasks] == [1, 2]
    for task in tasks:
        if word == "mounted_state" and task.failure == "exit_code":
            assert "cannot mount" in (task.log_tail or "")
            continue
        assert (task.status, task.failure) == ("failed", kind), task.message
        assert message in (task.message or "")
    assert not left.versions(word) or word == "mounted_state"


def test_session_ends_with_the_model_of_the_others(left: Left) -> None:
    assert left.session.status == "finished"
    assert left.federation.steps_taken(left.session, 2) == pytest.approx(2.0, abs=1e-6)
    for word in KEPT:
        assert left.federation.task(left.session, left.client(word)).status == "ok", word
        assert [path.name for path in left.versions(word)] == ["2-train"], "versions of before are gone"


def test_what_was_mounted_into_a_state_is_left_alone(left: Left) -> None:
    for version in left.versions("mounted_state"):
        assert os.listdir(version / "state" / "mounted") == ["kept"]
    findings = [finding.place for finding in left.federation.findings()]
    assert set(findings) == set(map(str, left.versions("mounted_state")))


def test_nothing_privileged_survives_in_what_a_task_leaves(left: Left) -> None:
    home = left.federation.home
    (version,) = left.versions("privileged_state")
    assert sorted(path.name for path in (version / "state").iterdir() if path.name != "another's") == [
        "capable",
        "program",
        *(["shared"] if (version / "state" / "shared").exists() else []),
    ]
    for path in home.sessions.rglob("*"):
        facts = path.lstat()
        assert not facts.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        assert facts.st_uid == os.geteuid(), path
        assert "security.capability" not in os.listxattr(path, follow_symlinks=False), path
        assert stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISLNK(facts.st_mode), path


def test_file_with_two_names_becomes_two_files(left: Left) -> None:
    (version,) = left.versions("linked_state")
    assert {path.name: path.stat().st_nlink for path in (version / "state").iterdir()} == {"one": 1, "other": 1}


def test_states_are_out_of_other_users_reach(left: Left) -> None:
    home = left.federation.home
    (version,) = left.versions("write_state")
    task = home.session_folder(left.session.session_id) / "round-1" / left.client("write_state") / "train"
    for path in (home.sessions, version, task):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_states_that_were_closed_to_everybody_can_be_read_again(left: Left) -> None:
    (version,) = left.versions("closed_state")
    assert stat.S_IMODE((version / "state" / "closed" / "file").stat().st_mode) == 0o600


def test_client_whose_folder_is_no_folder_fails_alone(tmp_path: Path) -> None:
    federation = Federation(Home.open(tmp_path / ".fedpkg"))
    session = federation.run()
    folder = federation.home.session_folder(session.session_id) / "clients" / "client-1"
    remove_tree(folder)
    folder.touch()
    session = federation.resume(session.session_id, rounds=2)
    assert session.status == "finished"
    assert [federation.task(session, f"client-{number}").status for number in range(3)] == ["ok", "failed", "ok"]
