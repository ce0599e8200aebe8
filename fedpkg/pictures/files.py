"""Charts as a file, of the kind that its name says: ``.html``, ``.png``, ``.svg`` or ``.pdf``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpkg.errors import ConfigError, nearest
from fedpkg.files import atomic_write
from fedpkg.pictures import html
from fedpkg.pictures.chart import Chart

SUFFIXES = (".html", ".png", ".svg", ".pdf")


def save_charts(charts: Sequence[Chart], path: Path, *, title: str) -> None:
    """Write these charts as one picture, or as one page. ``.html`` needs no matplotlib; the others do.

    Raises:
        ConfigError: the name ends otherwise, matplotlib is not installed, or the file cannot be written.
    """
    check_suffix(path)
    if path.suffix.lower() == ".html":
        drawn = html.figures(charts) if len(charts) > 1 else "".join(map(_large, charts))
        body = [f"<h1>{html.text(title)}</h1>", drawn]
        data = html.page(title, body).encode()
    else:
        from fedpkg.pictures.raster import to_bytes

        data = to_bytes(charts, path.suffix.lower())
    write_file(path, data)


def _large(chart: Chart) -> str:
    return html.figure(chart, width=1000, height=500)


def check_suffix(path: Path) -> None:
    """Refuse names of other kinds of files, before something is computed for them.

    Raises:
        ConfigError: the name does not end in one of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ConfigError(
            f"{path}: a picture cannot have the suffix {path.suffix!r}{nearest(path.suffix, SUFFIXES)}",
            hint=f"the file's name must end in one of {known}",
        )


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a user asked for: it is complete or absent.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
