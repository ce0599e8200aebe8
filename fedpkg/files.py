"""Files that must not get lost or half written: atomic writes, private copies, digests, safe names."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# ioctl number of FICLONE on Linux: btrfs, XFS and others then share the blocks of both files until one is written.
_FICLONE = 0x40049409
LINK_ABOVE_BYTES = 1 << 20
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FULL_BYTES = 1 << 20  # a disk with less is full: a task needs its folder, its state and its reply
MAX_LEVELS = 200  # of folders in a tree that is copied


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting where a pipe is in its place.

    Raises:
        OSError: it cannot be opened, or is a device, a pipe, a socket or a folder, which may have no end.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file that has at most ``max_bytes``: the one way to read a file that a person named.

    Raises:
        OSError: as for `open_regular`, or the file is larger (``EFBIG``; ``strerror`` states the limit).
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        limit = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"larger than {limit}", str(path))
    return data


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

    Raises:
        OSError: it cannot be written, or something else than an ordinary file (a device, a link) is in its place.
    """
    _check_replaceable(path)
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
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the caller knows
        raise


def _check_replaceable(path: Path) -> None:
    """A rename puts away whatever is there: as root also /dev/null, and /dev/stdout, which is a link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "it exists and is not an ordinary file", str(path))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a regular file, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_full(folder: Path) -> bool:
    """Whether the file system of ``folder`` has next to no room left for this user, or cannot hold one more file."""
    while not folder.exists():
        folder = folder.parent
    facts = os.statvfs(folder)
    if facts.f_files and not facts.f_ffree:
        return True
    return facts.f_frsize * (facts.f_bavail if os.geteuid() else facts.f_bfree) < FULL_BYTES


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes and permission bits; share blocks where the file system can (reflink)."""
    with open_regular(source) as src, open(target, "xb") as dst:
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

    Raises:
        OSError: among others, folders are nested deeper than `MAX_LEVELS`.
    """
    pending = [(source, target, 0)]
    while pending:
        folder, copy, level = pending.pop()
        if level > MAX_LEVELS:
            raise OSError(errno.ENAMETOOLONG, f"Folders nested deeper than {MAX_LEVELS} levels", str(source))
        copy.mkdir()
        with os.scandir(folder) as entries:
            for entry in entries:
                destination = copy / entry.name
                if entry.is_symlink():
                    destination.symlink_to(os.readlink(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((Path(entry.path), destination, level + 1))
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
    """Remove a folder and all in it, however deep, also when a program took away its own permissions; absent is fine.

    Folders further down are first moved up into ``folder``: neither paths nor the number of open folders grow.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            folder.unlink()
            return
        _give_back_permissions(folder)
        top = _open_folder(folder)
        try:
            pending = _remove_files(top)
            prefix, numbers = os.urandom(8).hex(), itertools.count()  # names that nothing has
            while pending:
                name = pending.pop()
                inner = _open_folder(name, dir_fd=top)
                try:
                    for deeper in _remove_files(inner):
                        pending.append(f"{prefix}.{next(numbers)}")
                        os.rename(deeper, pending[-1], src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        folder.rmdir()
    except FileNotFoundError:  # somebody else removes it too
        return


def _open_folder(path: str | Path, *, dir_fd: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=dir_fd)


def _give_back_permissions(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Let a folder be read, emptied, and moved."""
    if os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode & 0o700 != 0o700:
        os.chmod(path, 0o700, dir_fd=dir_fd)


def _remove_files(folder: int) -> list[str]:
    """Remove all that is not a folder; names of the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                _give_back_permissions(entry.name, dir_fd=folder)
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def same_files(one: Path, other: Path, *, max_bytes: int | None = LINK_ABOVE_BYTES) -> bool:
    """Whether two folders hold the same files, byte for byte; False, too, where one file is above ``max_bytes``."""
    with os.scandir(one) as listing, os.scandir(other) as its_listing:
        entries = sorted(listing, key=lambda entry: entry.name)
        others = sorted(its_listing, key=lambda entry: entry.name)
    if [entry.name for entry in entries] != [entry.name for entry in others]:
        return False
    for entry, its_other in zip(entries, others, strict=True):
        if entry.is_symlink() or its_other.is_symlink():
            if not (entry.is_symlink() and its_other.is_symlink() and os.readlink(entry) == os.readlink(its_other)):
                return False
        elif entry.is_dir() and its_other.is_dir():
            if not same_files(Path(entry.path), Path(its_other.path), max_bytes=max_bytes):
                return False
        elif entry.is_file() and its_other.is_file():
            size_bytes = entry.stat().st_size
            if (max_bytes is not None and size_bytes > max_bytes) or size_bytes != its_other.stat().st_size:
                return False
            if not same_bytes(Path(entry.path), Path(its_other.path)):
                return False
        else:
            return False
    return True


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same; False, too, where one cannot be read."""
    try:
        with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
            while (block := first.read(1 << 20)) == second.read(1 << 20):
                if not block:
                    return True
    except OSError:
        pass
    return False


def fsync_tree(folder: Path) -> None:
    """Make a folder and all in it survive a power cut."""
    for path, _folders, names in os.walk(folder, topdown=False):
        for name in names:
            file = os.path.join(path, name)
            if stat.S_ISREG(os.lstat(file).st_mode):
                fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        fsync_folder(Path(path))
