"""``fedpkg experiment sweep``, ``list``, ``show``, ``resume`` and ``stop``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fedpkg.cli import output
from fedpkg.cli.completing import experiment_words, sweeps
from fedpkg.cli.options import Settings, baseline_option, common_options, search_path_option
from fedpkg.errors import SessionFailed

if TYPE_CHECKING:
    from fedpkg.cli.sweep_progress import PlainSweep
    from fedpkg.config import RunConfig
    from fedpkg.experiments.planning import Settings as SweepSettings
    from fedpkg.experiments.starting import Planned, Prepared
    from fedpkg.stores.base import RoundRow, SessionRow, SweepPointRow, SweepRow
    from fedpkg.stores.home import Home

Function = TypeVar("Function", bound=Callable[..., Any])
_SWEEP = click.argument("name", metavar="[SWEEP]", required=False, shell_complete=sweeps)
_NO_CHOICE = "-"


@click.command()
@click.argument("source", metavar="FOLDER|RUN.yaml", type=click.Path(path_type=Path), shell_complete=experiment_words)
@click.argument("overrides", metavar="[KEY=VALUE,…]...", nargs=-1, shell_complete=experiment_words)
@click.option("--name", metavar="NAME", help="Name of the sweep.  [default: that of the configuration]")
@click.option("--zip", "is_zip", is_flag=True, help="Take the values of all keys together: first with first, …")
@click.option("--random", "random_points", metavar="N", type=click.IntRange(1), help="Draw N points.")
@click.option("--search", "search_points", metavar="N", type=click.IntRange(1), help="Search with N points (TPE).")
@click.option("--metric", metavar="NAME", help="With --search: metric to maximise: test_accuracy, train/loss …")
@click.option("--minimise", is_flag=True, help="With --search: minimise the metric.")
@click.option("--prune", is_flag=True, help="With --search: stop points below the median of the others.")
@click.option("--draws-seed", metavar="N", type=click.IntRange(0), default=0, help="Seed of --random and --search.")
@click.option("--parallel", metavar="N", type=click.IntRange(1, 64), default=1, help="Points at the same time.")
@click.option("--max-points", metavar="N", type=click.IntRange(1), default=1000, show_default=True, help="Most points.")
@baseline_option
@search_path_option
@common_options
@click.pass_obj
def sweep(settings: Settings, /, source: Path, overrides: tuple[str, ...], name: str | None, **given: Any) -> None:
    """Run once for each combination of values, side by side if asked.

    \b
      fedpkg experiment sweep run.yaml arguments.train.lr=0.1,0.01 'seed=range(5)'
      fedpkg experiment sweep run.yaml --zip rounds=5,10 arguments.train.lr=0.1,0.01
      fedpkg experiment sweep run.yaml 'arguments.train.lr=tag(log,interval(0.001,0.1))' --search 20 --metric accuracy

    Values follow hydra's grammar: a list with commas, `choice(a,b)`, `range(5)`, and `interval(a,b)` for --random and
    --search. Each point is a session of the home. A point that fails does not stop the sweep. Ctrl-C stops the sweep,
    and `fedpkg experiment resume` continues it.
    """
    from fedpkg.cli.sweep_progress import following
    from fedpkg.experiments.planning import source_of
    from fedpkg.experiments.starting import prepare_sweep

    home = settings.open_home(create=True)
    chosen = _settings_of(**given)
    with following(as_json=settings.json) as display:
        prepared = prepare_sweep(
            home, source_of(source, chosen.search_path), overrides, chosen, watch=display.watch, name=name
        )
        row = _run(settings, display, prepared)
    _report(settings, home, row)


def run_with_baselines(
    settings: Settings, config: RunConfig, home: Home, baselines: tuple[str, ...], path: Path
) -> None:
    """Run the configuration made from a path, and its baselines, as the points of a sweep."""
    from fedpkg.cli.sweep_progress import following
    from fedpkg.experiments.planning import Settings as SweepSettings
    from fedpkg.experiments.planning import Source
    from fedpkg.experiments.starting import prepare_sweep

    source = Source(str(path.absolute()), lambda overrides: config)
    chosen = SweepSettings(baselines=baselines)  # type: ignore[arg-type]  # click has checked them
    with following(as_json=settings.json) as display:
        row = _run(settings, display, prepare_sweep(home, source, (), chosen, watch=display.watch))
    _report(settings, home, row)


def _settings_of(
    *,
    is_zip: bool,
    random_points: int | None,
    search_points: int | None,
    metric: str | None,
    draws_seed: int,
    search_path: tuple[Path, ...],
    **others: Any,
) -> SweepSettings:
    from fedpkg.experiments.planning import Settings as SweepSettings
    from fedpkg.stores.base import SweepKind

    kinds: dict[SweepKind, Any] = {"zip": is_zip, "random": random_points, "search": search_points}
    given = [kind for kind, value in kinds.items() if value]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other")
    kind: SweepKind = given[0] if given else "grid"
    number = random_points or search_points
    paths = tuple(str(path.absolute()) for path in search_path)
    return SweepSettings(kind=kind, number=number, seed=draws_seed, metric=metric, search_path=paths, **others)


def _run(settings: Settings, display: PlainSweep, prepared: Prepared) -> SweepRow:
    planned = prepared.planned
    display.progress.begin(planned)
    if settings.json:
        output.event_line(event="sweep_started", sweep=planned.sweep.name, num_points=len(planned.points))
    else:
        for line in _beginning(planned):
            display.say(line)
    return prepared.run()


def _report(settings: Settings, home: Home, row: SweepRow) -> None:
    """How a sweep has ended. Raises SessionFailed: points failed."""
    if settings.json:
        output.event_line(event="sweep_ended", sweep=row.name, status=row.status)
    else:
        _show(settings, home, row)
    with settings.reading() as (_, store):
        points = store.sweeps.points(row.name)
    if failed := [point for point in points if point.status == "failed"]:
        hint = f"{settings.command(f'experiment show {row.name}')} tells why; "
        if _can_go_on(failed):
            hint += f"{settings.command(f'experiment resume {row.name}')} tries them again"
        else:
            hint += (
                f"they cannot be composed: correct their files and try again with "
                f"{settings.command(f'experiment resume {row.name}')}, or begin a sweep of other values"
            )
        raise SessionFailed(
            f"{len(failed)} of {len(points)} points of sweep {row.name} failed",
            hint=hint,
            sweep=row.name,
            failed=len(failed),
        )


def _can_go_on(points: Iterable[SweepPointRow]) -> bool:
    """Whether resuming would run a point: one that could not be composed has no configuration to run."""
    return any(point.status == "failed" and point.config is not None for point in points)


def _beginning(planned: Planned) -> list[str]:
    points = f"{len(planned.points)} points"
    if planned.sweep.kind == "search":
        points = f"a search with {planned.sweep.options['number']} points"
    lines = [f"sweep {planned.sweep.name}: {points}"]
    if planned.num_repeated:
        lines.append(f"  {planned.num_repeated} more have the configuration of one of them, and are not run again")
    if planned.estimate is not None:
        lines.append(f"  {planned.estimate}")
    return lines


@click.command("list")
@common_options
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the sweeps of the home.

    \b
      fedpkg experiment list
    """
    from fedpkg.experiments.record import status_of_sweep

    with settings.reading() as (home, store):
        sweeps = [(one, status_of_sweep(home, one), store.sweeps.counts(one.name)) for one in store.sweeps.all()]
    if settings.json:
        output.document([{**asdict(one), "status": status, "points": counts} for one, status, counts in sweeps])
        return
    columns = ["sweep", "status", "kind", "points", "finished", "failed", "source"]
    rows = [
        [
            one.name,
            status,
            one.kind,
            str(sum(counts.values())),
            str(counts.get("finished", 0) + counts.get("pruned", 0)),
            str(counts.get("failed", 0)),
            output.near(one.source),
        ]
        for one, status, counts in sweeps
    ]
    output.table(columns, rows)


@click.command()
@_SWEEP
@common_options
@click.pass_obj
def show(settings: Settings, name: str | None) -> None:
    """Show a sweep and its points.

    \b
      fedpkg experiment show
      fedpkg experiment show digits

    Without a name, it is the newest sweep.
    """
    from fedpkg.experiments.record import find_sweep

    with settings.reading() as (home, store):
        row = find_sweep(store, name)
    _show(settings, home, row)


def _show(settings: Settings, home: Home, row: SweepRow) -> None:
    from fedpkg.cli.sweep_progress import point_facts
    from fedpkg.experiments.record import status_of_sweep, with_sessions
    from fedpkg.stores.opening import open_store

    status = status_of_sweep(home, row)
    with open_store(home, read_only=True) as store:
        found = with_sessions(store, row.name)
        lasts = [_last_round(store.list_rounds(session.session_id) if session else []) for _, session in found]
    if settings.json:
        points = [
            {**point_facts(point), "rounds": last.round_number if last else 0, "metrics": last.metrics if last else {}}
            for (point, _), last in zip(found, lasts, strict=True)
        ]
        output.document({**asdict(row), "status": status, "points": points})
        return
    facts = [("sweep", row.name), ("status", status + (f": {row.error}" if row.error else "")), ("kind", row.kind)]
    facts += [("source", output.near(row.source)), *[("overrides", " ".join(row.overrides))] * bool(row.overrides)]
    output.facts(facts)
    output.result()
    _points_table(found, lasts)
    for point, _ in found:
        if point.error:
            output.result(f"\npoint {point.number}: {point.error}")
    if status != "finished" or _can_go_on(point for point, _ in found):
        output.words(f"\ngo on with it: {settings.command(f'experiment resume {row.name}')}")


def _last_round(rounds: list[RoundRow]) -> RoundRow | None:
    return next((one for one in reversed(rounds) if one.status == "finished"), None)


def _points_table(found: list[tuple[SweepPointRow, SessionRow | None]], lasts: list[RoundRow | None]) -> None:
    from fedpkg.cli.report import metric_names, metric_text, round_metrics
    from fedpkg.experiments.results import value_text

    keys = list(dict.fromkeys(key for point, _ in found for key in point.choices))
    shown = next((name for last in lasts if last for name in metric_names(round_metrics(last))), None)
    has_baseline = any(point.baseline for point, _ in found)
    measured = [] if shown is None else [shown]
    columns = ["point", *["baseline"] * has_baseline, *keys, "status", "done", *measured, "session"]
    rows = []
    for (point, session), last in zip(found, lasts, strict=True):
        row = [str(point.number), *[point.baseline] * has_baseline]
        row += [value_text(point.choices[key]) if key in point.choices else _NO_CHOICE for key in keys]
        row += [point.status, str(last.round_number if last else 0)]
        if shown:
            row.append(metric_text(last, shown) if last and shown in round_metrics(last) else _NO_CHOICE)
        rows.append([*row, session.session_id if session else _NO_CHOICE])
    output.table(columns, rows)


@click.command()
@_SWEEP
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1, 64), help="Points at the same time.  [default: as before]"
)
@common_options
@click.pass_obj
def resume(settings: Settings, name: str | None, parallel: int | None) -> None:
    """Continue a sweep.

    \b
      fedpkg experiment resume
      fedpkg experiment resume digits

    Finished points are not run again. A point that was running continues in its round. Points that failed are tried
    again, from the round in which they failed; points that could not be composed are composed again.
    """
    from fedpkg.cli.sweep_progress import following
    from fedpkg.experiments.starting import prepare_resumed

    home = settings.open_home()
    with following(as_json=settings.json) as display:
        prepared = prepare_resumed(home, name, watch=display.watch, parallel=parallel)
        row = _run(settings, display, prepared)
    _report(settings, home, row)


@click.command()
@_SWEEP
@common_options
@click.pass_obj
def stop(settings: Settings, name: str | None) -> None:
    """Stop a running sweep.

    \b
      fedpkg experiment stop

    It may run in another terminal. The points that run are stopped, as by Ctrl-C, and can be continued in their rounds.
    """
    from fedpkg.experiments.record import find_sweep, status_of_sweep
    from fedpkg.stores.opening import open_store

    home = settings.open_home()
    with open_store(home, read_only=True) as store:
        row = find_sweep(store, name)
    can_stop = status_of_sweep(home, row) == "running"
    if can_stop:
        with open_store(home) as store:
            store.sweeps.change(row.name, stop_requested=True)
    if settings.json:
        output.document({"sweep": row.name, "status": status_of_sweep(home, row), "stop_requested": can_stop})
    elif can_stop:
        output.result(f"{row.name} is being stopped; go on later: {settings.command(f'experiment resume {row.name}')}")
    else:
        output.result(f"{row.name} does not run: nothing to stop")


COMMANDS = (sweep, list_, show, resume, stop)
