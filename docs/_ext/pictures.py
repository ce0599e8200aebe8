"""Draw the pictures of the documentation: `python docs/_ext/pictures.py` writes docs/pictures/*.svg, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "pictures"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, monospace"
THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {
        "text": "#1f2933",
        "quiet": "#5c6b7a",
        "line": "#7b8794",
        "model": "#dbeafe",
        "task": "#e6f4ea",
        "check": "#fef3c7",
        "bad": "#fde2e1",
        "group": "#f6f8fa",
        "edge": "#9aa5b1",
    },
    "dark": {
        "text": "#e4e7eb",
        "quiet": "#9aa5b1",
        "line": "#9aa5b1",
        "model": "#1e3a5f",
        "task": "#1d4030",
        "check": "#4d3d10",
        "bad": "#53211f",
        "group": "#1b2127",
        "edge": "#52606d",
    },
}


class Drawing:
    """An SVG of boxes, arrows and words. Lengths are in pixels."""

    def __init__(self, width: int, height: int, about: str, colours: Mapping[str, str]) -> None:
        self.width, self.height, self.about, self.colours = width, height, about, colours
        self.parts: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, lines: Iterable[str], fill: str) -> None:
        """A box with lines of text in its middle; a line in backticks is code."""
        c = self.colours
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{c[fill]}" stroke="{c["edge"]}"/>'
        )
        told = list(lines)
        top = y + height / 2 - 9 * (len(told) - 1)
        for number, line in enumerate(told):
            self.words(x + width // 2, int(top + 18 * number + 5), line)

    def group(self, x: int, y: int, width: int, height: int, title: str) -> None:
        c = self.colours
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="12" fill="{c["group"]}" '
            f'stroke="{c["edge"]}" stroke-dasharray="5 4"/>'
        )
        self.words(x + 14, y + 22, title, anchor="start", colour="quiet")

    def words(self, x: int, y: int, text: str, *, anchor: str = "middle", colour: str = "text") -> None:
        is_code = text.startswith("`")
        font, size = (MONO, 12) if is_code else (FONT, 14)
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-family="{font}" font-size="{size}" '
            f'fill="{self.colours[colour]}">{escape(text.strip("`"))}</text>'
        )

    def arrow(self, x1: int, y1: int, x2: int, y2: int, text: str = "") -> None:
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{self.colours["line"]}" stroke-width="1.6" '
            'marker-end="url(#head)"/>'
        )
        if text:
            self.words((x1 + x2) // 2, (y1 + y2) // 2 - 8, text, colour="quiet")

    def svg(self) -> str:
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{self.colours["line"]}"/></marker>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img">',
                f"<title>{escape(self.about)}</title>",
                f"<defs>{head}</defs>",
                *self.parts,
                "</svg>",
                "",
            ]
        )


def a_round(colours: Mapping[str, str]) -> Drawing:
    about = (
        "A round: the global model goes to each client, whose program trains it in a process and a folder of its own; "
        "replies are checked; the mean of those that pass is the next global model, the others are recorded failures."
    )
    d = Drawing(940, 330, about, colours)
    d.box(10, 125, 130, 64, ["global model", "`in.npz`"], "model")
    d.group(190, 10, 300, 300, "each client: own processes, own folder")
    for number, command in enumerate(
        ("`python entrypoint.py train …`", "`python entrypoint.py train …`", "`bash train.sh …`")
    ):
        top = 45 + 88 * number
        d.box(210, top, 260, 66, [f"client-{number}", command], "task")
        d.arrow(140, 157, 208, top + 33)
        d.arrow(470, top + 33, 538, 157)
    d.box(540, 112, 130, 90, ["checked", "fits, finite,", "num_examples"], "check")
    d.arrow(670, 140, 740, 88, "")
    d.words(690, 100, "ok", colour="quiet")
    d.box(742, 55, 188, 66, ["weighted mean,", "in client order"], "model")
    d.arrow(836, 121, 836, 157)
    d.box(742, 159, 188, 56, ["next global model"], "model")
    d.arrow(670, 175, 740, 262)
    d.words(686, 232, "refused", colour="quiet")
    d.box(742, 240, 188, 56, ["recorded failure"], "bad")
    return d


def processes(colours: Mapping[str, str]) -> Drawing:
    about = (
        "The processes of a run: the controller talks to one zygote, which has imported what the package imports; the "
        "zygote forks a keeper for each slot; a keeper forks one task at a time, watches its limits and ends all of it."
    )
    d = Drawing(940, 330, about, colours)
    d.box(10, 125, 160, 80, ["controller", "`fedpkg run`", "models, records"], "model")
    d.arrow(170, 165, 248, 165, "orders")
    d.box(250, 125, 170, 80, ["zygote", "has imported PyTorch,", "has one thread"], "check")
    for number, top in enumerate((30, 210)):
        d.group(500, top - 20, 430, 140, f"slot {number + 1}")
        d.arrow(420, 165, 518, top + 55, "forks")
        d.box(520, top + 15, 150, 84, ["keeper", "watches limits,", "reaps everything"], "task")
        d.arrow(670, top + 57, 738, top + 57, "forks")
        d.box(740, top + 15, 176, 84, ["task", "`entrypoint.py train`", "one client, one folder"], "model")
    return d


PICTURES: Mapping[str, Callable[[Mapping[str, str]], Drawing]] = {"round": a_round, "processes": processes}


def drawn() -> Iterable[tuple[str, str]]:
    """Names of the files, and what is in them."""
    for name, draw in PICTURES.items():
        for theme, colours in THEMES.items():
            yield f"{name}-{theme}.svg", draw(colours).svg()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in drawn():
        (FOLDER / file).write_text(text)
