"""Files that must not get lost or half written: atomic writes, private copies, digests, safe names."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# ioctl number of FICLONE on Linux: btrfs, XFS and others then share the blocks of both files until one is written.
_FICLONE = 0x40049409
LINK_ABOVE_BYTES = 1 << 20


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary sibling; it appears whole or not at all.

    With ``durable`` the bytes and the rename are on disk when the block ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes and permission bits; share blocks where the file system can (reflink)."""
    with open(source, "rb") as src, open(target, "xb") as dst:
        size_bytes = os.fstat(src.fileno()).st_size
        if size_bytes > LINK_ABOVE_BYTES and reflink(src, dst):
            pass
        else:
            shutil.copyfileobj(src, dst, length=1 << 20)
    shutil.copymode(source, target)


def reflink(source: BinaryIO, target: BinaryIO) -> bool:
    """Let ``target`` share the blocks of ``source``; False where the file system cannot."""
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder of plain files and folders into ``target``, which must not exist.

    Symbolic links are copied as links; anything else (devices, sockets, fifos) is left out.
    Files are writable in the copy, so that a program may keep state beside its code.
    """
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            destination = target / entry.name
            if entry.is_symlink():
                destination.symlink_to(os.readlink(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                copy_tree(Path(entry.path), destination)
            elif entry.is_file(follow_symlinks=False):
                copy_file(Path(entry.path), destination)
                mode = entry.stat(follow_symlinks=False).st_mode
                if not mode & stat.S_IWUSR:
                    destination.chmod(stat.S_IMODE(mode) | stat.S_IWUSR)


def stage_file(source: Path, target: Path) -> None:
    """Put a read-only ``source`` at ``target``: small files are copied, big ones hard-linked where possible."""
    if source.stat().st_size > LINK_ABOVE_BYTES:
        try:
            os.link(source, target)
        except OSError:  # another file system, or links are not allowed here
            copy_file(source, target)
    else:
        copy_file(source, target)
    target.chmod(0o444)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, also when a program took away its own permissions; absent is fine."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        for path, folders, _files in os.walk(folder):  # top down: a folder must be open before its children are seen
            os.chmod(path, 0o700)
            for name in folders:
                if not os.path.islink(os.path.join(path, name)):
                    os.chmod(os.path.join(path, name), 0o700)
        shutil.rmtree(folder)
