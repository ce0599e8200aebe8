"""The resident executor: each slot has an interpreter that runs one task after the other. For trusted packages.

It is a fork of the warm interpreter that is not left after a task but put back as it was, by
``runtime/path/_fedpkg_resident.py``, and replaced after a failure, a time-out, or a task that leaves something running.
The fastest, and the one for GPUs, where a CUDA context is made once per slot. What it cannot put back is a change to
the inside of an installed module.
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
    """An executor whose interpreters stay from task to task."""
    launcher = ForkserverLauncher(environment, log_folder, gpus=gpus_of(slots), resident=True)
    launcher.prestart(package)
    return LocalExecutor(site, launcher, slots=slots, folder=log_folder)
