"""MLflow: a run for each session, below a run for its sweep."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

from fedpkg.tracking.base import Aggregates, TrackedRound, TrackedRun
from fedpkg.tracking.registry import register_tracker
from fedpkg.types import leaves

_PARENTS = threading.Lock()  # the points of a sweep run side by side in one process, and share a parent
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED", "failed": "FAILED"}
_MOST = 500  # characters of a parameter's value
_MANY = 100  # parameters, or metrics, of one call


@register_tracker("mlflow")
class Mlflow:
    """Records the session as a run of MLflow: metrics by round, the configuration as parameters."""

    def __init__(
        self, uri: str | None = None, experiment: str = "fedpkg", aggregates: Aggregates | None = None
    ) -> None:
        """
        Args:
            uri: Address of the tracking server, or of a local store. null: MLFLOW_TRACKING_URI, or MLflow's default.
            experiment: Name of MLflow's experiment.
            aggregates: Aggregates over the clients to record besides the weighted mean, such as [std, worst_tenth].
        """
        self._uri = uri
        self._experiment = experiment
        self._aggregates = aggregates or []
        self._client: Any = None
        self._run: TrackedRun | None = None
        self._is_first = True

    def begin(self, run: TrackedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reports its use to its makers otherwise
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._run = run
        self._client = client = MlflowClient(tracking_uri=self._uri)
        if "run_id" in run.kept:
            client.update_run(run.kept["run_id"], status="RUNNING")
            return
        found = client.get_experiment_by_name(self._experiment)
        experiment_id = client.create_experiment(self._experiment) if found is None else found.experiment_id
        tags = {"fedpkg.session": run.session_id}
        made = client.create_run(experiment_id, run_name=run.session_id, tags=tags)
        run.kept.update(run_id=made.info.run_id, experiment_id=experiment_id)
        values = {_key(".".join(path)): str(value)[:_MOST] for path, value in leaves(run.config)}
        params = [Param(name, value) for name, value in values.items()]
        for start in range(0, len(params), _MANY):
            client.log_batch(made.info.run_id, params=params[start : start + _MANY])

    def round(self, finished: TrackedRound) -> None:
        from mlflow.entities import Metric

        run = self._run
        assert run is not None
        run_id, time_ms = run.kept["run_id"], round(1000 * (finished.row.finished_at or 0.0))
        scalars = {_key(tag): value for tag, value in finished.scalars(self._aggregates).items()}
        if self._is_first:
            self._is_first = False
            self._set_parent(run)
            if self._was_written(run_id, "round/seconds", finished.number):
                return  # before the session was killed
        metrics = [Metric(key, value, time_ms, finished.number) for key, value in scalars.items()]
        # What `_was_written` looks for comes last.
        metrics.sort(key=lambda metric: metric.key == "round/seconds")
        for start in range(0, len(metrics), _MANY):
            self._client.log_batch(run_id, metrics=metrics[start : start + _MANY])

    def end(self, status: str) -> None:
        if self._run is not None and "run_id" in self._run.kept:
            self._client.set_terminated(self._run.kept["run_id"], _STATUS.get(status, "FINISHED"))

    def _was_written(self, run_id: str, key: str, step: int) -> bool:
        return any(metric.step == step for metric in self._client.get_metric_history(run_id, key))

    def _set_parent(self, run: TrackedRun) -> None:
        """Put the run below its sweep's."""
        if (found := run.sweep()) is None:
            return
        sweep, choices = found
        run_id, experiment_id = run.kept["run_id"], run.kept["experiment_id"]
        with _PARENTS:
            query = f"tags.`fedpkg.sweep` = '{sweep}'"
            parents = self._client.search_runs([experiment_id], query, max_results=1)
            if parents:
                parent_id = parents[0].info.run_id
            else:
                made = self._client.create_run(experiment_id, run_name=sweep, tags={"fedpkg.sweep": sweep})
                parent_id = made.info.run_id
                self._client.set_terminated(parent_id)
        self._client.set_tag(run_id, "mlflow.parentRunId", parent_id)
        for key, value in choices.items():
            self._client.set_tag(run_id, f"choice.{_key(key)}", str(value)[:_MOST])


def _key(name: str) -> str:
    """A name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name, flags=re.ASCII)[:250]
