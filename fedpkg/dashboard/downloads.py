"""Parts of a page as files: tables as CSV and JSON, charts as these and as pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from fedpkg.dashboard.asked import Asked
from fedpkg.dashboard.page import Page
from fedpkg.dashboard.plots import FORMS, PICTURES, chart_table, picture_of
from fedpkg.dashboard.tables import Table, csv_of, json_of
from fedpkg.errors import NotFound
from fedpkg.pictures.chart import Chart

_KINDS = {"csv": "text/csv; charset=utf-8", "json": "application/json", "png": "image/png"}


@dataclass(frozen=True)
class File:
    """A file for the browser to save, in pieces."""

    name: str
    kind: str
    pieces: Iterator[bytes]
    reads: bool = True  # its pieces read the home


def part_of(asked: Asked, page: Page, wanted: str) -> File:
    """The part of a page named as in ``rounds.csv``.

    Raises:
        NotFound: the page has no such part, or not in this form.
    """
    name, _, form = wanted.rpartition(".")
    part = page.part(name)
    forms = ("csv", "json") if isinstance(part, Table) else (*FORMS, *PICTURES)
    if part is None or form not in forms:
        hint = "its tables and plots have links to their files"
        raise NotFound(f"this page has no part {wanted!r} to download", hint=hint)
    if form == "png" and not isinstance(part, Table):
        return File(_file_name(asked, wanted), _KINDS[form], _png(part), reads=False)
    if form not in ("csv", "json") and not isinstance(part, Table):
        pieces = iter([picture_of(part, form)])
    else:
        table = part if isinstance(part, Table) else chart_table(name, part)
        pieces = csv_of(table) if form == "csv" else json_of(table)
    suffix = "svg" if form in PICTURES else form
    return File(_file_name(asked, f"{name}.{suffix}"), _KINDS.get(form, "image/svg+xml"), pieces)


def _png(chart: Chart) -> Iterator[bytes]:
    """Drawn in a process of its own: matplotlib would stay in the memory of the server."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit(picture_of, chart, "png").result()


def _file_name(asked: Asked, name: str) -> str:
    """A name that no system reads otherwise: that of the page's subject, and of the part."""
    words = [*asked.names.values(), name]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).strip("-.")[-120:] or "download"
