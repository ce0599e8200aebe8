"""A Sphinx extension that writes the reference pages which are generated from the code, before the sources are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import api_pages
import code_pages
import command_pages
import python_pages
import registry_pages


def pages() -> Iterator[tuple[str, str]]:
    """Every generated page: its name below `reference/generated`, and its text."""
    for source in (api_pages, code_pages, registry_pages, command_pages, python_pages):
        yield from source.pages()


def write(folder: Path) -> None:
    """Write the pages that have changed, and remove those that are generated no more."""
    wanted = dict(pages())
    for path in folder.rglob("*.md"):
        if str(path.relative_to(folder)) not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference" / "generated"))
    app.connect("autodoc-process-docstring", python_pages.as_rst, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
