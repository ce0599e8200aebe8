"""A model file mapped into memory, whose tensors are used without a copy where that is safe."""

from __future__ import annotations

import copy
import math
import os
import stat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedpkg.client.mapped import READ_UP_TO_BYTES, filled
from fedpkg.errors import ModelFileError

MAX_NDIM = 64  # numpy's limit, and torch's


class MappedFile:
    """The bytes of a regular file, mapped privately: writing to a tensor never changes the file. Small ones are read.

    The file must not be truncated while it is mapped (the operating system then kills the process that reads it), so a
    client's file is first moved to where the client cannot write.

    Raises:
        ModelFileError: If the file does not exist, is empty, is not a regular file, or cannot be read.
    """

    def __init__(self, path: Path, *, max_bytes: int | None) -> None:
        self.path = path
        self._bytes_left = math.inf if max_bytes is None else max_bytes
        self._max_bytes = max_bytes
        try:
            # Without O_NONBLOCK, opening a fifo would wait for a writer.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise self.error("not a regular file")
                if status.st_size == 0:
                    raise self.error("the file is empty")
                self.view = (_read if status.st_size <= READ_UP_TO_BYTES else _map)(fd, status.st_size)
            finally:
                os.close(fd)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from error
        except RuntimeError as error:  # torch raises it for errors of the operating system
            raise self.error(f"cannot be read: {str(error).partition(chr(10))[0]}") from error

    def part(self, start: int, length: int) -> MappedFile:
        """A part of the file, as a file of its own that shares the mapping."""
        if not 0 <= start <= start + length <= len(self):
            raise self.error(f"has {len(self)} bytes, and none from {start} to {start + length}")
        part = copy.copy(self)
        part.view = self.view[start : start + length]
        return part

    def __len__(self) -> int:
        return len(self.view)

    def error(self, reason: str, name: str | None = None, hint: str | None = None) -> ModelFileError:
        """An error about this file, or about the tensor ``name`` in it."""
        where = f"{self.path}: tensor {name[:200]!r}" if name is not None else f"{self.path}"
        return ModelFileError(f"{where}: {reason}", hint=hint, path=str(self.path), tensor=name)

    def claim(self, num_bytes: int, name: str) -> None:
        """Count a tensor's bytes against the file's limit, before memory is allocated for them."""
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise self.error(f"the model is bigger than the limit of {self._max_bytes} bytes", name)

    def tensor(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...], start: int, source: bytearray | None = None
    ) -> Tensor:
        """The tensor whose bytes, in C order, begin at ``start`` in the file or in ``source``.

        The caller has checked that they are within it.
        """
        try:
            if 0 in shape:
                return torch.empty(shape, dtype=dtype)
            count = math.prod(shape)
            buffer = self.view if source is None else source
            if start % dtype.itemsize:
                # np.savez does not align arrays, but compiled kernels in torch may rely on aligned elements: a client's
                # file must not be able to crash its reader.
                tensor = torch.empty(count, dtype=dtype)
                size = count * dtype.itemsize
                tensor.view(torch.uint8).copy_(torch.frombuffer(buffer, dtype=torch.uint8, count=size, offset=start))
            else:
                tensor = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start)
            if dtype == torch.bool and torch.any(tensor.view(torch.uint8) > 1):
                raise self.error("is boolean, but contains bytes other than 0 and 1", name)
            return tensor.reshape(shape)
        except (RuntimeError, OverflowError, TypeError) as error:  # a shape that torch does not support
            raise self.error(str(error), name) from error


def _read(fd: int, size_bytes: int) -> memoryview:
    """All bytes of a small file, which the caller may write to."""
    content: Any = torch.empty(size_bytes, dtype=torch.uint8).numpy()  # aligned to 64 bytes, as a mapping is
    return filled(memoryview(content), fd)


def _map(fd: int, size_bytes: int) -> memoryview:
    # Python's own mmap would keep a file descriptor open, for each of thousands of updates at the same time.
    storage: Any = torch.UntypedStorage.from_file(f"/proc/self/fd/{fd}", False, size_bytes)
    mapped: Any = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return memoryview(mapped)
