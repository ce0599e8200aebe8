"""Pages as HTML: the templates, how values are written, and the live regions of a page."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from fedpkg.dashboard import assets
from fedpkg.dashboard.asked import Asked, address
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.plots import Size, figure
from fedpkg.dashboard.routes import Route
from fedpkg.dashboard.tables import Column, Row
from fedpkg.pictures.axes import bytes_text, number_text
from fedpkg.shown import shown, shown_lines

LIVE = "live_"  # blocks of templates that begin with it are sent to open pages whenever the home has changed
GONE = "–"  # a value that is unknown


@functools.cache
def environment() -> Environment:
    """Jinja2's environment: everything is escaped, and hidden characters are shown in every text."""
    found = Environment(
        loader=FileSystemLoader(assets.TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_written,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {"bytes": in_bytes, "seconds": in_seconds, "when": when, "number": in_number, "json": as_json}
    found.globals |= {"address": address, "static": assets.static_url, "cell": cell, "state": state}
    found.globals |= {"table": table, "plot": plot}
    # Here and not by an import of each template: a block that is drawn alone does not run its template's imports.
    found.globals["parts"] = found.get_template("parts.html").module
    return found


def draw(route: Route, asked: Asked, page: Page, **frame: Any) -> str:
    """The whole page."""
    return environment().get_template(route.template).render(_context(route, asked, page, frame))


def draw_regions(route: Route, asked: Asked, page: Page, **frame: Any) -> dict[str, str]:
    """The page's live regions, by the names of their blocks."""
    template = environment().get_template(route.template)
    context = template.new_context(_context(route, asked, page, frame))
    return {name: "".join(block(context)) for name, block in template.blocks.items() if name.startswith(LIVE)}


def draw_refusal(status: int, title: str, words: str, **frame: Any) -> str:
    """The page of an error; ``frame`` without a role: for a reader without a token."""
    values = {"status": status, "title": title, "words": words, "notes": (), "trail": (), "here": "", "stamp": ""}
    return environment().get_template("refusal.html").render({**values, **frame})


def _context(route: Route, asked: Asked, page: Page, frame: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **page.values,
        "parts_of_page": page,
        "notes": page.notes,
        "trail": page.trail,
        "title": page.title,
        "here": route.area,
        "asked": asked,
        **frame,
    }


def _written(value: Any) -> Any:
    """A value in a template; texts of whatever origin show their hidden characters."""
    if hasattr(value, "__html__"):
        return value
    if value is None:
        return GONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number_text(value)
    return shown_lines(value if isinstance(value, str) else str(value))


def cell(column: Column, row: Row) -> Markup:
    """A cell's content."""
    value = row.get(column.key)
    target = column.link(row) if column.link is not None else None
    inner = _cell_text(column, value, row)
    return Markup('<a href="{}">{}</a>').format(target, inner) if target else inner


def _cell_text(column: Column, value: Any, row: Row) -> Markup:
    if value is None or value != value:
        return Markup('<span class="quiet">–</span>')
    if column.kind == "time":
        return when(value)
    if column.kind == "state":
        return state(str(value))
    if column.kind == "pick":
        label = f"Select {shown(str(value))}"
        return Markup('<input type="checkbox" name="session" value="{}" aria-label="{}">').format(value, label)
    if column.kind == "rounds":
        of = row.get("num_rounds") or 0
        return escape(f"{value} of {max(value, of)}" if of else f"{value}")
    if column.kind == "bytes" and isinstance(value, (int, float)):
        return escape(bytes_text(value))
    if column.kind == "seconds" and isinstance(value, (int, float)):
        return escape(in_seconds(value))
    if column.kind == "digest":
        return Markup('<code title="{}">{}</code>').format(shown(str(value)), shown(str(value))[:12])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return escape(in_number(value))
    return Markup("<bdi>{}</bdi>").format(shown(value if isinstance(value, str) else str(value)))


def state(word: str) -> Markup:
    """A state: its word has a mark of its own, so that colour is not needed to read it."""
    return Markup('<span class="state {}">{}</span>').format(word if word.isalpha() else "other", shown(word))


def in_bytes(value: float | None) -> str:
    return GONE if value is None else bytes_text(value)


def in_number(value: float | None) -> str:
    """Whole numbers below a million in full, with thin spaces; others in four digits."""
    if value is None:
        return GONE
    if isinstance(value, int) and abs(value) < 10**6:
        return f"{value:,}".replace(",", "\u202f").replace("-", "−")
    return number_text(value)


def in_seconds(value: float | None) -> str:
    """A duration: ``120 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value is None:
        return GONE
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def when(value: float | None) -> Markup:
    """A time, in UTC until a script writes it in the reader's zone."""
    try:
        found = time.gmtime(value)  # None would be now
        text = time.strftime("%Y-%m-%d %H:%M:%S", found)
    except (OverflowError, ValueError, OSError, TypeError):
        return Markup(GONE)
    if value is None:
        return Markup(GONE)
    return Markup('<time datetime="{}Z">{} UTC</time>').format(text.replace(" ", "T"), text)


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@pass_context
def table(context: Context, name: str) -> Markup:
    """A table of the page, by its name, with links that sort and page it and links to its files."""
    drawn: Markup = environment().globals["parts"].table(context["parts_of_page"].part(name), context["asked"])  # type: ignore[attr-defined]
    return drawn


@pass_context
def plot(context: Context, name: str, target: str = "", size: Size = "wide") -> Markup:
    """A chart of the page, by its name; ``target`` is the address of a page with more about it."""
    return figure(context["asked"], name, context["parts_of_page"].part(name), target=target, size=size)
