"""Detects this machine's processors, memory and GPUs, and assigns them to the tasks that run at the same time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedpkg.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
ORDER = "CUDA_DEVICE_ORDER"  # CUDA numbers GPUs by speed, nvidia-smi by place on the bus
_QUERY = ["--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
NVIDIA_SMI_PATIENCE_S = 20.0  # waking the driver takes seconds for each GPU


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one partition (MIG) of it. Its memory is None if it is not reported."""

    name: str
    uuid: str
    visible_as: str  # in CUDA_VISIBLE_DEVICES, with CUDA_DEVICE_ORDER=PCI_BUS_ID
    memory_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """The resources for tasks: those that this process may use, and that were free when they were detected."""

    cpus: int
    memory_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""  # the reason why there are none, or not all


@dataclass(frozen=True)
class Needs:
    """What one task needs. ``gpus`` is a fraction of one (0.25), or a whole number; ``gpu_memory_bytes`` is per GPU."""

    threads: int = 1
    gpus: float = 0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Slot:
    """A place for one task at a time. Slots may share a GPU; a slot's GPUs never change."""

    number: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus else "cpu"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that restrict a task of this slot to its GPUs."""
        return visible_to(self.gpus)


def visible_to(gpus: tuple[Gpu, ...]) -> dict[str, str]:
    """Environment variables that restrict a process to these GPUs."""
    return {VISIBLE: ",".join(gpu.visible_as for gpu in gpus), ORDER: "PCI_BUS_ID"}


def cpu_slots(count: int) -> list[Slot]:
    """``count`` slots without a GPU."""
    return [Slot(number) for number in range(count)]


# ---- slots


def plan_slots(machine: Machine, needs: Needs, workers: int | Literal["auto"], *, or_fewer: bool = False) -> list[Slot]:
    """Slots for ``workers`` tasks; ``auto``: for as many as fit, at least one.

    A configured number may exceed the processors and memory (tasks then compete for them, or the machine swaps), but
    not the GPUs, unless ``or_fewer`` allows fewer slots. A slot is put on the GPU with the fewest slots, then on
    the one with the most memory left, then on the first. The same arguments give the same slots.

    Raises:
        ConfigError: If there is no room for them, or not even for one.
    """
    count = _as_many_as_fit(machine, needs) if workers == "auto" else workers
    if not needs.gpus:
        return cpu_slots(count)
    groups = _share_out(machine.gpus, needs, at_most=count)
    if not groups or (len(groups) < count and workers != "auto" and not or_fewer):
        raise _no_room(machine, needs, wanted=count, found=len(groups))
    return [Slot(number, gpus) for number, gpus in enumerate(groups)]


def _as_many_as_fit(machine: Machine, needs: Needs) -> int:
    """The number of tasks for which processors and memory suffice."""
    count = max(1, machine.cpus // needs.threads)
    if needs.memory_bytes is None:
        return count
    if needs.memory_bytes > machine.free_bytes:
        raise ConfigError(
            f"executor.needs.memory_bytes is {_size(needs.memory_bytes)}, but {_size(machine.free_bytes)} are free",
            hint="lower it, or set executor.workers to a number to run the tasks nevertheless",
            key="executor.needs.memory_bytes",
        )
    return min(count, machine.free_bytes // needs.memory_bytes)


def _share_out(gpus: tuple[Gpu, ...], needs: Needs, *, at_most: int) -> list[tuple[Gpu, ...]]:
    """The GPUs of each slot, until there is no more room."""
    rooms = [tasks_on(gpu, needs) for gpu in gpus]
    if needs.gpus > 1:
        whole = [gpu for gpu, room in zip(gpus, rooms, strict=True) if room]
        size = int(needs.gpus)
        return [tuple(whole[size * n : size * n + size]) for n in range(min(at_most, len(whole) // size))]
    takes = needs.gpu_memory_bytes or 0
    used = [0] * len(gpus)
    groups: list[tuple[Gpu, ...]] = []
    while len(groups) < at_most and (open_ones := [n for n, room in enumerate(rooms) if used[n] < room]):
        best = min(open_ones, key=lambda n: (used[n], takes * used[n] - (gpus[n].free_bytes or 0), n))
        used[best] += 1
        groups.append((gpus[best],))
    return groups


def tasks_on(gpu: Gpu, needs: Needs) -> int:
    """The number of tasks that this GPU can run at the same time, by their share of it and its free memory."""
    by_share = max(1, int(1 / needs.gpus + 1e-9))  # 1 / (1 / 93) is slightly less than 93
    if needs.gpu_memory_bytes is None:
        return by_share
    return min(by_share, (gpu.free_bytes or 0) // needs.gpu_memory_bytes)


def _no_room(machine: Machine, needs: Needs, *, wanted: int, found: int) -> ConfigError:
    asked = f"{needs.gpus:g} GPU{'s' if needs.gpus > 1 else ''}"
    note = f" ({machine.gpu_note})" if machine.gpu_note else ""
    if not machine.gpus:
        return ConfigError(
            f"executor.needs.gpus is {needs.gpus:g}, but no GPU is available{note}",
            hint="set executor.needs.gpus=0 to use processors; `fedpkg doctor` shows this machine's GPUs",
            key="executor.needs.gpus",
        )
    if needs.gpu_memory_bytes is not None:
        asked += f" and {_size(needs.gpu_memory_bytes)} of its memory"
    rooms = ", ".join(f"{describe(gpu)}: {tasks_on(gpu, needs)}" for gpu in machine.gpus)
    what = f"room for {found} {'task' if found == 1 else 'tasks'} with {asked} each"
    if found:
        message = f"executor.workers is {wanted}, but there is only {what}{note}; {rooms}"
        return ConfigError(message, hint="lower executor.workers, or set it to auto", key="executor.workers")
    hint = "lower executor.needs, or wait until the GPUs are free"
    return ConfigError(f"there is {what}{note}; {rooms}", hint=hint, key="executor.needs")


def describe(gpu: Gpu) -> str:
    """For messages: ``GPU 0 (NVIDIA L4, 22.1 of 24.2 GB free)``."""
    if gpu.memory_bytes is None or gpu.free_bytes is None:
        return f"GPU {gpu.visible_as} ({gpu.name}, memory unknown)"
    return f"GPU {gpu.visible_as} ({gpu.name}, {gpu.free_bytes / 1e9:.1f} of {_size(gpu.memory_bytes)} free)"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


# ---- detection


def this_machine(*, with_gpus: bool, environ: Mapping[str, str] = os.environ) -> Machine:
    """Detect this machine's resources. ``with_gpus`` runs nvidia-smi, which takes from 0.1 s to some seconds."""
    gpus, note = _gpus(environ) if with_gpus else ((), "nvidia-smi was not run")
    memory = all_memory()
    return Machine(usable_cpus(), memory, free_bytes=min(memory, free_memory()), gpus=gpus, gpu_note=note)


def usable_cpus() -> int:
    """The processors that this process may use: those of its affinity mask, at most its control group's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(int(share) for share in cpu_shares())]))


def all_memory() -> int:
    """The memory in bytes, at most the control group's limit."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *memory_limits()])


def free_memory() -> int:
    """The memory that is available without swapping; all memory if the system does not report it."""
    words = _words(Path("/proc/meminfo"))
    return int(words[words.index("MemAvailable:") + 1]) << 10 if "MemAvailable:" in words else all_memory()


def cpu_shares(root: Path = Path("/")) -> Iterator[float]:
    """The number of processors that each of this process's control groups allows, if it limits them."""
    for folder in _control_groups("cpu", root):
        v1 = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        for words in (_words(folder / "cpu.max"), v1):
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # else "max", or -1
                yield int(words[0]) / int(words[1])


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """The number of bytes that each of this process's control groups allows, if it limits them."""
    for folder in _control_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            yield from (int(word) for word in _words(folder / name) if word.isdigit())


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """This process's group of version 2, and that of version 1 with ``controller``; each followed by its parents.

    Only mounted groups are included: in a container the groups around it may not be.
    """
    groups: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _number, names, group = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), group))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ", 2)
        path = groups.get("") if kind == "cgroup2" else None
        if kind == "cgroup" and controller in options.split(","):
            path = groups.get(controller)
        if path is None:
            continue
        mounted, place = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), word) for word in before.split()[3:5])
        inside = os.path.relpath(path, mounted)
        if inside.startswith(".."):  # the mounted hierarchy is not ours
            continue
        top = root / place.lstrip("/")
        folder = top / inside
        yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _gpus(environ: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that this process may use, and the reason why there are none or not all."""
    tool = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if tool is None:
        return (), "nvidia-smi is not on PATH"
    try:
        run = subprocess.run(
            [tool, *_QUERY],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=NVIDIA_SMI_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return (), f"nvidia-smi did not answer within {NVIDIA_SMI_PATIENCE_S:g} s"
    except OSError as error:
        return (), f"nvidia-smi cannot be run: {error.strerror}"
    if run.returncode:
        said = (run.stderr.strip() or run.stdout.strip()).splitlines()
        return (), f"nvidia-smi ended with code {run.returncode}: {said[0] if said else 'no message'}"
    try:
        gpus = [_read_gpu(line) for line in run.stdout.splitlines() if line.strip()]
    except ValueError as error:
        return (), f"the output of nvidia-smi cannot be parsed: {error}"
    if not gpus:
        return (), "nvidia-smi lists no GPU"
    return _visible(gpus, environ.get(VISIBLE))


def _read_gpu(line: str) -> Gpu:
    try:
        index, uuid, *name, total, free = (cell.strip() for cell in line.split(","))
        if not index.isdigit() or not uuid or not name:
            raise ValueError
        return Gpu(", ".join(name), uuid, index, memory_bytes=_mebibytes(total), free_bytes=_mebibytes(free))
    except ValueError:
        raise ValueError(repr(line[:200])) from None


def _mebibytes(text: str) -> int | None:
    """Memory in bytes; None for ``[N/A]`` and the like: the GPU shares the machine's memory, or access is denied."""
    if text.startswith("["):
        return None
    if not text.isdigit():
        raise ValueError
    return int(text) << 20


def _visible(gpus: list[Gpu], variable: str | None) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs in our own CUDA_VISIBLE_DEVICES, in its order and, as in CUDA, up to the first that does not exist."""
    if variable is None:
        return tuple(gpus), ""
    chosen: dict[str, Gpu] = {}
    for word in filter(None, (part.strip() for part in variable.split(","))):
        if word.startswith("MIG-"):
            found = [Gpu("a partition (MIG)", word, word)]
        else:
            is_uuid = word[0].isalpha()  # a prefix is enough
            found = [gpu for gpu in gpus if (gpu.uuid.startswith(word) if is_uuid else gpu.visible_as == word)]
        if len(found) != 1:
            unknown = "" if word == "-1" else f", where '{word}' matches {'several GPUs' if found else 'no GPU'}"
            return tuple(chosen.values()), f"{VISIBLE} is '{variable}'{unknown}"
        chosen[found[0].uuid] = found[0]
    return tuple(chosen.values()), "" if len(chosen) == len(gpus) else f"{VISIBLE} is '{variable}'"
