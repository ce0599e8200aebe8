"""Names and links that a package may have: one set of rules for building and for unpacking."""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import NamedTuple

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255  # what Linux file systems take
MAX_DEPTH = 64

# These change the direction of the text or are invisible, so that a name would differ from what is displayed.
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
    """A name for a message: quoted, escaped and shortened."""
    return repr(name if len(name) <= 120 else f"{name[:80]}…{name[-30:]}")


def normal_name(name: str, *, member: str | None = None) -> str:
    """``./client//a.py`` → ``client/a.py``; the archive's own root becomes ``""``.

    Raises:
        BadMember: If the name could lead out of its folder, or does not mean the same on every system.
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
    """The target of the symbolic link ``name`` (a normal name), as a normal name.

    ``..`` is allowed only at the start. There it climbs real folders, because nothing is ever written through a link;
    after a name it could climb out of another link's target.

    Raises:
        BadMember: If it leads, or could lead, out of the archive's root.
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
    """Whether a normal name is ``folder`` (``""`` is the root) or is inside it."""
    return not folder or name == folder or name.startswith(folder + "/")


class Members:
    """The members read so far. Refuses duplicates, members inside a file or behind a link, and too many members.

    Names that differ only in case or in the encoding of an accent count as the same, because on some file systems
    one would overwrite the other.
    """

    def __init__(self, max_members: int) -> None:
        self.kinds: dict[str, Kind] = {}
        self._explicit: set[str] = set()
        self._folded: dict[str, str] = {}
        self._max_members = max_members

    def add(self, name: str, kind: Kind) -> list[str]:
        """Add a member (a normal name); returns the new folders that it needs, outermost first."""
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
            raise BadMember("the archive contains it twice", member=name)
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
        hint="if you trust the package, raise limits.package_members",
    )


def too_many_bytes(max_bytes: int, *, member: str | None = None) -> BadMember:
    return BadMember(
        f"the package unpacks to more than {max_bytes} bytes",
        member=member,
        hint="if you trust the package, raise limits.package_bytes",
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
