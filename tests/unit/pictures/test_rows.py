"""The table behind a chart has all of its data, and its CSV file computes nothing in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest

from fedpkg.pictures.chart import Axis, Band, Chart, Curve, LineChart
from fedpkg.pictures.rows import csv_of, table_of
from tests.unit.pictures.kinds import HOSTILE, every_kind


@pytest.mark.parametrize("chart", every_kind(HOSTILE), ids=lambda chart: type(chart).__name__)
def test_every_kind_has_rows_under_names(chart: Chart) -> None:
    table = table_of(chart)
    assert table.rows and all(len(row) == len(table.columns) == len(table.kinds) for row in table.rows)
    read = list(csv.reader(io.StringIO(csv_of(table.columns, table.rows))))
    assert len(read) == len(table.rows) + 1 and all(len(row) == len(table.columns) for row in read)


def test_curves_over_the_same_places_share_rows_with_their_bands() -> None:
    curves = [Curve("a", [1, 2], [0.5, None], [Band([0.4, 0], [0.6, 1], "all")]), Curve("b", [1, 2], [7, 8])]
    table = table_of(LineChart(title="", curves=curves, x=Axis("round", "whole")))
    assert table.columns == ["round", "a", "a, all: from", "a, all: to", "b"]
    assert table.rows == [(1, 0.5, 0.4, 0.6, 7), (2, None, 0, 1, 8)]
    assert table.texts()[1] == ["2", "–", "0", "1", "8"] and table.numbers() == [0, 1, 2, 3, 4]


def test_curves_over_other_places_lie_below_each_other() -> None:
    curves = [Curve("a", [1, 2], [3, 4]), Curve("b", [1.5], [9])]
    table = table_of(LineChart(title="", curves=curves, x=Axis("bytes", "bytes")))
    assert table.rows == [("a", 1, 3), ("a", 2, 4), ("b", 1.5, 9)] and table.columns == ["curve", "bytes", "y"]


def test_a_name_that_a_spreadsheet_would_compute_is_a_text() -> None:
    assert csv_of(["=1+1"], [["@sum"], [-2.5], [float("inf")]]) == "'=1+1\n'@sum\n-2.5\n\"\"\n"
