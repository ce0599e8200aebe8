"""The bytes of a file: large files are mapped, not read. Writing to them never changes the file."""

from __future__ import annotations

import io
import mmap
import os
import stat
import weakref
from typing import Any

READ_UP_TO_BYTES = 512 << 10  # smaller files are read: faulting in a mapping page by page takes several times as long


class File:
    """A regular file that is open for reading, as a view that may be written to (copy on write).

    ``part`` is the offset and length of a small part of it, which is read as if it were the file.

    The file must not be truncated while it is mapped: the operating system then kills the process that reads it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not a regular file, or is empty.
    """

    def __init__(self, path: str, part: tuple[int, int] | None = None) -> None:
        self.path = os.path.abspath(path)
        fd, self._stamp = _opened(self.path)
        try:
            start, size = part or (0, self._stamp[2])
            self.is_mapped = part is None and size > READ_UP_TO_BYTES
            self.view = _map(fd, size) if self.is_mapped else filled(memoryview(bytearray(size)), fd, start)
        finally:
            os.close(fd)

    def __len__(self) -> int:
        return len(self.view)

    def again(self) -> memoryview | None:
        """Another mapping, which does not see what is written to the first; None if the file is gone or has changed."""
        try:
            fd, stamp = _opened(self.path)
        except (OSError, ValueError):
            return None
        try:
            return _map(fd, stamp[2]) if self.is_mapped and stamp == self._stamp else None
        except OSError:
            return None
        finally:
            os.close(fd)


class Stream(io.RawIOBase):
    """A view as a file, as zipfile needs one: io.BytesIO would copy it."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._place = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (0, self._place, len(self._view))[whence]
        if not 0 <= place <= len(self._view):
            raise OSError("seek out of range")  # as zipfile expects
        self._place = place
        return place

    def read(self, size: int = -1) -> bytes:
        start, self._place = self._place, len(self._view) if size < 0 else min(self._place + size, len(self._view))
        return bytes(self._view[start : self._place])


def _opened(path: str) -> tuple[int, tuple[int, ...]]:
    """A descriptor, and what tells whether the file is still the same: device, inode, size, time of the last change."""
    # Without O_NONBLOCK, opening a fifo would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    problem = "is not a regular file" if not stat.S_ISREG(status.st_mode) else "" if status.st_size else "is empty"
    if problem:
        os.close(fd)
        raise ValueError(f"the file {problem}")
    return fd, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def filled(view: memoryview, fd: int, start: int = 0) -> memoryview:
    """A view of bytes with those of a file from ``start`` on; shorter if the file ends before."""
    end = 0
    while end < len(view) and (count := os.preadv(fd, [view[end:]], start + end)):
        end += count
    return view[:end]


def _map(fd: int, size: int) -> memoryview:
    # Python's mmap keeps a file descriptor open (before 3.13 always), and a program may map thousands of replies.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    pages: Any = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(pages, libc.munmap, address, size).atexit = False  # arrays may be in use until the process is gone
    return memoryview(pages).cast("B")
