"""An SVG in the making: shapes, texts, a title, a legend, and the frame of axes. Lengths are in pixels."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from fedpkg.pictures.axes import Scale
from fedpkg.pictures.palette import colour_of, dash_of, hatch_of
from fedpkg.shown import shown

LEGEND_MOST = 12  # entries of a legend


@dataclass(frozen=True)
class Frame:
    """The area inside the axes."""

    left: float
    top: float
    right: float
    bottom: float


class Canvas:
    """Collects the parts of one SVG. ``height`` may grow while it is drawn."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        look: str = "",
        anchor: str = "start",
        room: float | None = None,
        size: float = 12,
    ) -> None:
        """A text whose base line begins (or ends, or has its middle) there; what exceeds ``room`` is cut off."""
        whole = shown(text)
        cut = shortened(whole, room, size)
        hover = f"<title>{escape(whole)}</title>" if cut != whole else ""
        anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
        look = f' class="{look}"' if look else ""
        self.parts.append(f'<text x="{at(x)}" y="{at(y)}"{anchor}{look}>{escape(cut)}{hover}</text>')

    def rect(
        self, x: float, y: float, width: float, height: float, look: str, *, hover: str = "", more: str = ""
    ) -> None:
        inner = f"><title>{escape(shown(hover))}</title></rect>" if hover else "/>"
        size = f'width="{at(width)}" height="{at(height)}"'
        self.parts.append(f'<rect x="{at(x)}" y="{at(y)}" {size} class="{look}"{more}{inner}')

    def box(self, x: float, y: float, width: float, height: float, number: int, *, hover: str = "") -> None:
        """The area of the series with this number; after the last colour, areas are told apart by lines."""
        self.rect(x, y, width, height, f"f{colour_of(number)}", hover=hover)
        hatch = hatch_of(number)
        rows, columns = (range(3, int(length) + 1, 5) for length in (height, width))
        lines = [f"M{at(x)} {at(y + row)}h{at(width)}" for row in rows if hatch in ("-", "+")]
        lines += [f"M{at(x + column)} {at(y)}v{at(height)}" for column in columns if hatch in ("|", "+")]
        self.path("".join(lines), "k")

    def path(self, commands: str, look: str, *, dash: str = "", more: str = "") -> None:
        if commands:
            dashes = f' stroke-dasharray="{dash}"' if dash else ""
            self.parts.append(f'<path d="{commands}" class="{look}"{dashes}{more}/>')

    def title(self, title: str) -> float:
        """The title's line; returns where what follows may begin."""
        if not title:
            return 8
        self.text(12, 22, title, look="t", room=self.width - 24, size=15)
        return 32

    def legend(self, entries: Sequence[tuple[str, int, str]], top: float) -> float:
        """Entries (name, number of the series, kind) in lines; returns where they end.

        Kinds: ``line``, ``faint``, ``box``, and ``area``, repeated as often as such areas lie over each other.
        """
        if len(entries) > LEGEND_MOST:
            more = (f"and {len(entries) - LEGEND_MOST + 1} more", -1, "")
            entries = [*entries[: LEGEND_MOST - 1], more]
        x, y = 12.0, top + 12
        for name, number, kind in entries:
            room = min(text_width(shown(name)), self.width - 60)
            if x > 12 and x + 26 + room > self.width - 12:
                x, y = 12.0, y + 18
            if number >= 0:
                self._key(x, y, number, kind)
            self.text(x + (26 if number >= 0 else 0), y, name, room=room + 1)
            x += 26 + room + 18
        return y + 8 if entries else top

    def _key(self, x: float, y: float, number: int, kind: str) -> None:
        colour = colour_of(number)
        if kind in ("line", "faint"):
            look = f"l l{colour}{' w' if kind == 'faint' else ''}"
            self.path(f"M{at(x)} {at(y - 4)}h20", look, dash=dash_of(number))
        elif kind == "box":
            self.box(x, y - 9, 20, 10, number)
        else:
            for _ in range(kind.count("area")):
                self.rect(x, y - 9, 20, 10, f"b f{colour}")

    def axes(self, frame: Frame, x: Scale, y: Scale) -> None:
        """Grid, ticks and labels. The label of y stands above its axis, where it is read without turning the head."""
        for tick, text in zip(y.ticks, y.texts, strict=True):
            if (place := y.at(tick)) is None:  # the end of a scale of the largest numbers
                continue
            self.path(f"M{at(frame.left)} {at(place)}H{at(frame.right)}", "g")
            self.text(frame.left - 7, place + 4, text, look="q", anchor="end")
        both = zip(map(x.at, x.ticks), x.texts, strict=True)
        ticks = [(place, text) for place, text in both if place is not None]
        for place, _ in ticks:
            self.path(f"M{at(place)} {at(frame.bottom)}v4", "e")
        self.labels_below(frame, ticks)
        self.path(f"M{at(frame.left)} {at(frame.bottom)}H{at(frame.right)}", "e")
        self.text(12, frame.top - 12, y.axis.label, look="q", room=self.width - 24)
        self.text(frame.right, frame.bottom + 34, x.axis.label, look="q", anchor="end", room=self.width - 24)

    def labels_below(self, frame: Frame, ticks: Sequence[tuple[float, str]]) -> None:
        """Texts under the frame, without those that would overlap one before."""
        end = 0.0
        for place, text in ticks:
            half = text_width(text) / 2
            place = min(place, self.width - half - 2)
            if place - half > end + 6 or not end:
                self.text(place, frame.bottom + 17, text, look="q", anchor="middle")
                end = place + half

    def nothing(self, frame: Frame) -> None:
        middle = (frame.left + frame.right) / 2
        self.text(middle, (frame.top + frame.bottom) / 2, "no values", look="q", anchor="middle")

    def svg(self, name: str, title: str, about: str, style: str) -> str:
        """The element. Its title and description are found by screen readers through ids that begin with ``name``."""
        sheet = f"<style>{style}</style>" if style else ""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" class="fp" role="img" aria-labelledby="{name}t {name}d">'
            f'<title id="{name}t">{escape(shown(title))}</title><desc id="{name}d">{escape(shown(about))}</desc>{sheet}'
        )
        paper = f'<rect width="{self.width}" height="{self.height}" class="p"/>'
        return "\n".join([head, paper, *self.parts, "</svg>"])


def at(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text_width(text: str, size: float = 12) -> float:
    """About how wide a text is; no fonts are read. A wide character (CJK) counts as one em."""
    if text.isascii():
        return len(text) * size * 0.56
    return sum(size * (1.0 if unicodedata.east_asian_width(one) in "WF" else 0.56) for one in text)


def shortened(text: str, room: float | None, size: float = 12) -> str:
    """The text if it fits, else its beginning and an ellipsis."""
    if room is None or text_width(text, size) <= room:
        return text
    kept = text[: max(1, int(room / size / 0.5))]
    while kept and text_width(kept + "…", size) > room:
        kept = kept[:-1]
    return kept + "…"


def widest(texts: Iterable[str]) -> float:
    return max(map(text_width, texts), default=0.0)
