"""What a chart shows, as a text for those who cannot see it."""

from __future__ import annotations

from fedpkg.pictures.axes import number_text
from fedpkg.pictures.chart import BarChart, Chart, Dendrogram, HeatMap, Histogram, LineChart, TreeChart, finite

MOST = 8  # number of series that are described


def described(chart: Chart) -> str:
    """A summary of the chart's data."""
    if isinstance(chart, LineChart):
        kind = chart.y.kind
        told = [
            f"{curve.name} from {number_text(ys[0], kind)} to {number_text(ys[-1], kind)}, "
            f"least {number_text(min(ys), kind)}, greatest {number_text(max(ys), kind)}"
            for curve in chart.curves[:MOST]
            if (ys := finite(curve.ys))
        ]
        return _listed(f"Curves of {chart.y.label or 'values'} by {chart.x.label or 'x'}", told, len(chart.curves))
    if isinstance(chart, BarChart):
        told = [f"{name} in all {number_text(sum(finite(v)), chart.y.kind)}" for name, v in chart.series.items()]
        return _listed(f"Bars for {len(chart.labels)} of {chart.x.label or 'the labels'}", told[:MOST], len(told))
    if isinstance(chart, HeatMap):
        found = finite([value for line in chart.values for value in line])
        told = [f"from {number_text(min(found))} to {number_text(max(found))}"] if found else []
        return _listed(f"A heat map of {len(chart.rows)} rows and {len(chart.columns)} columns", told, len(told))
    if isinstance(chart, Histogram):
        ends = f"{number_text(chart.edges[0], chart.x.kind)} to {number_text(chart.edges[-1], chart.x.kind)}"
        return f"A histogram of {number_text(sum(chart.counts))} values from {ends}."
    if isinstance(chart, Dendrogram):
        sizes = {name: chart.groups.count(name) for name in dict.fromkeys(chart.groups)}
        told = [f"{name} with {size} of them" for name, size in sizes.items()]
        return _listed(f"A dendrogram of {len(chart.labels)} leaves", told[:MOST], len(told))
    assert isinstance(chart, TreeChart)
    told = [f"{node.name} below {node.parent}" for node in chart.nodes if node.parent is not None]
    return _listed(f"A tree of {len(chart.nodes)} nodes", told[:MOST], len(told))


def _listed(what: str, told: list[str], number: int) -> str:
    more = f"; and {number - len(told)} more" if told and number > len(told) else ""
    return f"{what}: {'; '.join(told)}{more}." if told else f"{what}."
