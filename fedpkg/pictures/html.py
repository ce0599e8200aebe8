"""A standalone page: headings, tables and charts in one file, without a script and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fedpkg.pictures.chart import Chart
from fedpkg.pictures.palette import FONT, style
from fedpkg.pictures.svg import to_svg
from fedpkg.shown import shown, shown_lines

_STYLE = f"""
:root{{color-scheme:light dark;--paper:#fff;--ink:#1f2933;--quiet:#52606d;--rule:#d5dbe1;--soft:#f3f5f7;--bad:#b42318}}
@media screen and (prefers-color-scheme:dark){{
:root{{--paper:#14181d;--ink:#e6eaee;--quiet:#a3afbb;--rule:#343d47;--soft:#1d2329;--bad:#ff9b8f}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1.2rem;max-width:1180px;background:var(--paper);color:var(--ink);font:15px/1.5 {FONT}}}
h1{{font-size:1.6rem;line-height:1.25;margin:.2rem 0;overflow-wrap:anywhere}}
h2{{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--rule)}}
.quiet{{color:var(--quiet)}}.bad{{color:var(--bad)}}
nav{{margin:.8rem 0}}nav a{{margin-right:1rem}}a{{color:inherit}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}}
th,td{{padding:.28rem .8rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}}
th{{color:var(--quiet);font-weight:600;white-space:nowrap}}td.n,th.n{{text-align:right;white-space:nowrap}}
table.facts{{width:100%}}table.facts th{{width:10rem}}table.facts td{{overflow-wrap:anywhere}}
.charts{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:1rem;
align-items:start;margin:.8rem 0}}
figure{{margin:0;border:1px solid var(--rule);border-radius:8px;overflow:hidden;break-inside:avoid}}
figure svg{{display:block;width:100%;height:auto}}figure svg.fp.narrow{{display:none}}
figcaption{{padding:.2rem .8rem .6rem;font-size:.84rem;color:var(--quiet)}}
pre{{background:var(--soft);padding:.8rem;border-radius:8px;overflow-x:auto;font-size:.82rem;line-height:1.4}}
summary{{cursor:pointer;margin:.6rem 0}}
@media screen and (max-width:520px){{body{{padding:.8rem}}figure svg.fp.wide-one{{display:none}}
figure svg.fp.narrow{{display:block}}table.facts th{{width:auto}}}}
@media print{{body{{max-width:none;padding:0;font-size:10pt}}nav{{display:none}}pre{{white-space:pre-wrap}}
.wide{{overflow:visible}}table{{font-size:8pt}}th,td{{padding-right:.5rem}}
.charts{{grid-template-columns:1fr 1fr}}h2{{break-after:avoid}}tr{{break-inside:avoid}}}}
"""


def page(title: str, body: Iterable[str], *, language: str = "en") -> str:
    """A whole HTML document around these parts, which are HTML already."""
    inner = "\n".join(body)
    # Nothing may be fetched and nothing may run, whatever a text of a client says.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}{style()}</style>\n</head>\n<body>\n{inner}\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """One line of text of whatever origin, as HTML."""
    return escape(shown(str(value)))


def heading(title: str, anchor: str) -> str:
    return f'<h2 id="{escape(anchor)}">{text(title)}</h2>'


def paragraph(words: str, *, look: str = "") -> str:
    return f'<p class="{look}">{text(words)}</p>' if look else f"<p>{text(words)}</p>"


def figures(charts: Iterable[Chart], *, height: int = 320) -> str:
    """Charts side by side where there is room. Each is drawn twice: for a desk or paper, and for a telephone."""
    return f'<div class="charts">{"".join(figure(chart, height=height) for chart in charts)}</div>'


def figure(chart: Chart, *, width: int = 560, height: int = 320, caption: str = "") -> str:
    """One chart with a caption."""
    wide = to_svg(chart, width=width, height=height, standalone=False).replace('class="fp"', 'class="fp wide-one"', 1)
    narrow = to_svg(chart, width=350, height=min(height, 290), standalone=False)
    narrow = narrow.replace('class="fp"', 'class="fp narrow"', 1)
    told = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure>{wide}{narrow}{told}</figure>"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), label: str = ""
) -> str:
    """A table; the columns with these numbers (from 0) are aligned to the right.

    Args:
        label: names the part of the page in which a wide table is scrolled by keys.
    """
    looks = [' class="n"' if number in numbers else "" for number in range(len(columns))]
    head = "".join(f'<th scope="col"{look}>{text(name)}</th>' for name, look in zip(columns, looks, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{look}>{text(cell)}</td>" for cell, look in zip(row, looks, strict=True)) + "</tr>"
        for row in rows
    )
    named = f' aria-label="{text(label)}"' if label else ""
    scrolled = f' role="region"{named} tabindex="0"' if label else ""
    rows_of = f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody>"
    return f'<div class="wide"{scrolled}><table{named}>{rows_of}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    rows = "\n".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in pairs)
    return f'<table class="facts"><tbody>\n{rows}\n</tbody></table>'


def preformatted(lines: str) -> str:
    """Text with its line ends."""
    return f"<pre>{escape(shown_lines(lines))}</pre>"


def folded(summary: str, inner: str, *, is_open: bool = False) -> str:
    """A part that the reader opens; it needs no script."""
    return f"<details{' open' if is_open else ''}><summary>{text(summary)}</summary>{inner}</details>"
