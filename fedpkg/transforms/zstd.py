"""Compression by Zstandard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar

import msgspec

from fedpkg.errors import ConfigError, ModelFileError
from fedpkg.transforms.registry import register_transform
from fedpkg.transforms.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 1 << 20


@register_transform("zstd", equation="lossless", paper="RFC 8878, Zstandard Compression")
@dataclass(frozen=True)
class Zstd:
    """Compress all bytes of a message without loss.

    Numbers in full precision hardly shrink; quantised numbers and zeros do.

    Args:
        level: Compression level, from 1 (fastest) to 19 (smallest). 3 is usual.
    """

    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3

    stage: ClassVar[Stage] = Stage.PACK
    of_update: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _zstandard()

    def packed(self, content: bytes) -> bytes:
        packed: bytes = _zstandard().ZstdCompressor(level=self.level, write_content_size=True).compress(content)
        return packed

    def unpack(self, path: Path, target: BinaryIO, *, max_bytes: int) -> None:
        """Write the content of a compressed file, of at most ``max_bytes``.

        Raises:
            ModelFileError: the file is damaged, or its content is larger.
        """
        zstandard = _zstandard()
        size = 0
        try:
            with path.open("rb") as source:
                # The window bounds the memory of decompression; a frame may ask for gigabytes.
                pieces = zstandard.ZstdDecompressor(max_window_size=1 << 27).read_to_iter(source, write_size=_PIECE)
                for piece in pieces:
                    size += len(piece)
                    if size > max_bytes:
                        raise ModelFileError(f"{path}: unpacks to more than {max_bytes} bytes", path=str(path))
                    target.write(piece)
        except zstandard.ZstdError as error:
            raise ModelFileError(f"{path}: cannot be unpacked: {error}", path=str(path)) from error


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError(
            "the transform 'zstd' needs the package zstandard", hint="pip install 'fedpkg[compression]'"
        ) from None
    return zstandard
