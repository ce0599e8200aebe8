"""Reads a tar archive, compressed or not, as one stream: without seeking, in bounded memory; any damage is an error.

``tarfile`` treats a broken header as the end, reads extended headers of any size into memory and follows them
recursively; so only its parser of one 512-byte header is used.
"""

from __future__ import annotations

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fedpkg.compute_package.members import BadMember

MAX_HEADER_BYTES = 256 << 10  # of one extended header: enough for the file attributes that macOS adds
MAX_HEADERS = 16  # consecutive extended headers; writers need two or three
_BLOCK = 512
_READ_BYTES = 256 << 10
_XZ_MEMORY_BYTES = 128 << 20  # xz -9 needs 65 MiB

# An octal number, terminated by a space or NUL, or GNU's base 256. Python's int() also accepts "1_0", "+1" and "0o1".
_SIZE = re.compile(rb" *[0-7]*(?:[ \0].*)?|[\x80\xff].*", re.DOTALL)
_MAX_OCTAL = 0o77777777777  # the largest number in a header's own size field
# Keys of extended headers that mean that the bytes that follow are not simply the file's contents.
_SPARSE_KEYS = ("GNU.sparse.", "SCHILY.realsize", "SUN.holesdata")

_PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_TYPE_NAMES = {
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a fifo",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Readable(Protocol):
    def read(self, size_bytes: int, /) -> bytes: ...


@dataclass(frozen=True)
class TarMember:
    """One member as in the archive; its names have not been checked."""

    name: str
    type: bytes  # tarfile.REGTYPE, DIRTYPE, SYMTYPE or LNKTYPE
    size_bytes: int
    target: str
    executable: bool


class TarStream:
    """Members of a tar file in their order; ``data()`` gives the bytes of the latest one.

    Raises:
        BadMember: If it is damaged, truncated, followed by other data, of another format, or above
            ``max_stream_bytes``.
    """

    def __init__(self, file: Readable, *, max_stream_bytes: int, too_big: BadMember) -> None:
        self._blocks = _decompressed(file)
        self._buffer = memoryview(b"")
        self._left_bytes = max_stream_bytes
        self._too_big = too_big
        self._unread_bytes = 0  # of the current member
        self._member: str | None = None

    def members(self) -> Iterator[TarMember]:
        while True:
            for _ in self.data():
                pass
            member = self._next_member()
            if member is None:
                self._expect_end()
                return
            self._member = member.name
            self._unread_bytes = member.size_bytes
            yield member

    def names(self) -> Iterator[str]:
        """Only the names of the members: ten times as fast as `members`, to count them.

        It ends without an error at anything unusual, which `members` refuses.
        """
        longer = None
        while any(block := self._exactly(_BLOCK)):
            kind, digits = block[156:157], block[124:136].strip(b" \0")
            if digits.strip(b"01234567"):
                return
            self._unread_bytes = int(digits or b"0", 8)
            if kind in (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME):
                if self._unread_bytes > MAX_HEADER_BYTES:
                    return
                data = b"".join(map(bytes, self.data()))
                if kind == tarfile.GNUTYPE_LONGNAME:
                    longer = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                else:
                    longer = _pax_records(data).get("path", longer)
                continue
            if kind not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                fields = (block[345:500], block[:100]) if block[257:263] == b"ustar\0" else (block[:100],)
                parts = (field.partition(b"\0")[0].decode("utf-8", "surrogateescape") for field in fields)
                yield longer or "/".join(filter(None, parts))
                longer = None
            for _ in self.data():
                pass

    def data(self) -> Iterator[memoryview]:
        """The bytes of the current member, in blocks that are valid until the next one."""
        padding = -self._unread_bytes % _BLOCK
        while self._unread_bytes:
            block = self._some(self._unread_bytes)
            self._unread_bytes -= len(block)
            yield block
        self._exactly(padding)

    def _next_member(self) -> TarMember | None:
        """Read the next member's header and the extended headers before it; None at the end mark."""
        extended: dict[str, str] = {}
        for _ in range(MAX_HEADERS + 1):
            block = self._exactly(_BLOCK)
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                    if extended:
                        raise self._damaged("it ends after an extended header") from None
                    return None
                raise self._damaged(f"a tar header is missing ({error})") from None
            if header.size < 0:
                raise self._damaged("a header states a negative size")
            if not _SIZE.fullmatch(block[124:136]):
                raise self._damaged("a header states a size that is not an octal number")
            if block[257:265] == b"ustar  \0" and block[345] and header.type != tarfile.GNUTYPE_SPARSE:
                # GNU tar has times in this field and POSIX a prefix of the name: two readers would see two names.
                raise self._damaged("a header has GNU tar's mark and a prefix to its name")
            if header.type in _PAX_TYPES:
                records = _pax_records(self._extended_header(header))
            elif header.type == tarfile.XGLTYPE:
                for key in _pax_records(self._extended_header(header)):
                    if key in ("path", "linkpath", "size") or key.startswith(_SPARSE_KEYS):
                        raise self._damaged("a global header renames or resizes members")
                continue  # such as the commit id that git archive writes
            elif header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                text = self._extended_header(header).decode("utf-8", "surrogateescape")
                records = {key: text[:-1] if text.endswith("\0") else text}
            else:
                return self._checked(header, extended)
            if extended.keys() & records.keys():
                raise self._damaged("two extended headers for one member")
            extended.update(records)
        raise self._damaged(f"more than {MAX_HEADERS} extended headers in a row")

    def _checked(self, header: tarfile.TarInfo, extended: dict[str, str]) -> TarMember:
        name = extended.get("path", header.name)
        self._member = name
        if any(key.startswith(_SPARSE_KEYS) for key in extended):
            raise BadMember("it is a sparse file", member=name)
        size = extended.get("size", str(header.size))
        if not (size.isascii() and size.isdigit() and len(size) < 20):
            raise BadMember(f"its size {size[:40]!r} is not a number", member=name)
        if header.size not in (int(size), _MAX_OCTAL) and (header.size or int(size) <= _MAX_OCTAL):
            # A reader that ignores extended headers would parse the file's bytes as headers, and see other members.
            raise BadMember(f"its header states {header.size} bytes, but its extended header {size}", member=name)
        kind = tarfile.REGTYPE if header.type in _FILE_TYPES else header.type
        if kind not in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise BadMember(f"it is {_TYPE_NAMES.get(kind, f'of the unknown type {kind!r}')}", member=name)
        if kind != tarfile.REGTYPE and int(size):
            # Readers disagree on whether bytes follow; one that guesses wrong parses file contents as headers.
            raise BadMember("it is not a file, but has a size", member=name)
        if kind == tarfile.REGTYPE and name.endswith("/"):
            raise BadMember("it is a file, but its name ends with '/'", member=name)
        return TarMember(
            name=name,
            type=kind,
            size_bytes=int(size),
            target=extended.get("linkpath", header.linkname),
            executable=bool(header.mode & 0o100),
        )

    def _extended_header(self, header: tarfile.TarInfo) -> bytes:
        if header.size > MAX_HEADER_BYTES:
            raise BadMember(
                f"it has an extended header of {header.size} bytes (at most {MAX_HEADER_BYTES} are allowed)"
            )
        data = self._exactly(header.size)
        self._exactly(-header.size % _BLOCK)
        return data

    def _expect_end(self) -> None:
        """Allow only zeros after the first zero block; reading them also checks a compressed file's checksum."""
        self._member = None
        while True:
            block = self._some(_READ_BYTES, end_is_fine=True)
            if not block:
                return
            if any(block):
                raise self._damaged("data follows its end")

    def _exactly(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            data += self._some(size_bytes - len(data))
        return data

    def _some(self, size_bytes: int, *, end_is_fine: bool = False) -> memoryview:
        """Between 1 and ``size_bytes`` bytes, or no bytes if the end is allowed here."""
        if not self._buffer:
            self._buffer = memoryview(next(self._blocks, b""))
            if not self._buffer and not end_is_fine:
                raise self._damaged("it is truncated")
        block, self._buffer = self._buffer[:size_bytes], self._buffer[size_bytes:]
        self._left_bytes -= len(block)
        if self._left_bytes < 0:
            raise self._too_big
        return block

    def _damaged(self, problem: str) -> BadMember:
        return BadMember(f"the archive is damaged: {problem}", member=self._member)


def _pax_records(data: bytes) -> dict[str, str]:
    """Parses repetitions of ``"<length> <key>=<value>\\n"``, as defined in POSIX.1-2001."""
    records: dict[str, str] = {}
    start = 0
    while start < len(data):
        digits, space, _ = data[start : start + 20].partition(b" ")
        end = start + (int(digits) if space and digits.isdigit() else 0)
        key, equals, value = data[start + len(digits) + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise BadMember("the archive is damaged: an extended header is malformed")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        start = end
    return records


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's decoder with the interface of bz2's and lzma's; checks the checksum and length at a gzip member's end."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)


def _decompressed(file: Readable) -> Iterator[bytes]:
    """The tar bytes in blocks; the first bytes determine the compression, never the file's name."""
    start = file.read(_READ_BYTES)
    if not start:
        raise BadMember("it is an empty file")
    if _is_tar_header(start[:_BLOCK]):  # first, because a tar file begins with a name, which could be "BZh"
        return _plain(start, file)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise BadMember("it is a zip file", hint="use tar: tar -czvf package.tar.gz client")
    new_decoder: Callable[[], _Decoder]
    if start.startswith(b"\x1f\x8b"):
        new_decoder = _Gunzip
    elif start.startswith(b"BZh"):
        new_decoder = bz2.BZ2Decompressor
    elif start.startswith(b"\xfd7zXZ\x00"):

        def new_decoder() -> _Decoder:
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
    else:
        raise BadMember("it is not a tar archive", hint="a package is a .tar.gz: tar -czvf package.tar.gz client")
    return _decoded(start, file, new_decoder)


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return isinstance(error, tarfile.EOFHeaderError)  # type: ignore[attr-defined]
    return True


def _plain(start: bytes, file: Readable) -> Iterator[bytes]:
    yield start
    while block := file.read(_READ_BYTES):
        yield block


def _decoded(data: bytes, file: Readable, new_decoder: Callable[[], _Decoder]) -> Iterator[bytes]:
    first = True
    while data:  # a compressed file may consist of several concatenated ones
        decoder, ended = new_decoder(), False
        try:
            while not decoder.eof:
                if not data and decoder.needs_input:
                    data = file.read(_READ_BYTES)
                    ended = not data
                block = decoder.decompress(data, _READ_BYTES)
                data = b""
                if block:
                    yield block
                elif ended and not decoder.eof:
                    raise BadMember("the archive is damaged: it is truncated")
        except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            what = str(error) if first else "data follows its end"
            raise BadMember(f"the archive is damaged: {what}") from None
        data = decoder.unused_data or file.read(_READ_BYTES)
        first = False
