"""The colours of charts, in light and in dark, and their style sheet.

The colours of series are those of Okabe and Ito (Color universal design, 2008), which people with a colour vision
deficiency can tell apart; yellow and black are replaced, as one of them is invisible in light or in dark.
"""

from __future__ import annotations

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b5548b", "#56a5d8", "#b8860b", "#5f5f5f", "#7b4fc0")
DARK = ("#4aa8e8", "#ff8a3c", "#2fc796", "#e79bc4", "#9bd3f5", "#f0c94a", "#b5b5b5", "#b899f0")
LIGHT_PAGE = {"paper": "#ffffff", "ink": "#1f2933", "quiet": "#52606d", "grid": "#e1e6eb", "edge": "#7b8794"}
DARK_PAGE = {"paper": "#14181d", "ink": "#e6eaee", "quiet": "#a3afbb", "grid": "#2b333c", "edge": "#7b8794"}
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # after the last colour they begin again, with the next dash

HATCHES = ("", "-", "|", "+")  # the same for areas; matplotlib and plotly have these names, too


def style() -> str:
    """The style sheet of charts: plain rules without variables, which programs other than browsers understand."""
    light, dark = _rules(LIGHT, **LIGHT_PAGE), _rules(DARK, **DARK_PAGE)
    return (
        f".fp text{{font-family:{FONT};font-size:12px}}.fp .t{{font-size:14px;font-weight:600}}.fp .s{{font-size:11px}}"
        ".fp .h{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}"
        ".fp .l{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
        ".fp .w{stroke-width:1;stroke-opacity:.25}.fp .b{fill-opacity:.16;stroke:none}"
        f".fp .g{{fill:none;stroke-width:1}}.fp .e{{fill:none;stroke-width:1.2}}{light}"
        f"@media screen and (prefers-color-scheme:dark){{{dark}}}"
    )


def _rules(colours: tuple[str, ...], *, paper: str, ink: str, quiet: str, grid: str, edge: str) -> str:
    series = "".join(f".fp .l{n}{{stroke:{colour}}}.fp .f{n}{{fill:{colour}}}" for n, colour in enumerate(colours))
    return (
        f".fp .p{{fill:{paper}}}.fp text{{fill:{ink}}}.fp .q{{fill:{quiet}}}.fp .on{{fill:{paper}}}"
        f".fp .k{{fill:none;stroke:{paper};stroke-width:1.2}}"
        f".fp .h{{stroke:{paper}}}.fp .g{{stroke:{grid}}}.fp .e{{stroke:{edge}}}{series}"
    )


def colour_of(number: int) -> int:
    """The number of the colour of the series with this number."""
    return number % len(LIGHT)


def dash_of(number: int) -> str:
    """Its dash, in the form of SVG's stroke-dasharray; empty is a solid line."""
    return DASHES[number // len(LIGHT) % len(DASHES)]


def hatch_of(number: int) -> str:
    """The lines over its areas; empty: none."""
    return HATCHES[number // len(LIGHT) % len(HATCHES)]


def dark_of(light: str) -> str:
    """The colour that stands for one of the light ones where the page is dark."""
    return _IN_DARK[light]


_IN_DARK = dict(zip((*LIGHT, *LIGHT_PAGE.values()), (*DARK, *DARK_PAGE.values()), strict=True))
