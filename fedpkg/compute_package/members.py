"""Which names and links a package may hold: one set of rules for building and for unpacking."""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import NamedTuple

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255  # what Linux file systems take
MAX_DEPTH = 64

# They turn the direction of what follows, or are not seen: a name would not be what a person reads.
INVISIBLE = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_DRIVE = re.compile(r"[A-Za-z]:")


class Kind(str, Enum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


class FileEntry(NamedTuple):
    """A file of a package: its name inside the archive, with the top folder."""

    name: str
    size_bytes: int


class BadMember(Exception):
    """A rule is broken, or the archive is damaged (then ``member`` may be unknown)."""

    def __init__(self, rule: str, *, member: str | None = None, hint: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.member = member
        self.hint = hint


def shown(name: str) -> str:
    """A name fit for a message: quoted, escaped, not too long."""
    return repr(name if len(name) <= 120 else f"{name[:80]}…{name[-30:]}")


def normal_name(name: str, *, member: str | None = None) -> str:
    """``./client//a.py`` → ``client/a.py``; the archive's own root becomes ``""``.

    Raises:
        BadMember: the name could leave its folder, or would not mean the same everywhere.
    """
    member = name if member is None else member
    what = "its name" if member is name else f"its target {shown(name)}"
    _check_characters(name, what, member)
    if name.startswith("/"):
        raise BadMember(f"{what} is absolute", member=member)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadMember(f"{what} contains '..'", member=member)
    if len(parts) > MAX_DEPTH:
        raise BadMember(f"{what} is nested deeper than {MAX_DEPTH} folders", member=member)
    normal = "/".join(parts)
    if len(normal.encode()) > MAX_NAME_BYTES:
        raise BadMember(f"{what} is longer than {MAX_NAME_BYTES} bytes", member=member)
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise BadMember(f"a part of {what} is longer than {MAX_PART_BYTES} bytes", member=member)
    return normal


def link_target(name: str, target: str) -> str:
    """Where the symbolic link ``name`` (a normal name) leads, as a normal name.

    ``..`` may only stand at the start. There it climbs real folders, because nothing is ever written through a link;
    after a name it could climb out of what another link points to.

    Raises:
        BadMember: it leaves the archive's root, or could.
    """
    what = f"its target {shown(target)}"
    _check_characters(target, what, name)
    if not target:
        raise BadMember("its target is empty", member=name)
    if target.startswith("/"):
        raise BadMember(f"{what} is absolute", member=name)
    at = name.split("/")[:-1]
    down: list[str] = []
    for part in target.split("/"):
        if part == "..":
            if down:
                raise BadMember(f"{what} has '..' after a name", member=name)
            if not at:
                raise BadMember(f"{what} is outside the package", member=name)
            at.pop()
        elif part not in ("", "."):
            down.append(part)
    return normal_name("/".join(at + down), member=name)


def is_inside(name: str, folder: str) -> bool:
    """Whether a normal name is ``folder`` (``""`` is the root) or lies in it."""
    return not folder or name == folder or name.startswith(folder + "/")


class Members:
    """The members seen so far: none twice, none inside a file or behind a link, not too many.

    Names that differ only in case or in how an accent is encoded count as the same, because on some file systems
    one would overwrite the other.
    """

    def __init__(self, max_members: int) -> None:
        self.kinds: dict[str, Kind] = {}
        self._explicit: set[str] = set()
        self._folded: dict[str, str] = {}
        self._max_members = max_members

    def add(self, name: str, kind: Kind) -> list[str]:
        """Take a member (a normal name); returns the folders that come into being with it, outermost first."""
        new_folders = []
        slash = name.find("/")
        while slash != -1:
            parent = name[:slash]
            known = self.kinds.get(parent)
            if known is None:
                self._register(parent, Kind.FOLDER, member=name)
                new_folders.append(parent)
            elif known is Kind.LINK:
                raise BadMember(f"it would be written through the link {shown(parent)}", member=name)
            elif known is Kind.FILE:
                raise BadMember(f"it lies inside {shown(parent)}, which is a file", member=name)
            slash = name.find("/", slash + 1)
        known = self.kinds.get(name)
        if known is None:
            self._register(name, kind, member=name)
            if kind is Kind.FOLDER:
                new_folders.append(name)
        elif name in self._explicit:
            raise BadMember("it is there twice", member=name)
        elif kind is not Kind.FOLDER:
            raise BadMember(f"it is a {kind.value} here and a folder elsewhere", member=name)
        self._explicit.add(name)
        return new_folders

    def _register(self, name: str, kind: Kind, *, member: str) -> None:
        folded = _fold(name)
        other = self._folded.setdefault(folded, name)
        if other != name:
            raise BadMember(f"{shown(name)} and {shown(other)} are the same name on some systems", member=member)
        self.kinds[name] = kind
        if len(self.kinds) > self._max_members:
            raise too_many_members(self._max_members, member=member)


def too_many_members(max_members: int, *, member: str | None = None) -> BadMember:
    return BadMember(
        f"the package has more than {max_members} files and folders",
        member=member,
        hint="raise limits.package_members, if you trust the package",
    )


def too_many_bytes(max_bytes: int, *, member: str | None = None) -> BadMember:
    return BadMember(
        f"the package unpacks to more than {max_bytes} bytes",
        member=member,
        hint="raise limits.package_bytes, if you trust the package",
    )


def _fold(name: str) -> str:
    """Canonical caseless form (Unicode 3.13, D145)."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _check_characters(text: str, what: str, member: str) -> None:
    if "\\" in text:
        raise BadMember(f"{what} contains a backslash", member=member)
    if _DRIVE.match(text):
        raise BadMember(f"{what} starts with a drive letter", member=member)
    if text.isascii() and text.isprintable():
        return
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise BadMember(f"{what} is not UTF-8", member=member)
        if category in ("Cc", "Zl", "Zp"):
            raise BadMember(f"{what} contains a control character", member=member)
        if character in INVISIBLE:
            raise BadMember(f"{what} contains an invisible character", member=member)
