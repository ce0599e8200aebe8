"""``fedpkg experiment table`` and ``plot``: what runs have reached, over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedpkg.cli import output
from fedpkg.cli.completing import sweeps_and_sessions
from fedpkg.cli.options import Settings, common_options
from fedpkg.errors import ConfigError

if TYPE_CHECKING:
    from fedpkg.experiments.results import Group

Function = TypeVar("Function", bound=Callable[..., Any])
_SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".txt": "text"}


def _shared(function: Function) -> Function:
    """The arguments and options of both commands."""
    for option in reversed(
        [
            click.argument("names", metavar="[SWEEP|FOLDER|SESSION]...", nargs=-1, shell_complete=sweeps_and_sessions),
            click.option(
                "--metric",
                metavar="NAME",
                help="Metric to show, such as test_accuracy or train/loss.  [default: the first, accuracies before "
                "others]",
            ),
            click.option(
                "--phase",
                metavar="PHASE",
                help="What was measured: validate, held_out, server, before_training, after_training, train or "
                "strategy.  [default: the first of these that has the metric]",
            ),
            click.option(
                "--by", metavar="KEY,…", help="Keys that tell groups of runs apart.  [default: all that differ]"
            ),
        ]
    ):
        function = option(function)
    return function


@click.command()
@_shared
@click.option("--to", "target", type=float, metavar="VALUE", help="Also show rounds, bytes and seconds to this value.")
@click.option(
    "--mode", type=click.Choice(["max", "min"]), help="Which values are better.  [default: by the metric's name]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv", "latex", "json"]),
    help="Format of the table.  [default: by the suffix of FILE, else text]",
)
@click.option(
    "-o", "--output", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write the table to FILE."
)
@common_options
@click.pass_obj
def table(settings: Settings, /, names: tuple[str, ...], target: float | None, mode: str | None, **given: Any) -> None:
    """Show the mean ± standard deviation over seeds.

    A row is a group of runs that differ in their seeds only. The default is the newest sweep. The standard deviation is
    that of a sample (n - 1). A target that no run reaches is shown as `not reached`. Whether two rows differ
    significantly is left to the reader.

    \b
      fedpkg experiment table
      fedpkg experiment table sweep-a sweep-b --by method,alpha --to 0.9
      fedpkg experiment table --metric test_loss -o table.tex
    """
    from fedpkg.experiments.tables import document, table_of, written
    from fedpkg.pictures.files import write_file
    from fedpkg.stores.metric_rows import is_lower_better

    form = _form(settings, given["form"], given["file"])
    groups, metric, phase = _groups(settings, names, given["metric"], given["phase"], given["by"])
    mode = mode or ("min" if is_lower_better(metric) else "max")
    found = table_of(groups, metric, phase=phase, mode=mode, target=target)
    if given["file"] is not None:
        write_file(given["file"], written(found, form).encode())
        output.result(output.near(given["file"]))
    elif form == "json":
        output.document(document(found))
    else:
        output.result(written(found, form).rstrip("\n"))


def _form(settings: Settings, form: str | None, file: Path | None) -> str:
    if form is not None:
        return form
    if file is None:
        return "json" if settings.json else "text"
    if file.suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise ConfigError(f"{file}: no format has the suffix {file.suffix!r}", hint=f"use one of {known}, or --format")
    return _SUFFIXES[file.suffix]


@click.command()
@_shared
@click.option(
    "--x",
    type=click.Choice(["round", "bytes", "calls", "seconds"]),
    default="round",
    show_default=True,
    help="The horizontal axis.",
)
@click.option(
    "--band",
    type=click.Choice(["std", "range", "none"]),
    default="std",
    show_default=True,
    help="Band over the seeds: mean ± standard deviation, smallest to largest, or none.",
)
@click.option("--log", is_flag=True, help="Logarithmic vertical axis.")
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("plot.png"),
    show_default=True,
    help="File to write: .png, .svg, .pdf (by matplotlib) or .html.",
)
@common_options
@click.pass_obj
def plot(settings: Settings, /, names: tuple[str, ...], x: str, band: str, log: bool, file: Path, **given: Any) -> None:
    """Plot a metric by round, bytes, client calls or seconds.

    A curve is the mean over a group of runs that differ in their seeds only, with a band over the seeds. The default is
    the newest sweep.

    \b
      fedpkg experiment plot -o accuracy.png
      fedpkg experiment plot sweep-a --metric test_loss --x bytes --log -o loss.html
    """
    from fedpkg.experiments.plots import plot_of
    from fedpkg.pictures.files import check_suffix, save_charts

    check_suffix(file)
    groups, metric, phase = _groups(settings, names, given["metric"], given["phase"], given["by"])
    chart = plot_of(groups, metric, phase=phase, x=x, band=band, log=log)
    save_charts([chart], file, title=chart.title)
    if settings.json:
        output.document({"file": str(file), "metric": metric, "curves": [curve.name for curve in chart.curves]})
    else:
        output.result(output.near(file))


def _groups(
    settings: Settings, names: Sequence[str], metric: str | None, phase: str | None, by: str | None
) -> tuple[list[Group], str, str | None]:
    """The groups of runs, the metric and its phase; words on standard error say what a reader must know."""
    from fedpkg.experiments.results import check_metric, find_runs, grouped, pooled_keys
    from fedpkg.reporting.measures import PHASES

    if phase is not None and phase not in PHASES:
        from fedpkg.errors import nearest

        raise ConfigError(f"there is no phase '{phase}'{nearest(phase, PHASES)}", hint=f"phases: {', '.join(PHASES)}")
    with settings.reading() as (_, store):
        runs = find_runs(store, names)
    metric, phase, without = check_metric(runs, metric, phase)
    groups = grouped(runs, [key.strip() for key in by.split(",") if key.strip()] if by else ())
    if without:
        some = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        output.words(f"{len(without)} of {len(runs)} runs have no {metric}: {some}")
    if pooled := pooled_keys(groups):
        output.words(f"runs of one group also differ in {', '.join(pooled)}: --by tells them apart")
    return groups, metric, phase


COMMANDS = (table, plot)
