"""The executor of a run, on the slots of this machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpkg.config import RunConfig
from fedpkg.devices import VISIBLE, Needs, Slot, plan_slots, this_machine
from fedpkg.dispatch.site import PackageOnDisk, Site
from fedpkg.log import event
from fedpkg.session.limits import isolation_of
from fedpkg.waist.executor import Executor

logger = logging.getLogger("fedpkg.session")


def make_executor(
    config: RunConfig, site: Site, package: PackageOnDisk, log_folder: Path, *, slots: Sequence[Slot]
) -> Executor:
    """The configured executor."""
    options: dict[str, Any] = {"slots": slots, "environment": config.environment, "log_folder": log_folder}
    isolated = isolation_of(config) is not None
    if config.executor.name == "process":
        from fedpkg.dispatch.process import process_executor

        return process_executor(site, **options, isolated=isolated)
    if config.executor.name == "resident":
        from fedpkg.dispatch.resident import resident_executor

        return resident_executor(site, **options, package=package)
    from fedpkg.dispatch.forkserver import forkserver_executor

    return forkserver_executor(site, **options, package=package, isolated=isolated)


def slots_of(config: RunConfig, *, or_fewer: bool = False) -> list[Slot]:
    """The run's slots on this machine. ``or_fewer``: too few GPUs slow a session down, but its results are the same."""
    wanted, asked = config.executor.needs, config.executor.workers
    needs = Needs(config.executor.threads, wanted.gpus, wanted.memory_bytes, wanted.gpu_memory_bytes)
    machine = this_machine(with_gpus=wanted.gpus > 0)
    slots = plan_slots(machine, needs, asked, or_fewer=or_fewer)
    if asked != "auto" and len(slots) < asked:
        reason = f"executor.workers is {asked}; the free GPUs have room for {len(slots)} tasks"
        event(logger, logging.WARNING, "executor.fewer", reason=reason)
    if (needs.memory_bytes or 0) * len(slots) > machine.free_bytes:
        reason = "executor.workers times executor.needs.memory_bytes exceeds the free memory"
        event(logger, logging.WARNING, "executor.memory", reason=reason)
    if wanted.gpus:
        where = " ".join(f"{slot.number}:{slot.environment[VISIBLE]}" for slot in slots)
        event(logger, logging.INFO, "executor.gpus", slots=where)
    return slots
