"""The apps of tests/apps, which are written in the shape of public ones: their configurations and what they leave."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from federation import Federation
from warm import warm_python

from fedpkg.config import RunConfig, dump_config
from fedpkg.session.package_run import run_of_package
from fedpkg.stores.base import SessionRow

APPS = Path(__file__).resolve().parents[2] / "apps"
DRIVE = Path(__file__).resolve().parents[1] / "controller" / "drive.py"


@dataclass
class Apps:
    """Runs copies of these apps."""

    federation: Federation
    folder: Path
    newest: str = ""

    @property
    def saved(self) -> Path:
        """What the ServerApp of the newest session has written into its working folder."""
        return self.federation.home.session_folder(self.newest) / "coordinator" / "saved"

    def config(self, name: str, *words: str, executor: str = "forkserver", workers: int = 2) -> RunConfig:
        app = self.folder / "Apps ü" / name
        if not app.exists():
            shutil.copytree(APPS / name, app, ignore=shutil.ignore_patterns("__pycache__"))
        given = (f"run.executor.name={executor}", f"run.executor.workers={workers}")
        return run_of_package(app, [*given, *words], cache=self.folder / "cache")[0]

    def run(self, name: str, *words: str, **more: Any) -> SessionRow:
        session = self.federation.run(self.config(name, *words, **more))
        assert session.status == "finished", session.error
        self.newest = session.session_id
        return session

    def run_killed(self, config: RunConfig, kill_at: int) -> SessionRow:
        """Run in a process that is killed at an event of the session, and resume here."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(dump_config(config)))
        known = set()
        if self.federation.home.state_db.exists():
            known = {one.session_id for one in self.federation.store.list_sessions()}
        words = [*warm_python(), str(DRIVE), str(self.federation.home.root), "--run", str(path)]
        assert subprocess.run([*words, "--kill-at", str(kill_at)]).returncode == -9
        [killed] = [one for one in self.federation.store.list_sessions() if one.session_id not in known]
        session = self.federation.resume(killed.session_id)
        assert session.status == "finished", session.error
        self.newest = session.session_id
        return session

    def outcome(self, session: SessionRow) -> list[Any]:
        """All that must be the same wherever and however often a session runs: models, metrics, saved files."""
        rounds = self.federation.store.list_rounds(session.session_id)
        return [
            self.federation.digests(session.session_id),
            [(row.cohort, row.num_ok, row.strategy_metrics, row.train_metrics, row.metrics) for row in rounds],
            {path.name: path.read_bytes() for path in sorted(self.saved.glob("*"))},
        ]


@contextmanager
def task_of(name: str) -> Iterator[ModuleType]:
    """The module `task` of an app: its model, its data, and its training, for a plain run of the same."""
    sys.path.insert(0, str(APPS / name))
    try:
        yield importlib.import_module(f"{name}.task")
    finally:
        sys.path.remove(str(APPS / name))
