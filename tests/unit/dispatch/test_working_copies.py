"""Working copies: one that nothing changed serves the next client; any change keeps it from others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpkg.compute_package.spec import EntryPoint, PackageSpec
from fedpkg.dispatch import working_copies
from fedpkg.dispatch.package_files import PackageFiles
from fedpkg.dispatch.site import Job, PackageOnDisk
from fedpkg.dispatch.working_copies import WorkingCopies
from fedpkg.replies.reading import Reading
from fedpkg.types import ReplyKind
from fedpkg.waist.order import Order, ReplySpec
from fedpkg.waist.place import Place


@pytest.fixture
def new_task(tmp_path: Path) -> Callable[..., Job]:
    root = tmp_path / "Paket ü"
    (root / "client").mkdir(parents=True)
    (root / "client" / "entrypoint.py").write_text("print('hello')\n")
    (root / "client" / "weights.bin").write_bytes(bytes(3 << 10))
    spec = PackageSpec({"train": EntryPoint("train", "python entrypoint.py")})
    package = PackageOnDisk("p", root, root / "client", spec)
    (tmp_path / "clients").mkdir()

    def make(name: str) -> Job:
        order = Order(
            task_id=name,
            session_id="s",
            round_number=1,
            client_id=name,
            entry_point="train",
            package=package.digest,
            reply_spec="",
        )
        place = Place(tmp_path / name, tmp_path / "clients" / name)
        return Job(order, Reading(ReplySpec(kind=ReplyKind.RESULT)), package, place, tmp_path)

    return make


@pytest.fixture(params=[True, False], ids=["by the clock", "by the bytes"])
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> WorkingCopies:
    """Working copies that trust inodes' times at once, or never."""
    monkeypatch.setattr(working_copies, "_TICKS_NS", 0 if request.param else 1 << 62)
    return WorkingCopies(tmp_path / "spare", PackageFiles(tmp_path / "package"))


def script_of(task: Job) -> Path:
    return task.place.version / "package" / "client" / "entrypoint.py"


def settle(copies: WorkingCopies, first: Job) -> int:
    """One task that changes nothing; the inode of its script."""
    copies.put(first)
    inode = script_of(first).stat().st_ino
    assert copies.take_back(first)
    assert not first.place.version.exists()
    return inode


def test_untouched_copy_serves_the_next_client(copies: WorkingCopies, new_task: Callable[..., Job]) -> None:
    inode = settle(copies, new_task("a"))
    second, third = new_task("b"), new_task("c")
    copies.put(second)
    assert script_of(second).stat().st_ino == inode
    copies.put(third)
    assert script_of(third).stat().st_ino != inode, "each has one of its own"
    assert sorted(os.listdir(third.place.version)) == ["package", "state"]
    copies.take_back(second)
    copies.clear()
    assert script_of(third).read_text() == "print('hello')\n"


def same_size(script: Path) -> None:
    facts = script.stat()
    script.write_text("print('HELLO')\n")
    os.utime(script, ns=(facts.st_atime_ns, facts.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "other bytes, same size and time": (same_size, True),
    "a new file": (lambda script: script.with_name("notes").touch(), True),
    "a file less": (lambda script: script.with_name("weights.bin").unlink(), True),
    "state": (lambda script: (script.parents[2] / "state" / "x").touch(), True),
    "other permissions": (lambda script: script.chmod(0o777), False),
    "a second name": (lambda script: os.link(script, script.parents[4] / "mine"), False),
    "the same bytes again": (lambda script: script.write_text(script.read_text()), False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_touched_copy_reaches_nobody_else(copies: WorkingCopies, new_task: Callable[..., Job], what: str) -> None:
    change, is_state = CHANGES[what]
    inode = settle(copies, new_task("a"))
    second, third = new_task("b"), new_task("c")
    copies.put(second)
    change(script_of(second))
    assert copies.take_back(second) is not is_state
    assert second.place.version.exists() == is_state, "kept where it is its client's state"
    copies.put(third)
    assert script_of(third).stat().st_ino != inode or not is_state
    assert script_of(third).read_text() == "print('hello')\n"
    assert script_of(third).stat().st_nlink == 1
    assert script_of(third).stat().st_mode & 0o002 == 0
    assert (third.place.version / "package" / "client" / "weights.bin").exists()


def test_folder_that_a_task_removed_is_nothing_to_keep(copies: WorkingCopies, new_task: Callable[..., Job]) -> None:
    task = new_task("a")
    copies.put(task)
    working_copies.remove_tree(task.place.version)
    assert copies.take_back(task)


def test_failed_task_leaves_no_copy(copies: WorkingCopies, new_task: Callable[..., Job]) -> None:
    first, second = new_task("a"), new_task("b")
    copies.put(first)
    inode = script_of(first).stat().st_ino
    os.link(script_of(first), first.place.version.parent / "holds the inode")
    copies.discard(first)
    assert not first.place.version.exists()
    copies.put(second)
    assert script_of(second).stat().st_ino != inode


def test_package_with_a_big_file_is_served_again_too(copies: WorkingCopies, new_task: Callable[..., Job]) -> None:
    first, second = new_task("a"), new_task("b")
    (first.package.folder / "big.bin").write_bytes(bytes(3 << 20))
    inode = settle(copies, first)
    copies.put(second)
    assert script_of(second).stat().st_ino == inode
