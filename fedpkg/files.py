"""File operations that do not lose data: atomic writes, private copies, digests, safe names."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# ioctl number of FICLONE on Linux: on btrfs, XFS and others both files share their blocks until one is written.
_FICLONE = 0x40049409
# FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, and the flags set by `chattr +i` and `+a`.
_GET_FLAGS, _SET_FLAGS, _UNCHANGEABLE = 0x80086601, 0x40086602, 0x10 | 0x20
LINK_ABOVE_BYTES = 1 << 20
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
FULL_BYTES = 1 << 20  # a disk with less free space counts as full: a task needs its folder, its state and its reply
MAX_LEVELS = 200  # of folders in a tree that is copied
_AT_ONCE = 8  # folders that are removed


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without blocking on a pipe.

    Raises:
        OSError: If it cannot be opened, or is a device, a pipe, a socket or a folder, which may never end.
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
    """The bytes of a regular file of at most ``max_bytes``; all files that users give are read in this way.

    Raises:
        OSError: As for `open_regular`, or if the file is larger (``EFBIG``; ``strerror`` has the limit).
    """
    with open_regular(path) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)  # allocate only its size
        data += file.read(max_bytes + 1 - len(data)) if data else b""  # it has grown, or reports no size
    if len(data) > max_bytes:
        limit = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes >> 10} KiB"
        raise OSError(errno.EFBIG, f"larger than {limit}", str(path))
    return data


def fsync_file(path: Path) -> None:
    """Make a file's contents survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary sibling, so that it is either complete or absent.

    With ``durable`` the bytes and the rename are on disk when the block ends.

    Raises:
        OSError: If it cannot be written, or ``path`` is something other than an ordinary file (a device, a link).
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
            error.filename, error.filename2 = str(path), None  # in place of the temporary name
        raise


def _check_replaceable(path: Path) -> None:
    """Refuse anything but an ordinary file, because a rename replaces it: as root even /dev/null or /dev/stdout."""
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


def tree_checksum(folder: Path) -> str:
    """A checksum of all names and contents below ``folder``, to detect damage by a power loss or a bad disk.

    It is not cryptographic: other files with the same checksum are easy to construct.

    Raises:
        OSError: If anything there cannot be read.
    """
    crc, pending = 0, [""]
    while pending:
        inside = pending.pop()
        with os.scandir(os.path.join(folder, inside)) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name = os.path.join(inside, entry.name)
            if entry.is_symlink():
                fact = f"link to {os.readlink(entry.path)}"
            elif entry.is_dir(follow_symlinks=False):
                fact = "folder"
                pending.append(name)
            elif entry.is_file(follow_symlinks=False):
                fact = f"file {_file_checksum(entry.path)}"
            else:
                continue  # a socket or a pipe, which copies do not have
            crc = zlib.crc32(f"{name}\0{fact}\0".encode(errors="surrogateescape"), crc)
    return f"{crc:08x}"


def damage_of(folder: Path, checksum: str) -> str:
    """What is wrong with a folder whose checksum was recorded, as text; empty if nothing is.

    Uncommitted files are not synchronised to the disk: after a power loss they may be empty, partial or all zeros.
    """
    if not checksum:
        return "was recorded without a checksum"
    try:
        return "" if tree_checksum(folder) == checksum else "has another checksum than when it was recorded"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _file_checksum(path: str) -> int:
    """CRC-32 of a file; for each full MiB it is computed of the sums of its 4 KiB pages, which is 5 times as fast."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            if len(block) == 1 << 20:
                import numpy as np  # here, because most users of this module do not need NumPy

                block = np.frombuffer(block, np.uint64).reshape(256, 512).sum(axis=1).tobytes()
            crc = zlib.crc32(block, crc)
    return crc


def is_full(folder: Path) -> bool:
    """Whether the file system of ``folder`` has almost no space left for this user, or cannot hold one more file."""
    while not folder.exists():
        folder = folder.parent
    facts = os.statvfs(folder)
    if facts.f_files and not facts.f_ffree:
        return True
    return facts.f_frsize * (facts.f_bavail if os.geteuid() else facts.f_bfree) < FULL_BYTES


def copy_file(source: Path, target: Path) -> None:
    """Copy bytes and permission bits; shares blocks if the file system can (reflink). Holes stay holes."""
    with open_regular(source) as src, open(target, "xb") as dst:
        size_bytes = os.fstat(src.fileno()).st_size
        if size_bytes <= LINK_ABOVE_BYTES:
            shutil.copyfileobj(src, dst)
        elif not reflink(src, dst):
            _copy_data(src, dst, size_bytes)
    shutil.copymode(source, target)


def _copy_data(source: BinaryIO, target: BinaryIO, size_bytes: int) -> None:
    """Copy a file without filling its holes, which may be most of it."""
    end = 0
    while end < size_bytes:
        try:
            source.seek(end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            break
        start = source.tell()
        end = min(size_bytes, os.lseek(source.fileno(), start, os.SEEK_HOLE))
        source.seek(start)
        target.seek(start)
        while start < end and (block := source.read(min(1 << 20, end - start))):
            target.write(block)
            start += len(block)
    target.truncate(size_bytes)


def reflink(source: BinaryIO, target: BinaryIO) -> bool:
    """Let ``target`` share the blocks of ``source``; returns False if the file system cannot."""
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def walk(folder: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder from ``folder`` down, with its entries; without following links, and without recursion.

    Folders that vanish meanwhile, cannot be opened, or are deeper than the longest path are skipped.
    """
    pending = [str(folder)]
    while pending:
        path = pending.pop()
        try:
            with os.scandir(path) as listing:
                entries = list(listing)
        except OSError:
            continue
        pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield path, entries


def copy_tree(source: Path, target: Path, *, but: Container[str] = ()) -> None:
    """Copy a folder of plain files and folders into ``target``, which must not exist.

    Symbolic links are copied as links; anything else (devices, sockets, fifos) is omitted, and so are files and folders
    whose paths inside the folder are in ``but``. Files are writable in the copy, so that a program can keep state
    beside its code.

    Raises:
        OSError: For example, if folders are nested deeper than `MAX_LEVELS`.
    """
    top = len(str(source)) + 1
    pending = [(source, target, 0)]
    while pending:
        folder, copy, level = pending.pop()
        if level > MAX_LEVELS:
            raise OSError(errno.ENAMETOOLONG, f"Folders nested deeper than {MAX_LEVELS} levels", str(source))
        copy.mkdir(mode=0o777 if level else 0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                destination = copy / entry.name
                if entry.is_symlink():
                    destination.symlink_to(os.readlink(entry.path))
                elif entry.path[top:] in but:
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((Path(entry.path), destination, level + 1))
                elif entry.is_file(follow_symlinks=False):
                    copy_file(Path(entry.path), destination)
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if not mode & stat.S_IWUSR:
                        destination.chmod(stat.S_IMODE(mode) | stat.S_IWUSR)


def remove_files(folder: Path) -> None:
    """A faster `remove_tree` for our own folders that contain only files."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(fd):
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(folder)
    except OSError:
        remove_tree(folder)


def remove_each(folders: Sequence[Path]) -> None:
    """`remove_files` for many folders, side by side: with online discard, ext4 waits for the disk at each folder."""
    if len(folders) <= _AT_ONCE:
        for folder in folders:
            remove_files(folder)
        return
    from concurrent.futures import ThreadPoolExecutor  # here, because few commands remove so many

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(remove_files, folders):
            pass


def remove_tree(folder: Path) -> None:
    """Remove a folder, if it exists, with all its contents, at any depth, even if a program has removed permissions.

    Deeper folders are first moved up into ``folder``, so that neither paths nor the number of open folders grow.

    Raises:
        OSError: If something cannot be removed. Mount points of other file systems or folders are left unchanged.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            _insist(folder, None, os.unlink)
            return
        _give_back_permissions(folder)
        top = open_folder(folder)
        try:
            around = open_folder(folder.parent)
            try:
                mount = mount_of(around)
            finally:
                os.close(around)
            pending = _remove_files(top, mount)
            prefix, numbers = os.urandom(8).hex(), itertools.count()  # unused names
            while pending:
                name = pending.pop()
                inner = open_folder(name, dir_fd=top)
                try:
                    for deeper in _remove_files(inner, mount):
                        pending.append(f"{prefix}.{next(numbers)}")
                        _insist(deeper, inner, functools.partial(_move, pending[-1], top), into=top)
                finally:
                    os.close(inner)
                _insist(name, top, os.rmdir)
        finally:
            os.close(top)
        _insist(folder, None, os.rmdir)
    except FileNotFoundError:  # another process is removing it too
        return


def open_folder(path: str | Path, *, dir_fd: int | None = None) -> int:
    """A descriptor of a folder; a symbolic link to one is an error."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, dir_fd=dir_fd)


def mount_of(folder: int) -> str:
    """The mount of an open folder: its number on Linux, where one file system can be mounted twice."""
    try:
        facts = os.open(f"/proc/self/fdinfo/{folder}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return str(os.fstat(folder).st_dev)
    try:
        return next((line for line in os.read(facts, 1024).decode().splitlines() if line.startswith("mnt_id")), "")
    finally:
        os.close(facts)


def _give_back_permissions(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Give the permissions to read, empty and move a folder."""
    if os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode & 0o700 != 0o700:
        _insist(path, dir_fd, lambda path, dir_fd: os.chmod(path, 0o700, dir_fd=dir_fd))


def _remove_files(folder: int, mount: str) -> list[str]:
    """Remove everything that is not a folder; returns the names of the folders."""
    if mount_of(folder) != mount:
        raise OSError(errno.EBUSY, "Something is mounted there")
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                _give_back_permissions(entry.name, dir_fd=folder)
                folders.append(entry.name)
            else:
                _insist(entry.name, folder, os.unlink)
    return folders


def _move(new_name: str, new_fd: int, path: str | Path, dir_fd: int | None) -> None:
    os.rename(path, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_fd)


def _insist(path: str | Path, dir_fd: int | None, change: Callable[..., None], *, into: int | None = None) -> None:
    """Remove, move or change something, even if root has marked it, or the folder around it, as immutable."""
    try:
        change(path, dir_fd=dir_fd)
    except PermissionError:
        places = [(path, dir_fd), (os.path.dirname(path) or ".", dir_fd), *([] if into is None else [(".", into)])]
        had_flags = [_let_change(*place) for place in places]
        if not any(had_flags):
            raise
        change(path, dir_fd=dir_fd)


def _let_change(path: str | Path, dir_fd: int | None) -> bool:
    """Clear the flags that prevent even root from changing something (`chattr +i`, `+a`); True if any were set."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return False
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        had = int.from_bytes(flags[:4], sys.byteorder)
        if not had & _UNCHANGEABLE:
            return False
        fcntl.ioctl(fd, _SET_FLAGS, (had & ~_UNCHANGEABLE).to_bytes(4, sys.byteorder) + bytes(4))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def natural_order(path: str | Path) -> tuple[list[str | int], str]:
    """Sort key that puts client2 before client10."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)


def same_files(one: Path, other: Path, *, max_bytes: int | None = LINK_ABOVE_BYTES, but: Container[str] = ()) -> bool:
    """Whether two folders contain the same files, byte for byte; False also if a file is larger than ``max_bytes``.

    Files whose paths inside the folders are in ``but`` must exist in both, but are not compared.
    """
    top = len(str(one)) + 1
    pending = [(str(one), str(other))]
    while pending:
        folder, its_other = pending.pop()
        with os.scandir(folder) as listing, os.scandir(its_other) as other_listing:
            entries = sorted(listing, key=lambda entry: entry.name)
            others = sorted(other_listing, key=lambda entry: entry.name)
        if [entry.name for entry in entries] != [entry.name for entry in others]:
            return False
        for pair in zip(entries, others, strict=True):
            if all(entry.is_dir(follow_symlinks=False) for entry in pair):
                pending.append((pair[0].path, pair[1].path))
            elif pair[0].path[top:] not in but and not _same_entries(*pair, max_bytes=max_bytes):
                return False
    return True


def _same_entries(one: os.DirEntry[str], other: os.DirEntry[str], *, max_bytes: int | None) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one.path) == os.readlink(other.path)
    if not (one.is_file() and other.is_file()):
        return False
    size_bytes = one.stat().st_size
    if (max_bytes is not None and size_bytes > max_bytes) or size_bytes != other.stat().st_size:
        return False
    return same_bytes(Path(one.path), Path(other.path))


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files are equal; False also if one cannot be read."""
    try:
        with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
            while (block := first.read(1 << 20)) == second.read(1 << 20):
                if not block:
                    return True
    except OSError:
        pass
    return False


def fsync_tree(folder: Path) -> None:
    """Make a folder with all its contents survive a power cut."""
    folders = []
    for path, entries in walk(folder):
        folders.append(path)
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    for path in reversed(folders):
        fsync_folder(Path(path))
