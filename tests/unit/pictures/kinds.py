"""A small chart of every kind, with a text of one's choice in every place that has one."""

from __future__ import annotations

import math

from fedpkg.pictures.chart import (
    Axis,
    Band,
    BarChart,
    Chart,
    Curve,
    Dendrogram,
    HeatMap,
    LineChart,
    Node,
    TreeChart,
    histogram,
)

HOSTILE = "</text><script>alert(1)</script>\x1b[31m\u202e&\"'"


def every_kind(name: str = "a") -> list[Chart]:
    curve = Curve(name, [1, 2, 3], [0.1, None, 0.3], [Band([0, None, 0.2], [0.2, None, 0.4], name)])
    merges = [(0, 1, 0.2), (2, 3, 0.7)]
    return [
        LineChart(title=name, curves=[curve, Curve("b", [1], [math.nan])], x=Axis(name, "whole"), y=Axis(name)),
        LineChart(title=name, curves=[curve], faint=[Curve(name, [1, 2], [0.1, 0.2])], faint_name=name),
        BarChart(title=name, labels=[name, "y"], series={name: [1, 2], "b": [None, 3]}, x=Axis(name), y=Axis(name)),
        BarChart(title=name, labels=[name, "y"], series={name: [1, 2], "b": [2, 3]}, stacked=True),
        HeatMap(title=name, rows=[name], columns=[name, "c"], values=[[1, None]], x=Axis(name), value=Axis(name)),
        histogram([1, 2, 2.5, math.inf], title=name, x=Axis(name)),
        Dendrogram(title=name, labels=[name, "b", "c"], groups=[name, name, "g"], merges=merges, x=Axis(name)),
        TreeChart(title=name, nodes=[Node("root", note=name), Node("leaf", "root", name)]),
    ]
