"""Files that a coordinator gives to its journal."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from fedpkg.coordinators.journal import Journal, Round
from fedpkg.files import open_folder
from fedpkg.formats.base import ModelForm


@pytest.mark.parametrize("how", ["closed", "open", "mapped"])
def test_a_file_that_its_program_can_still_write_to_is_copied(tmp_path: Path, how: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.npz").write_bytes(b"content")
    inode = (out / "1.npz").stat().st_ino
    journal, folder = Journal(tmp_path / "journal", ModelForm(".npz")), open_folder(out)
    with open(out / "1.npz", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0) if how == "mapped" else None
        if how != "open":
            file.close()
        kept = journal.file(journal.take(folder, "1.npz", 100))
        if how == "open":
            file.write(b"another")
            file.flush()
        if mapped is not None:
            mapped[:7] = b"another"
            mapped.close()
    assert kept.read_bytes() == b"content"
    assert (kept.stat().st_ino == inode) == (how == "closed")
    assert not list(out.iterdir())


def test_files_of_a_committed_round_are_looked_up_once() -> None:
    """Each round asks for those of all before it."""
    reply = {"client_id": "a", "weights": {"": "one.npz"}}
    told = {"replies": [{"id": "1", "replies": [reply]}]}
    one = Round({"model": None, "round": 1})
    one.messages.append(({}, told))
    assert one.files == {"one.npz"}
    one.messages.append(({}, {"replies": [{"id": "2", "replies": [{**reply, "weights": {"": "two.npz"}}]}]}))
    assert one.files == {"one.npz", "two.npz"}
    one.commit = {"files": {"model": "three.npz"}}
    assert one.files is one.files and one.lasting == {"one.npz", "two.npz", "three.npz"}
