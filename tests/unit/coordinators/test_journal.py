"""Files that a coordinator gives to its journal."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from fedpkg.coordinators.journal import Journal
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
