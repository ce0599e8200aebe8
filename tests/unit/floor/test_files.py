"""Files that must not get lost or half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fedpkg.files import LINK_ABOVE_BYTES, atomic_write, copy_tree, remove_tree, sha256_file, stage_file


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ein ordner" / "datei"
    with atomic_write(path) as file:
        file.write(b"first")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["datei"]


def test_copy_is_writable_and_independent(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub ö").mkdir(parents=True)
    (source / "sub ö" / "run.sh").write_text("x")
    (source / "sub ö" / "run.sh").chmod(0o555)
    (source / "link").symlink_to("sub ö/run.sh")
    os.mkfifo(source / "fifo")
    copy_tree(source, tmp_path / "copy")
    copied = tmp_path / "copy" / "sub ö" / "run.sh"
    copied.write_text("changed")
    assert (source / "sub ö" / "run.sh").read_text() == "x"
    assert copied.stat().st_mode & stat.S_IXUSR
    assert os.readlink(tmp_path / "copy" / "link") == "sub ö/run.sh"
    assert not (tmp_path / "copy" / "fifo").exists()


@pytest.mark.parametrize("size_bytes", [10, LINK_ABOVE_BYTES + 1])
def test_staged_file_is_read_only_and_the_same(tmp_path: Path, size_bytes: int) -> None:
    source = tmp_path / "model"
    source.write_bytes(b"m" * size_bytes)
    stage_file(source, tmp_path / "in.npz")
    assert sha256_file(source) == sha256_file(tmp_path / "in.npz")
    assert stat.S_IMODE((tmp_path / "in.npz").stat().st_mode) == 0o444
    assert source.samefile(tmp_path / "in.npz") == (size_bytes > LINK_ABOVE_BYTES)


def test_folder_without_permissions_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").touch()
    (folder / "closed").chmod(0)
    remove_tree(folder)
    remove_tree(folder)
    assert not folder.exists()


def test_removing_a_link_to_a_folder_keeps_the_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    assert (tmp_path / "kept").is_dir()
