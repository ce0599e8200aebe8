"""Weights & Biases: offline files, or the service where the person running asks for it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from fedpkg.tracking.base import Aggregates, TrackedRound, TrackedRun
from fedpkg.tracking.registry import register_tracker


@register_tracker("wandb")
class Wandb:
    """Records the session with Weights & Biases, offline unless `mode` is online; `wandb sync` uploads it later."""

    def __init__(
        self,
        project: str = "fedpkg",
        mode: Literal["offline", "online"] = "offline",
        folder: str | None = None,
        aggregates: Aggregates | None = None,
    ) -> None:
        """
        Args:
            project: Name of the project.
            mode: With `offline` nothing leaves the machine. With `online`, wandb sends the data to its service.
            folder: Folder of wandb's files. null: the session's folder.
            aggregates: Aggregates over the clients to record besides the weighted mean, such as [std, worst_tenth].
        """
        self._project = project
        self._mode = mode
        self._folder = folder
        self._aggregates = aggregates or []
        self._session: TrackedRun | None = None
        self._run: Any = None

    def begin(self, run: TrackedRun) -> None:
        if self._mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._session = run
        folder = run.folder if self._folder is None else Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        sweep = run.sweep()
        self._run = wandb.init(
            project=self._project,
            name=run.session_id,
            id=re.sub(r"[^\w-]", "-", run.session_id, flags=re.ASCII),
            group=None if sweep is None else sweep[0],
            dir=str(folder),
            config=dict(run.config),
            mode=self._mode,
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",  # sessions of one program run side by side
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )

    def round(self, finished: TrackedRound) -> None:
        self._run.log(finished.scalars(self._aggregates), step=finished.number)

    def end(self, status: str) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "finished" else 1)
