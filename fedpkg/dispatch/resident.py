"""The resident executor: each slot has an interpreter that runs one task after the other. For trusted packages.

The interpreter is a fork of the warm interpreter. ``runtime/path/_fedpkg_resident.py`` restores it after each task; it
is replaced after a failure, a time-out, or a task that leaves something running. This executor is the fastest, and the
best for GPUs, as a CUDA context is created once per slot. It cannot undo changes inside an installed module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpkg.devices import Slot
from fedpkg.dispatch.dispatcher import LocalExecutor
from fedpkg.dispatch.forkserver import ForkserverLauncher, gpus_of
from fedpkg.dispatch.site import PackageOnDisk, Site


def resident_executor(
    site: Site,
    *,
    slots: Sequence[Slot],
    environment: Mapping[str, str],
    log_folder: Path,
    package: PackageOnDisk,
) -> LocalExecutor:
    """An executor whose interpreters run many tasks."""
    launcher = ForkserverLauncher(environment, log_folder, gpus=gpus_of(slots), resident=True)
    launcher.prestart(package)
    return LocalExecutor(site, launcher, slots=slots, folder=log_folder)
