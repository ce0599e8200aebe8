"""Search for the best point of a sweep with Optuna: TPE proposes points, and a median rule stops bad ones early.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kégl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedpkg.controller.events import RoundFinished
from fedpkg.errors import ConfigError, FedpkgError, nearest
from fedpkg.experiments.axes import Axis, Chosen, Dimension, Range
from fedpkg.experiments.planning import Maker, Settings
from fedpkg.stores.base import RoundRow, SessionRow, SweepPointRow
from fedpkg.stores.metric_rows import name_in, round_values

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from fedpkg.types import Json

_TRIES = 50  # proposals in a row that repeat an earlier point: the space has been searched


class Search:
    """Proposes points one after the other, from the values of those that have ended; see `fedpkg.experiments.sweep`.

    A point's value is its metric in the last finished round that has it. The same seed, points and values give the same
    proposals, so a resumed search goes on as before (with --parallel 1; else the order in which points end counts too).

    Args:
        made: makes the points; it has those of the sweep so far.
        rounds_of: the rounds of a session.
    """

    def __init__(
        self,
        made: Maker,
        dimensions: Sequence[Dimension],
        settings: Settings,
        rounds_of: Callable[[str], Sequence[RoundRow]],
    ) -> None:
        assert settings.metric is not None and settings.number is not None
        self._made, self._dimensions, self._settings = made, dimensions, settings
        self._rounds_of = rounds_of
        self._space = {one.key: _distribution(one) for one in dimensions}
        self._study = _new_study(settings)
        self._trials: dict[int, optuna.Trial] = {}  # by number of the point
        self._lock = threading.Lock()
        self._left = [point for point in made.points if point.status in ("waiting", "running", "failed")]
        self._left = [point for point in self._left if point.config is not None]
        for point in made.points:
            if point.status in ("finished", "pruned") and point.session_id is not None:
                self._remember(point)

    def take(self) -> SweepPointRow | None:
        if self._left:
            point = self._left.pop(0)
            with self._lock:
                self._study.enqueue_trial(self._params_of(point.choices))
                self._trials[point.number] = self._ask()
            return point
        for _ in range(_TRIES):
            before = len(self._made.points)
            if before >= (self._settings.number or 0):
                return None
            with self._lock:
                trial = self._ask()
            chosen = self._chosen(trial.params)
            try:
                point = self._made.add(chosen)
            except FedpkgError as error:
                self._made.add_failed(chosen, error)
                self._tell_nothing(trial)
                if before == 0:
                    raise
                continue
            if len(self._made.points) > before:
                self._trials[point.number] = trial
                return point
            self._tell(trial, self._made.points[point.number].value)
        return None

    def saw(self, point: SweepPointRow, event: RoundFinished) -> bool:
        value = metric_of(event.round, self._settings.metric or "")
        with self._lock:
            trial = self._trials.get(point.number)
            if trial is None or value is None:
                return False
            trial.report(value, event.round.round_number)
            return self._settings.prune and trial.should_prune()

    def ended(self, point: SweepPointRow, session: SessionRow | None) -> SweepPointRow:
        trial = self._trials.pop(point.number, None)
        value = None
        if point.session_id is not None and point.status in ("finished", "pruned"):
            value = self._value_of(point)
        point = replace(point, value=value)
        self._made.points[point.number] = point
        if trial is not None:
            self._tell(trial, value, is_pruned=point.status == "pruned")
        return point

    def _ask(self) -> optuna.Trial:
        import optuna

        number = len(self._study.trials)
        seed = (self._settings.seed * 1_000_003 + number) % 2**32  # not the state of a generator: it is resumed
        is_parallel = self._settings.parallel > 1
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=is_parallel)
        return self._study.ask(self._space)

    def _tell(self, trial: optuna.Trial, value: float | None, *, is_pruned: bool = False) -> None:
        from optuna.trial import TrialState

        with self._lock:
            if is_pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            elif value is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, value)

    def _tell_nothing(self, trial: optuna.Trial) -> None:
        self._tell(trial, None)

    def _value_of(self, point: SweepPointRow) -> float | None:
        """Raises ConfigError: no round of a finished session has the metric."""
        rounds = [row for row in self._rounds_of(point.session_id or "") if row.status == "finished"]
        name = self._settings.metric or ""
        values = [value for row in rounds if (value := metric_of(row, name)) is not None]
        if values:
            return values[-1]
        known = sorted({known for row in rounds for known in round_values(row)})
        if point.status == "finished" and name_in(name, known) not in known:
            raise ConfigError(
                f"no round of session {point.session_id} has the metric '{name}' of the search{nearest(name, known)}",
                hint=f"it has {', '.join(known) or 'no metric at all'}; begin a new search with one of them",
                key="metric",
            )
        return None

    def _remember(self, point: SweepPointRow) -> None:
        """Add a point that ended before the search was resumed."""
        from optuna.trial import TrialState, create_trial

        name, rounds = self._settings.metric or "", self._rounds_of(point.session_id or "")
        steps = {row.round_number: value for row in rounds if (value := metric_of(row, name)) is not None}
        state = TrialState.PRUNED if point.status == "pruned" else TrialState.COMPLETE
        is_told = point.value is not None and state == TrialState.COMPLETE
        if not is_told and state == TrialState.COMPLETE:
            state = TrialState.FAIL
        self._study.add_trial(
            create_trial(
                state=state,
                params=self._params_of(point.choices),
                distributions=self._space,
                value=point.value if is_told else None,
                intermediate_values=steps,
            )
        )

    def _chosen(self, params: Mapping[str, Any]) -> Chosen:
        return {one.key: _choice(one, params[one.key]) for one in self._dimensions}

    def _params_of(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for one in self._dimensions:
            value = choices[one.key.lstrip("+")]
            if isinstance(one, Axis):
                value = next(place for place, choice in enumerate(one.choices) if choice == value)
            found[one.key] = value
        return found


def metric_of(row: RoundRow, name: str) -> float | None:
    """A metric of a round; None: the round does not have it, or it is not a finite number."""
    values = round_values(row)
    value = values.get(name_in(name, values))
    return None if value is None or not math.isfinite(value) else float(value)


def _new_study(settings: Settings) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "--search needs the package optuna, which is not installed", hint="pip install 'fedpkg[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    return optuna.create_study(direction="minimize" if settings.minimise else "maximize", pruner=pruner)


def _distribution(one: Dimension) -> BaseDistribution:
    """Of an axis, the place of the value: a whole number if the values are numbers in order, else a category."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(one, Axis):
        if one.is_whole:
            return IntDistribution(int(one.low), int(one.high), log=one.log)
        return FloatDistribution(one.low, one.high, log=one.log)
    if isinstance(one.choices, Range) or _is_ordered(one.choices):
        return IntDistribution(0, len(one.choices) - 1)
    return CategoricalDistribution(list(range(len(one.choices))))


def _is_ordered(values: Sequence[Any]) -> bool:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return False
    return list(values) in (sorted(values), sorted(values, reverse=True))


def _choice(one: Dimension, value: Any) -> Json:
    return one.choices[int(value)] if isinstance(one, Axis) else value
