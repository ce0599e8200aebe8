"""TensorBoard's event files, written by tensorboardX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fedpkg.tracking.base import Aggregates, TrackedRound, TrackedRun
from fedpkg.tracking.registry import register_tracker


@register_tracker("tensorboard")
class TensorBoard:
    """Writes event files for TensorBoard: scalars, the configuration as text, hparams of a sweep, histograms."""

    def __init__(
        self, folder: str | None = None, aggregates: Aggregates | None = None, histograms: bool = False
    ) -> None:
        """
        Args:
            folder: Folder with one folder for each session, to compare them. null: tensorboard in the session's folder.
            aggregates: Aggregates over the clients to write besides the weighted mean, such as [std, worst_tenth].
            histograms: Whether to write a histogram of each tensor of each global model.
        """
        self._folder = folder
        self._aggregates = aggregates or []
        self._histograms = histograms
        self._run: TrackedRun | None = None
        self._writer: Any = None
        self._has_hparams = False
        self._ends: Any = None  # what ends the entry of a sweep's point in the table of hparams

    def begin(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        base = run.folder / "tensorboard" if self._folder is None else Path(self._folder) / run.session_id
        # A killed session may have written a round that is about to be written again: readers drop that one.
        purge_step = run.num_tracked + 1 if base.exists() else None
        # The names of event files have seconds: without a number, a quick resume would overwrite the file before.
        number = sum(1 for _ in base.glob("events.*"))
        self._run = run
        self._writer = SummaryWriter(
            str(base), purge_step=purge_step, flush_secs=3600, filename_suffix=f".{number:04d}"
        )
        if not run.num_tracked:
            text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), 0)
        self._writer.flush()

    def round(self, finished: TrackedRound) -> None:
        time = finished.row.finished_at
        scalars = finished.scalars(self._aggregates)
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, finished.number, walltime=time)
        if self._histograms and finished.model is not None:
            self._write_histograms(finished.model, finished.number, time)
        if not self._has_hparams:
            self._write_hparams([tag for tag in scalars if not tag.startswith("round/")])
        self._writer.flush()

    def end(self, status: str) -> None:
        if self._writer is None:
            return
        if self._ends is not None:
            self._writer.file_writer.add_summary(self._ends)
        self._writer.close()

    def _write_histograms(self, model: Path, step: int, time: float | None) -> None:
        from fedpkg.formats.model_file import read_model

        try:
            tensors = read_model(model)
        except OSError:  # pruned meanwhile
            return
        for name, tensor in tensors.items():
            if tensor.numel():
                self._writer.add_histogram(f"weights/{name}", tensor.float().numpy(), step, walltime=time)

    def _write_hparams(self, tags: list[str]) -> None:
        """Enter a sweep's point in the table of hyperparameters."""
        from tensorboardX.summary import hparams

        assert self._run is not None
        self._has_hparams = True
        if (found := self._run.sweep()) is None:
            return
        experiment, begins, ends = hparams(_plain(found[1]), dict.fromkeys(tags, 0.0))
        for summary in (experiment, begins):
            self._writer.file_writer.add_summary(summary)
        self._ends = ends


def _plain(choices: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in choices.items()}
