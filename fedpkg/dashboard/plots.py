"""A chart of `pictures/` in a page: a static SVG, the figure that plotly draws over it, and its numbers as a table."""

from __future__ import annotations

import json

from markupsafe import Markup

from fedpkg.dashboard.asked import DOWNLOAD, Asked
from fedpkg.dashboard.tables import Column, Kind, Table
from fedpkg.pictures.chart import AxisKind, Chart
from fedpkg.pictures.figure import to_plotly
from fedpkg.pictures.rows import table_of
from fedpkg.pictures.svg import to_svg
from fedpkg.pictures.words import described
from fedpkg.shown import shown

_KINDS: dict[AxisKind, Kind] = {"number": "number", "whole": "whole", "bytes": "bytes"}
WIDTHS = {"wide-one": (640, 340), "narrow": (350, 290)}  # of the static pictures: at a desk, and on a telephone


def figure(asked: Asked, name: str, chart: Chart) -> Markup:
    """The chart as a ``<figure>``: whole without JavaScript, and drawn by `static/plots.js` with it.

    The figure for plotly is in the page, as JSON that no browser runs. In a live region there is no SVG: the page has
    one, or a plot, already.
    """
    drawn = Markup("") if asked.is_live else Markup("".join(_svg(chart, look) for look in WIDTHS))
    text = json.dumps(to_plotly(chart), separators=(",", ":")).replace("<", "\\u003c")  # "</script>" would end it
    links = Markup(" ").join(
        Markup('<a href="{}" download>{}</a>').format(asked.url(**{DOWNLOAD: f"{name}.{form}"}), form.upper())
        for form in ("csv", "json", "svg")
    )
    about = shown(f"{chart.title}. {chart.about or described(chart)}")
    return Markup(
        '<figure class="plot" id="plot-{}" data-plot="{}" data-about="{}">{}<script type="application/json">{}</script>'
        '<figcaption class="exports">{}</figcaption></figure>'
    ).format(name, name, about, drawn, Markup(text), links)


def _svg(chart: Chart, look: str) -> str:
    width, height = WIDTHS[look]
    drawn = to_svg(chart, width=width, height=height, standalone=False)
    return drawn.replace('class="fp"', f'class="fp {look}"', 1)


def chart_table(name: str, chart: Chart) -> Table:
    """The chart's numbers: what its files have."""
    found = table_of(chart)
    kinds = zip(found.columns, found.kinds, strict=True)
    columns = [Column(str(number), title, _KINDS[kind]) for number, (title, kind) in enumerate(kinds)]
    rows = [{str(number): value for number, value in enumerate(row)} for row in found.rows]
    return Table(name, chart.title, columns, rows, len(rows), lambda: rows)
