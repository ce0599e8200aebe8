"""The limits and the isolation of a run's tasks on this machine, from its configuration."""

from __future__ import annotations

from fedpkg.config import LimitsConfig, RunConfig
from fedpkg.devices import all_memory
from fedpkg.errors import ConfigError
from fedpkg.means import means
from fedpkg.waist.order import Isolation, Limits

MEMORY_SHARE = 0.9  # of the machine's memory: the task is ended before the kernel ends an arbitrary process


def limits_of(config: LimitsConfig) -> Limits:
    """A run's limits on this machine."""
    memory = config.memory_bytes
    return Limits(
        memory_bytes=int(MEMORY_SHARE * all_memory()) if memory == "auto" else memory,
        cpu_s=config.cpu_s,
        file_bytes=config.file_bytes,
        folder_bytes=config.folder_bytes,
        folder_files=config.folder_files,
        open_files=config.open_files,
        processes=config.processes,
    )


def isolation_of(config: RunConfig) -> Isolation | None:
    """A run's isolation on this machine.

    Raises:
        ConfigError: this machine or the executor cannot isolate tasks as configured.
    """
    if not config.isolate.enabled:
        return None
    if config.executor.name == "resident":
        raise ConfigError(
            "the executor 'resident' cannot isolate tasks: several clients share one interpreter",
            hint="use the executor forkserver or process",
            key="isolate.enabled",
        )
    here = means()
    if here.cold is None:
        raise ConfigError(
            "isolate.enabled: this machine cannot isolate a task: namespaces: "
            f"{here.why_not_namespaces}; Landlock: {here.why_not_landlock or f'ABI {here.landlock} is too old'}; "
            f"bubblewrap: {here.why_not_bubblewrap}",
            hint="install bubblewrap (bwrap) on Linux, and see `fedpkg doctor`; or, for a package that you trust, run "
            "it without isolation",
            key="isolate.enabled",
        )
    return Isolation(network=config.isolate.network, read=tuple(config.isolate.read))
