"""Content-addressed model files: a file's name is the sha256 of its bytes, so it is written once and never changes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from fedpkg.errors import NotFound, StoreError
from fedpkg.files import fsync_folder, sha256_file
from fedpkg.stores.base import ModelRow

_BACKGROUND_ABOVE = 1 << 20  # number of bytes from which a thread is worthwhile


class ModelStore:
    """A folder of read-only files ``ab/abcdef….npz``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, suffix: str, write: Callable[[BinaryIO], None]) -> tuple[str, Path, int]:
        """Keep what ``write`` writes; return its digest, its path and its size in bytes.

        The bytes are hashed while they are written to a temporary file; a ``write`` that seeks back (zip headers)
        costs one more reading. When this returns, the file survives a power cut.

        Raises:
            StoreError: the disk is full or the folder cannot be written; no partial file is left.
        """
        if not suffix.startswith(".") or "/" in suffix:
            raise ValueError(f"a suffix must look like '.npz', not {suffix!r}")
        temporary = self.folder / f".{os.getpid()}.{os.urandom(8).hex()}.tmp"
        try:
            with self._naming_errors():
                self.folder.mkdir(parents=True, exist_ok=True)
                file = open(temporary, "xb", buffering=0)  # noqa: SIM115 - closed by the next block
            with file, ThreadPoolExecutor(1) as pool:
                writer = _HashingWriter(self, file, pool)
                write(cast(BinaryIO, writer))
                with self._naming_errors():
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
                    size_bytes = os.fstat(file.fileno()).st_size
            with self._naming_errors():
                digest = writer.hexdigest() or sha256_file(temporary)
                path = self.path(digest, suffix)
                # A file of another size under this name was damaged after it was written: replace it.
                if not path.is_file() or path.stat().st_size != size_bytes:
                    path.parent.mkdir(exist_ok=True)
                    temporary.replace(path)
                fsync_folder(path.parent)
                fsync_folder(self.folder)
            return digest, path, size_bytes
        finally:
            with suppress(OSError):
                temporary.unlink()

    def path(self, digest: str, suffix: str) -> Path:
        """The path of the model with this digest, whether or not it exists."""
        return self.folder / digest[:2] / f"{digest}{suffix}"

    def verify_model(self, model: ModelRow) -> Path:
        """`verify` for the model of a row, whose file may have been pruned."""
        if model.pruned is not None and not self.path(model.digest, model.suffix).exists():
            raise NotFound(
                f"the file of model {model.model_id} was pruned by the rule keep {model.pruned}",
                hint="`fedpkg model list` shows which files exist; a run of the same configuration and seed with "
                "keep.models=all makes it again",
                model_id=model.model_id,
                digest=model.digest,
                pruned=model.pruned,
            )
        return self.verify(model.digest)

    def verify(self, digest: str) -> Path:
        """Read a kept model once and compare its digest; return its path.

        Raises:
            NotFound: it does not exist.
            StoreError: its bytes changed since they were written.
        """
        paths = sorted((self.folder / digest[:2]).glob(f"{digest}.*"))
        if not paths:
            raise NotFound(
                f"the file of model {digest[:12]} is missing in {self.folder}",
                hint="restore the models folder, or run the session again, which makes the same models",
                digest=digest,
            )
        for path in paths:
            with self._naming_errors():
                found = sha256_file(path)
            if found != digest:
                raise StoreError(
                    f"{path} is damaged: its bytes have digest {found[:12]}",
                    hint="restore it, or remove it and run the session again, which makes the same model",
                    path=str(path),
                )
        return paths[0]

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot keep a model in {self.folder}: {error.strerror or error}",
                hint="free space or make the folder writable, then `fedpkg session resume`; or use another --home",
                path=str(self.folder),
            ) from error


class _HashingWriter(io.RawIOBase):
    """A file that hashes its writes, as long as each continues where the furthest one ended.

    Large amounts of data are hashed in another thread.

    It has no ``fileno`` and is no ``BufferedWriter``, because NumPy would write to the descriptor directly.
    """

    def __init__(self, store: ModelStore, file: io.FileIO, pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self._store = store
        self._file = file
        self._pool = pool
        self._sha256 = hashlib.sha256()
        self._position = 0
        self._end = 0
        self._in_order = True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:  # any object with the buffer protocol
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        hashing: Future[None] | None = None
        if self._position != self._end:
            self._in_order = False
        elif view.nbytes > _BACKGROUND_ABOVE:
            hashing = self._pool.submit(self._sha256.update, view)
        else:
            self._sha256.update(view)
        with self._store._naming_errors():
            written = 0
            while written < view.nbytes:  # a full disk or a signal can shorten a write
                written += self._file.write(view[written:])
        if hashing is not None:
            hashing.result()  # the caller may change the buffer after this call
        self._position += view.nbytes
        self._end = max(self._end, self._position)
        return view.nbytes

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with self._store._naming_errors():
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._in_order = False
        with self._store._naming_errors():
            return self._file.truncate(size)

    def hexdigest(self) -> str | None:
        """The digest of the file, or None if it was not written in order."""
        return self._sha256.hexdigest() if self._in_order else None
