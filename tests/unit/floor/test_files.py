"""Files that must not get lost or half written."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from fedpkg.files import (
    atomic_write,
    copy_file,
    copy_tree,
    fsync_tree,
    remove_each,
    remove_files,
    remove_tree,
    same_bytes,
    tree_checksum,
)


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ein ordner" / "datei"
    with atomic_write(path) as file:
        file.write(b"first")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["datei"]


def test_only_ordinary_files_are_replaced(tmp_path: Path) -> None:
    """As root, a rename onto a device node or onto the link /dev/stdout would take it away from everybody."""
    (tmp_path / "ordinary").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("ordinary")
    (tmp_path / "folder").mkdir()
    names = sorted(os.listdir(tmp_path))
    for name, number in (("fifo", errno.EEXIST), ("link", errno.EEXIST), ("folder", errno.EISDIR)):
        with pytest.raises(OSError, match=r"not an ordinary file|directory") as caught, atomic_write(tmp_path / name):
            pytest.fail("nothing may be written")
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / name))
        assert sorted(os.listdir(tmp_path)) == names
    assert stat.S_ISFIFO((tmp_path / "fifo").lstat().st_mode)


def test_an_error_names_the_file_and_not_its_temporary_sibling(tmp_path: Path) -> None:
    name = "n" * 250  # a name that fits, while the longer temporary one does not
    with pytest.raises(OSError, match="too long") as caught, atomic_write(tmp_path / name):
        pytest.fail("nothing can be written")
    assert caught.value.filename == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


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


def test_folder_of_files_is_removed_and_so_is_one_with_more_in_it(tmp_path: Path) -> None:
    for name in ("flat", "deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file ö").touch()
    (tmp_path / "deep" / "inner" / "deeper").mkdir(parents=True)
    for name in ("flat", "deep", "absent"):
        remove_files(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


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


def deep_folder(folder: Path, levels: int) -> Path:
    """A folder whose innermost file has a path that no system call takes in one piece."""
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d ü", dir_fd=fd)
        deeper = os.open("d ü", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)
    return folder


def test_deep_folders_are_removed(tmp_path: Path) -> None:
    deep_folder(tmp_path / "deep", 1500)
    (tmp_path / "deep" / "beside").mkdir()
    (tmp_path / "deep" / "link").symlink_to(tmp_path)
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_copied_down_to_200_levels(tmp_path: Path) -> None:
    copy_tree(deep_folder(tmp_path / "some", 200), tmp_path / "copy")
    assert (tmp_path / "copy").joinpath(*["d ü"] * 200, "file").exists()
    with pytest.raises(OSError, match="Folders nested deeper than 200 levels"):
        copy_tree(deep_folder(tmp_path / "many", 1500), tmp_path / "no copy")
    for name in ("some", "copy", "many", "no copy"):  # or pytest would have to
        remove_tree(tmp_path / name)


def test_deep_folders_are_made_durable_as_far_as_paths_go(tmp_path: Path) -> None:
    fsync_tree(deep_folder(tmp_path / "deep", 1500))
    remove_tree(tmp_path / "deep")


def test_holes_stay_holes_in_a_copy(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10 << 20)
        for start, block in ((0, b"a"), (5 << 20, b"middle" * 1000), ((20 << 20) - 1, b"z")):
            file.seek(start)
            file.write(block)
        file.truncate(64 << 20)
    copy_file(tmp_path / "sparse", tmp_path / "copy")
    assert same_bytes(tmp_path / "sparse", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 64 << 20
    assert (tmp_path / "copy").stat().st_blocks <= (tmp_path / "sparse").stat().st_blocks + 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mark files as immutable")
def test_what_is_marked_as_immutable_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "kept for ever"
    (folder / "inner" / "innermost").mkdir(parents=True)
    (folder / "inner" / "innermost" / "file").touch()
    flags = {"inner/innermost/file": "+i", "inner/innermost": "+a", "inner": "+i", ".": "+i"}
    try:
        for name, flag in flags.items():
            subprocess.run(["chattr", flag, folder / name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this file system has no such marks")
    finally:
        remove_tree(folder)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("where", [".", "inner", "inner/innermost"])
def test_what_is_mounted_somewhere_is_not_removed(tmp_path: Path, where: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "precious").touch()
    (tmp_path / "tree" / "inner" / "innermost").mkdir(parents=True)
    if subprocess.run(["mount", "--bind", tmp_path / "source", tmp_path / "tree" / where], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match=r"Something is mounted there|Device or resource busy"):
            remove_tree(tmp_path / "tree")
        assert (tmp_path / "source" / "precious").exists()
    finally:
        subprocess.run(["umount", tmp_path / "tree" / where], check=True)


def change_bytes(path: Path, place: int, new: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(new)


def test_checksum_of_a_tree_finds_what_a_power_loss_leaves(tmp_path: Path) -> None:
    rng = random.Random(0)
    tree = tmp_path / "zustand é"
    (tree / "inner" / "empty").mkdir(parents=True)
    (tree / "big").write_bytes(rng.randbytes(3 << 20))
    (tree / "inner" / "odd size").write_bytes(rng.randbytes((1 << 20) + 7))
    (tree / "inner" / "link").symlink_to("../big")
    os.mkfifo(tree / "pipe")  # which no copy has
    whole = tree_checksum(tree)
    copy_tree(tree, tmp_path / "copy")
    assert tree_checksum(tmp_path / "copy") == whole
    big, odd = (tree / "big").read_bytes(), (tree / "inner" / "odd size").read_bytes()
    damages = {
        "a bit": lambda: change_bytes(tree / "big", 1234567, bytes([big[1234567] ^ 1])),
        "a page of zeros": lambda: change_bytes(tree / "big", 8192, bytes(4096)),
        "two pages in each other's place": lambda: change_bytes(tree / "big", 0, big[4096:8192] + big[:4096]),
        "the last byte": lambda: change_bytes(tree / "inner" / "odd size", len(odd) - 1, bytes([odd[-1] ^ 128])),
        "an emptied file": lambda: (tree / "inner" / "odd size").write_bytes(b""),
        "a file of zeros": lambda: (tree / "big").write_bytes(bytes(3 << 20)),
        "a lost file": (tree / "inner" / "odd size").unlink,
        "a lost folder": (tree / "inner" / "empty").rmdir,
        "another link": lambda: ((tree / "inner" / "link").unlink(), (tree / "inner" / "link").symlink_to("../bog")),
        "another name": lambda: (tree / "big").rename(tree / "bag"),
    }
    for what, damage in damages.items():
        damage()
        assert tree_checksum(tree) != whole, what
        remove_tree(tree)
        copy_tree(tmp_path / "copy", tree)
        assert tree_checksum(tree) == whole


def test_link_in_the_place_of_a_folder_of_files_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    (tmp_path / "folder").symlink_to("other")
    remove_files(tmp_path / "folder")
    assert not (tmp_path / "folder").is_symlink() and (tmp_path / "other" / "file").exists()


@pytest.mark.parametrize("number", [3, 30])
def test_many_folders_are_removed_and_what_is_beside_them_stays(tmp_path: Path, number: int) -> None:
    folders = [tmp_path / f"client-{place}" / "train.reply" for place in range(number)]
    for folder in folders[1:]:  # the first does not exist
        folder.mkdir(parents=True)
        (folder / "out.npz").touch()
    (folders[-1] / "deeper").mkdir()
    remove_each(folders)
    assert not any(map(os.path.lexists, folders))
    assert len(list(tmp_path.iterdir())) == number - 1


def test_folder_that_cannot_be_removed_is_an_error_also_among_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / str(place) for place in range(30)]
    for folder in folders:
        folder.mkdir()
    (folders[7] / "inside").mkdir()  # so that it is removed as a tree
    (folders[7] / "inside" / "file").touch()
    really = os.rmdir

    def rmdir(path: str | Path, **more: int) -> None:
        if path == folders[7]:
            raise OSError(errno.EBUSY, "in use")
        really(path, **more)

    monkeypatch.setattr(os, "rmdir", rmdir)
    with pytest.raises(OSError, match="in use"):
        remove_each(folders)
    assert folders[7].exists()
