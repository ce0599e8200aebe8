"""What a browser asks a page for, and the addresses of pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from fedpkg.api.opening import Opened

DOWNLOAD = "download"  # key of the query: a part of the page as a file, as in "rounds.csv"
SINCE = "since"  # key of the query: the stamp of the page that asks for live updates
_RESERVED = (DOWNLOAD, SINCE)
LONGEST = 4000  # characters of a value in the query


@dataclass(frozen=True)
class Asked:
    """A request for a page. The query is its state: what is searched, sorted and selected."""

    path: str  # percent-encoded
    names: Mapping[str, str]  # the variable parts of the path
    query: Sequence[tuple[str, str]] = ()
    role: str = "viewer"
    is_live: bool = False  # only the live regions are drawn, for a page that has scripts
    opened: Opened | None = field(default=None, repr=False)

    @property
    def at(self) -> Opened:
        """The home, for functions of `api`."""
        assert self.opened is not None
        return self.opened

    def on(self, at: Opened, *, is_live: bool = False) -> Asked:
        """The same request, on an open home."""
        return replace(self, opened=at, is_live=is_live)

    def get(self, key: str, default: str = "") -> str:
        """The last value of a key of the query."""
        return next((value[:LONGEST] for name, value in reversed(self.query) if name == key), default)

    def all(self, key: str) -> list[str]:
        return [value[:LONGEST] for name, value in self.query if name == key]

    def number(self, key: str, default: int, *, least: int = 0, most: int = 10**9) -> int:
        """A whole number of the query; anything else is the default."""
        text = self.get(key)
        return min(max(int(text), least), most) if text.isascii() and text.isdecimal() and len(text) < 12 else default

    def url(self, **changes: object) -> str:
        """The address of this page with these keys changed; None removes a key, a list repeats it."""
        kept = [(name, value) for name, value in self.query if name not in changes and name not in _RESERVED]
        for name, value in changes.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            kept += [(name, str(one)) for one in values if one is not None]
        return self.path + (f"?{urlencode(kept)}" if kept else "")


def address(*parts: str, **query: object) -> str:
    """An address of the dashboard: ``address("sessions", "a/b")`` is ``/sessions/a%2Fb``."""
    path = "/" + "/".join(_segment(part) for part in parts)
    given: Iterable[tuple[str, object]] = ((name, value) for name, value in query.items() if value is not None)
    found = urlencode([*given], doseq=True)
    return f"{path}?{found}" if found else path


def _segment(text: str) -> str:
    """One part of a path. Browsers remove parts that are dots only, even if they are percent-encoded."""
    return ("~" if text.strip(".") == "" or text.startswith("~") else "") + quote(text, safe="")


def segment_text(segment: str) -> str:
    """The text of which `address` made this part, after percent-decoding."""
    return segment.removeprefix("~")
