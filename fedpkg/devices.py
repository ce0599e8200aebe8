"""What this machine has (processors, memory, GPUs), and how many tasks run on it at the same time, each on what."""

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
ORDER = "CUDA_DEVICE_ORDER"  # CUDA's own numbers are by speed, those of nvidia-smi by place on the bus
_QUERY = ["--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
NVIDIA_SMI_PATIENCE_S = 20.0  # a driver that was asleep takes seconds for each GPU


@dataclass(frozen=True)
class Gpu:
    """One GPU, or a part of one that is partitioned (MIG). Memory is None where it does not say."""

    name: str
    uuid: str
    visible_as: str  # in CUDA_VISIBLE_DEVICES, with CUDA_DEVICE_ORDER=PCI_BUS_ID
    memory_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """What tasks can have: as this process may use it, and as much as was free when it was looked at."""

    cpus: int
    memory_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""  # why there are none, or not all


@dataclass(frozen=True)
class Needs:
    """What one task takes. ``gpus`` is a share of one (0.25), or a whole number; ``gpu_memory_bytes`` is of each."""

    threads: int = 1
    gpus: float = 0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class Slot:
    """A place for one task at a time. Slots may share a GPU; a slot's GPUs stay the same."""

    number: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus else "cpu"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a task of this slot sees its GPUs and no others."""
        return visible_to(self.gpus)


def visible_to(gpus: tuple[Gpu, ...]) -> dict[str, str]:
    """The variables by which a process sees these GPUs and no others."""
    return {VISIBLE: ",".join(gpu.visible_as for gpu in gpus), ORDER: "PCI_BUS_ID"}


def cpu_slots(count: int) -> list[Slot]:
    """So many slots that see no GPU."""
    return [Slot(number) for number in range(count)]


# ---- how many tasks, and where


def plan_slots(machine: Machine, needs: Needs, workers: int | Literal["auto"], *, or_fewer: bool = False) -> list[Slot]:
    """Slots for ``workers`` tasks; ``auto``: for as many as fit, at least one.

    A number that was configured may ask more of processors and memory than there is (tasks then wait for each other,
    or the machine swaps), but not of GPUs, unless ``or_fewer`` takes what there is. Slots go to the GPU that has the
    fewest, then to the one with the most memory left, then to the first. The same arguments give the same slots.

    Raises:
        ConfigError: there is no room for them, or not for a single one.
    """
    count = _as_many_as_fit(machine, needs) if workers == "auto" else workers
    if not needs.gpus:
        return cpu_slots(count)
    groups = _share_out(machine.gpus, needs, at_most=count)
    if not groups or (len(groups) < count and workers != "auto" and not or_fewer):
        raise _no_room(machine, needs, wanted=count, found=len(groups))
    return [Slot(number, gpus) for number, gpus in enumerate(groups)]


def _as_many_as_fit(machine: Machine, needs: Needs) -> int:
    """By processors and memory."""
    count = max(1, machine.cpus // needs.threads)
    if needs.memory_bytes is None:
        return count
    if needs.memory_bytes > machine.free_bytes:
        raise ConfigError(
            f"executor.needs.memory_bytes is {_size(needs.memory_bytes)}, but {_size(machine.free_bytes)} are free",
            hint="lower it, or give executor.workers as a number to try all the same",
            key="executor.needs.memory_bytes",
        )
    return min(count, machine.free_bytes // needs.memory_bytes)


def _share_out(gpus: tuple[Gpu, ...], needs: Needs, *, at_most: int) -> list[tuple[Gpu, ...]]:
    """The GPUs of one slot after the other, until there is no room."""
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
    """How many tasks this GPU takes at the same time: by their share of it, and by its free memory."""
    by_share = max(1, int(1 / needs.gpus + 1e-9))  # 1 / (1 / 93) is a little less than 93
    if needs.gpu_memory_bytes is None:
        return by_share
    return min(by_share, (gpu.free_bytes or 0) // needs.gpu_memory_bytes)


def _no_room(machine: Machine, needs: Needs, *, wanted: int, found: int) -> ConfigError:
    asked = f"{needs.gpus:g} GPU{'s' if needs.gpus > 1 else ''}"
    note = f" ({machine.gpu_note})" if machine.gpu_note else ""
    if not machine.gpus:
        return ConfigError(
            f"executor.needs.gpus is {needs.gpus:g}, but no GPU is to be had here{note}",
            hint="executor.needs.gpus=0 computes on processors; `fedpkg doctor` says what this machine has",
            key="executor.needs.gpus",
        )
    if needs.gpu_memory_bytes is not None:
        asked += f" and {_size(needs.gpu_memory_bytes)} of its memory"
    rooms = ", ".join(f"{describe(gpu)}: {tasks_on(gpu, needs)}" for gpu in machine.gpus)
    what = f"room for {found} {'task' if found == 1 else 'tasks'} with {asked} each"
    if found:
        message = f"executor.workers is {wanted}, but there is {what}{note}; {rooms}"
        return ConfigError(message, hint="lower executor.workers, or set it to auto", key="executor.workers")
    hint = "lower executor.needs, or wait until the GPUs are free"
    return ConfigError(f"there is {what}{note}; {rooms}", hint=hint, key="executor.needs")


def describe(gpu: Gpu) -> str:
    """For messages: ``GPU 0 (NVIDIA L4, 22.1 of 24.2 GB free)``."""
    if gpu.memory_bytes is None or gpu.free_bytes is None:
        return f"GPU {gpu.visible_as} ({gpu.name}, does not say its memory)"
    return f"GPU {gpu.visible_as} ({gpu.name}, {gpu.free_bytes / 1e9:.1f} of {_size(gpu.memory_bytes)} free)"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


# ---- what there is


def this_machine(*, with_gpus: bool, environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine. ``with_gpus`` asks nvidia-smi, which takes from a tenth of a second to some."""
    gpus, note = _gpus(environ) if with_gpus else ((), "they were not asked for")
    memory = all_memory()
    return Machine(usable_cpus(), memory, free_bytes=min(memory, free_memory()), gpus=gpus, gpu_note=note)


def usable_cpus() -> int:
    """Processors that this process may use: those it is bound to, and no more than its control group's share."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cpus, *(int(share) for share in cpu_shares())]))


def all_memory() -> int:
    """Bytes of memory, no more than the control group's limit."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *memory_limits()])


def free_memory() -> int:
    """Bytes that could be had without swapping; all there is where the system does not say."""
    words = _words(Path("/proc/meminfo"))
    return int(words[words.index("MemAvailable:") + 1]) << 10 if "MemAvailable:" in words else all_memory()


def cpu_shares(root: Path = Path("/")) -> Iterator[float]:
    """How many processors each of this process's control groups allows, where it limits them (as for a container)."""
    for folder in _control_groups("cpu", root):
        v1 = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        for words in (_words(folder / "cpu.max"), v1):
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # else "max", or -1
                yield int(words[0]) / int(words[1])


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """How many bytes each of this process's control groups allows, where it limits them."""
    for folder in _control_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            yield from (int(word) for word in _words(folder / name) if word.isdigit())


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """This process's group of version 2, and that of version 1 with ``controller``; each, then those above it.

    Only what is mounted where this process sees it: in a container the groups around it may not be.
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
        if inside.startswith(".."):  # what is mounted here is not ours
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
    """The GPUs that this process may use, and why there are none or not all."""
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
        return (), f"nvidia-smi ended with code {run.returncode}: {said[0] if said else 'it said nothing'}"
    try:
        gpus = [_read_gpu(line) for line in run.stdout.splitlines() if line.strip()]
    except ValueError as error:
        return (), f"nvidia-smi said what cannot be understood: {error}"
    if not gpus:
        return (), "nvidia-smi lists none"
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
    """``[N/A]``, ``[Not Supported]`` … where a GPU shares the machine's memory, or we may not know."""
    if text.startswith("["):
        return None
    if not text.isdigit():
        raise ValueError
    return int(text) << 20


def _visible(gpus: list[Gpu], variable: str | None) -> tuple[tuple[Gpu, ...], str]:
    """Those that our own CUDA_VISIBLE_DEVICES names, in its order; like CUDA, up to the first that is not there."""
    if variable is None:
        return tuple(gpus), ""
    chosen: dict[str, Gpu] = {}
    for word in filter(None, (part.strip() for part in variable.split(","))):
        if word.startswith("MIG-"):
            found = [Gpu("a partition (MIG)", word, word)]
        else:
            is_uuid = word[0].isalpha()  # its beginning is enough
            found = [gpu for gpu in gpus if (gpu.uuid.startswith(word) if is_uuid else gpu.visible_as == word)]
        if len(found) != 1:
            unknown = "" if word == "-1" else f", where '{word}' names {'several' if found else 'none'}"
            return tuple(chosen.values()), f"{VISIBLE} is '{variable}'{unknown}"
        chosen[found[0].uuid] = found[0]
    return tuple(chosen.values()), "" if len(chosen) == len(gpus) else f"{VISIBLE} is '{variable}'"
