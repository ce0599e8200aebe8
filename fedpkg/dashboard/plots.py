"""A chart of `pictures/` in a page: a static picture, the figure that plotly draws instead, and its table."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, TypeAlias

import msgspec
from markupsafe import Markup

from fedpkg.dashboard.asked import DOWNLOAD, Asked
from fedpkg.dashboard.tables import Column, Table
from fedpkg.pictures import html
from fedpkg.pictures.chart import Chart
from fedpkg.pictures.figure import to_plotly
from fedpkg.pictures.rows import table_of
from fedpkg.pictures.svg import to_svg
from fedpkg.pictures.words import described
from fedpkg.shown import shown

PICTURES = {"wide": (640, 340), "large": (1200, 460), "narrow": (350, 290), "svg": (900, 480)}  # in pixels
Size: TypeAlias = Literal["wide", "large"]  # in a column of plots, or as wide as the page
FORMS = ("csv", "json", "svg", "png")
MOST_ROWS = 60  # of the table behind a plot; its CSV file has all
MOST_COLUMNS = 12
MOST_KEPT = 64
# The last figures: most plots of a live page are as they were when it was drawn last. One thread draws pages.
_kept: dict[tuple[object, ...], tuple[Chart, Markup]] = {}


def figure(asked: Asked, name: str, chart: Chart, *, target: str = "", size: Size = "wide") -> Markup:
    """The chart as a ``<figure>`` that is whole without JavaScript; `static/plots.js` has plotly draw it.

    In a live region it has no picture, because the page's script has drawn it already.

    Args:
        target: the address of a page with more about it.
    """
    key = (asked.url(), name, target, size, asked.is_live)
    found = _kept.pop(key, None)
    if found is None or found[0] != chart:
        found = chart, _figure(asked, name, chart, target, size)
    _kept[key] = found
    while len(_kept) > MOST_KEPT:
        del _kept[next(iter(_kept))]
    return found[1]


def _figure(asked: Asked, name: str, chart: Chart, target: str, size: Size) -> Markup:
    about = shown(f"{chart.title}. {chart.about or described(chart)}")
    picture = Markup("")
    if not asked.is_live:
        wide, narrow = (asked.url(**{DOWNLOAD: f"{name}.{form}"}) for form in (size, "narrow"))
        picture = Markup(
            '<picture><source media="(max-width: 560px)" srcset="{}">'
            '<img src="{}" alt="{}" width="{}" height="{}" loading="lazy"></picture>'
        ).format(narrow, wide, about, *PICTURES[size])
    # A block of data: no browser runs it, and no "<" of a text can end it.
    data = msgspec.json.encode(to_plotly(chart)).decode().replace("<", "\\u003c")
    links = Markup(" ").join(_link(asked, name, form) for form in FORMS)
    if target:
        links = (
            Markup('<a href="{}">More<span class="away"> about {}</span></a> ').format(target, shown(chart.title))
            + links
        )
    return Markup(
        '<figure class="plot {7}" id="plot-{0}" data-plot="{0}" aria-label="{1}">{2}'
        '<script type="application/json" data-about="{3}">{4}</script>'
        '<figcaption><details id="rows-{0}"><summary>Table</summary>{5}</details>'
        '<span class="exports">{6}</span></figcaption></figure>'
    ).format(name, shown(chart.title), picture, about, Markup(data), Markup(_rows(chart)), links, size)


def _link(asked: Asked, name: str, form: str) -> Markup:
    """A link to a file. Without matplotlib only a browser makes a PNG: its script shows the link."""
    hidden = Markup(" hidden") if form == "png" and find_spec("matplotlib") is None else Markup("")
    url = asked.url(**{DOWNLOAD: f"{name}.{form}"})
    return Markup('<a href="{}" download="{}.{}" data-form="{}"{}>{}</a>').format(
        url, name, form, form, hidden, form.upper()
    )


def _rows(chart: Chart) -> str:
    """The table behind a plot; of many rows the first and the last ones."""
    found = table_of(chart)
    rows, notes = found.rows, []
    if len(rows) > MOST_ROWS:
        half = MOST_ROWS // 2
        notes.append(f"The first {half} and the last {half} of {len(rows)} rows; the CSV file has all.")
        rows = [*rows[:half], *rows[-half:]]
    columns = found.columns
    if len(columns) > MOST_COLUMNS:
        notes.append(f"The first {MOST_COLUMNS} of {len(columns)} columns; the CSV file has all.")
        columns, rows = columns[:MOST_COLUMNS], [row[:MOST_COLUMNS] for row in rows]
    shortened = type(found)(columns, rows, found.kinds[: len(columns)])
    told = html.paragraph(" ".join(notes), look="quiet") if notes else ""
    return told + html.table(columns, shortened.texts(), numbers=shortened.numbers(), label=chart.title)


def chart_table(name: str, chart: Chart) -> Table:
    """The chart's numbers, as its files have them."""
    found = table_of(chart)
    columns = [
        Column(f"c{number}", title, kind)
        for number, (title, kind) in enumerate(zip(found.columns, found.kinds, strict=True))
    ]
    rows = [{f"c{number}": cell for number, cell in enumerate(row)} for row in found.rows]
    return Table(name, chart.title, columns, rows, len(rows), lambda: rows)


def picture_of(chart: Chart, form: str) -> bytes:
    """A file of kind ``.svg`` in one of the sizes of `PICTURES`, or ``.png``.

    Raises:
        ConfigError: a PNG without matplotlib.
    """
    if form == "png":
        from fedpkg.pictures.raster import to_bytes

        return to_bytes([chart], ".png")
    width, height = PICTURES[form]
    return to_svg(chart, width=width, height=height).encode(errors="backslashreplace")
