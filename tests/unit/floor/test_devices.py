"""What a machine is found to have, and how tasks are placed on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpkg import devices
from fedpkg.devices import Gpu, Machine, Needs, Slot, cpu_shares, memory_limits, plan_slots, this_machine
from fedpkg.errors import ConfigError

GB = 10**9


def machine(*free: int | None, cpus: int = 1000, memory: int = 1000 * GB) -> Machine:
    """A machine whose GPUs have so many bytes free."""
    gpus = tuple(Gpu("L4", f"GPU-{n}", str(n), size and 2 * size, size) for n, size in enumerate(free))
    return Machine(cpus, memory, memory, gpus)


def places(slots: list[Slot]) -> list[str]:
    return [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots]


# ---- what there is


def test_gpus_are_those_that_nvidia_smi_lists(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi()
    found = this_machine(with_gpus=True)
    assert found.gpu_note == ""
    assert [gpu.visible_as for gpu in found.gpus] == ["0", "1", "2", "3"]
    assert found.gpus[1] == Gpu("NVIDIA A100-SXM4-80GB", "GPU-bbbb1111-2", "1", 81920 << 20, 40000 << 20)
    assert found.cpus >= 1
    assert 0 < found.free_bytes <= found.memory_bytes


def test_nobody_asks_for_gpus_that_no_task_needs(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi(script=f"touch '{tmp_path}/asked'")
    assert this_machine(with_gpus=False).gpus == ()
    assert not (tmp_path / "asked").exists()


def test_machine_without_nvidia_smi_has_no_gpus(tmp_path: Path) -> None:
    found = this_machine(with_gpus=True, environ={"PATH": str(tmp_path)})
    assert (found.gpus, found.gpu_note) == ((), "nvidia-smi is not on PATH")


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("echo hello", "the output of nvidia-smi cannot be parsed: 'hello'"),
        ("echo 0, GPU-1, L4, 24000, 100; echo 1, GPU-2, L4, lots, 1", "cannot be parsed: '1, GPU-2, L4, lots, 1'"),
        ("echo 0, GPU-1, L4, 24000, -5", "cannot be parsed: '0, GPU-1, L4, 24000, -5'"),
        ("printf '\\377\\0\\n'", "the output of nvidia-smi cannot be parsed"),
        ("true", "nvidia-smi lists no GPU"),
        ("echo No devices were found; exit 6", "nvidia-smi ended with code 6: No devices were found"),
        ("echo cannot talk to the driver >&2; exit 9", "nvidia-smi ended with code 9: cannot talk to the driver"),
        ("exit 3", "nvidia-smi ended with code 3: no message"),
        ("exec sleep 60", "nvidia-smi did not answer within 0.2 s"),
    ],
)
def test_nvidia_smi_that_fails_means_no_gpus_and_says_why(
    script: str, note: str, nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(devices, "NVIDIA_SMI_PATIENCE_S", 0.2)
    nvidia_smi(script=script)
    found = this_machine(with_gpus=True)
    assert found.gpus == ()
    assert note in found.gpu_note
    with pytest.raises(ConfigError) as raised:
        plan_slots(found, Needs(gpus=1), "auto")
    assert note in raised.value.message


def test_nvidia_smi_that_cannot_be_run_means_no_gpus(nvidia_smi: Callable[..., None], tmp_path: Path) -> None:
    nvidia_smi()
    tool = next(tmp_path.rglob("nvidia-smi"))
    tool.write_text("#!/no/such/interpreter\n")
    assert this_machine(with_gpus=True).gpu_note == "nvidia-smi cannot be run: No such file or directory"


def test_gpu_that_does_not_say_its_memory_takes_tasks_that_do_not_ask_for_it(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi("0, GPU-1, NVIDIA GB10, [N/A], [N/A]")
    found = this_machine(with_gpus=True)
    assert places(plan_slots(found, Needs(gpus=0.5), 2)) == ["0", "0"]
    with pytest.raises(ConfigError) as raised:
        plan_slots(found, Needs(gpus=0.5, gpu_memory_bytes=1), "auto")
    assert "GPU 0 (NVIDIA GB10, memory unknown): 0" in raised.value.message


@pytest.mark.parametrize(
    ("variable", "seen", "note"),
    [
        ("", [], "CUDA_VISIBLE_DEVICES is ''"),
        ("-1", [], "CUDA_VISIBLE_DEVICES is '-1'"),
        ("2,0", ["2", "0"], "CUDA_VISIBLE_DEVICES is '2,0'"),
        (" 3 , 1, 3", ["3", "1"], "CUDA_VISIBLE_DEVICES is ' 3 , 1, 3'"),
        ("0,1,2,3", ["0", "1", "2", "3"], ""),
        ("GPU-bbbb1111-2,GPU-aa", ["1", "0"], "CUDA_VISIBLE_DEVICES is 'GPU-bbbb1111-2,GPU-aa'"),
        ("1,7,2", ["1"], "CUDA_VISIBLE_DEVICES is '1,7,2', where '7' matches no GPU"),
        ("GPU-cccc", [], "CUDA_VISIBLE_DEVICES is 'GPU-cccc', where 'GPU-cccc' matches several GPUs"),
        ("NoDevFiles", [], "CUDA_VISIBLE_DEVICES is 'NoDevFiles', where 'NoDevFiles' matches no GPU"),
        ("MIG-1f/2/0,1", ["MIG-1f/2/0", "1"], "CUDA_VISIBLE_DEVICES is 'MIG-1f/2/0,1'"),
    ],
)
def test_only_the_gpus_that_fedpkg_itself_may_see_are_used(
    variable: str, seen: list[str], note: str, nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    found = this_machine(with_gpus=True)
    assert ([gpu.visible_as for gpu in found.gpus], found.gpu_note) == (seen, note)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_processors_are_those_that_the_process_is_bound_to() -> None:
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from fedpkg.devices import usable_cpus; print(usable_cpus())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


V2 = "0 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1 = "\n".join(
    f"0 0 0:1 / /sys/fs/cgroup/{name} rw shared:9 - cgroup cgroup rw,{options}"
    for name, options in (("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory"), ("pids", "pids"))
)


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "cpus", "memory"),
    [
        (V2, "0::/", {"cpu.max": "250000 100000", "memory.max": "4000"}, [2.5], [4000]),
        (V2, "0::/", {"cpu.max": "max 100000", "memory.max": "max"}, [], []),
        (V2, "0::/a b/c", {"a b/c/cpu.max": "400000 100000", "a b/cpu.max": "100000 100000"}, [4.0, 1.0], []),
        (V2.replace("/ /sys", "/pod /sys"), "0::/pod/x", {"x/memory.max": "7", "memory.max": "9"}, [], [7, 9]),
        (V2.replace("/ /sys", "/pod /sys"), "0::/other", {"memory.max": "9"}, [], []),
        (V2.replace("cgroup rw", r"cgroup/a\040b rw"), "0::/", {"a b/memory.max": "5"}, [], [5]),
        (
            V1,
            "4:cpu,cpuacct:/x\n3:memory:/y\n2:pids:/x\n0::/",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/y/memory.limit_in_bytes": "5000",
                "memory/memory.limit_in_bytes": "9000",
            },
            [3.0],
            [5000, 9000],
        ),
        (V2, "0::/elsewhere", {}, [], []),
        (None, None, {}, [], []),
    ],
)
def test_limits_of_control_groups_are_read(
    mounts: str | None, groups: str | None, files: dict[str, str], cpus: list[float], memory: list[int], tmp_path: Path
) -> None:
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    for name, text in (("mountinfo", mounts), ("cgroup", groups)):
        if text is not None:
            (proc / name).write_text(f"{text}\n")
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert list(cpu_shares(tmp_path)) == cpus
    assert list(memory_limits(tmp_path)) == memory


# ---- how tasks are placed


def test_auto_is_as_many_as_the_processors_hold_and_at_least_one() -> None:
    assert len(plan_slots(machine(cpus=8), Needs(), "auto")) == 8
    assert len(plan_slots(machine(cpus=8), Needs(threads=3), "auto")) == 2
    assert len(plan_slots(machine(cpus=2), Needs(threads=8), "auto")) == 1


def test_auto_is_no_more_than_the_memory_holds() -> None:
    assert len(plan_slots(machine(cpus=8, memory=10 * GB), Needs(memory_bytes=3 * GB), "auto")) == 3
    with pytest.raises(ConfigError, match=r"needs\.memory_bytes is 11\.0 GB, but 10\.0 GB are free"):
        plan_slots(machine(memory=10 * GB), Needs(memory_bytes=11 * GB), "auto")


def test_configured_number_may_ask_more_of_processors_and_memory_than_there_is() -> None:
    assert len(plan_slots(machine(cpus=2, memory=GB), Needs(threads=4, memory_bytes=GB), 16)) == 16


def test_tasks_without_gpus_see_none_wherever_they_run() -> None:
    assert places(plan_slots(machine(GB, GB), Needs(), 3)) == ["", "", ""]


def test_slots_are_spread_over_the_gpus() -> None:
    four = machine(GB, GB, GB, GB)
    assert places(plan_slots(four, Needs(gpus=0.5), 3)) == ["0", "1", "2"]
    assert places(plan_slots(four, Needs(gpus=0.5), "auto")) == ["0", "1", "2", "3"] * 2


def test_gpu_with_most_memory_left_comes_first() -> None:
    assert places(plan_slots(machine(GB, 3 * GB, 2 * GB), Needs(gpus=0.5), 4)) == ["1", "2", "0", "1"]


def test_mixed_gpus_take_as_many_tasks_as_their_free_memory_holds() -> None:
    mixed = machine(80 * GB, 24 * GB, 7 * GB, None)
    assert Counter(places(plan_slots(mixed, Needs(gpus=0.1, gpu_memory_bytes=8 * GB), "auto"))) == {"0": 10, "1": 3}
    assert places(plan_slots(mixed, Needs(gpus=0.5, gpu_memory_bytes=8 * GB), "auto")) == ["0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("share", "tasks"), [(1, 1), (0.5, 2), (0.34, 2), (1 / 3, 3), (0.3, 3), (0.1, 10), (1 / 93, 93)]
)
def test_share_of_a_gpu_gives_so_many_tasks(share: float, tasks: int) -> None:
    assert places(plan_slots(machine(GB), Needs(gpus=share), "auto")) == ["0"] * tasks


def test_whole_gpus_are_given_to_one_slot_each() -> None:
    needs = Needs(gpus=2, gpu_memory_bytes=GB)
    assert places(plan_slots(machine(GB, 5, GB, GB, GB, GB), needs, "auto")) == ["0,2", "3,4"]
    assert places(plan_slots(machine(GB, GB, GB), Needs(gpus=2), 1)) == ["0,1"]
    with pytest.raises(ConfigError, match="room for 0 tasks with 2 GPUs each"):
        plan_slots(machine(GB), Needs(gpus=2), "auto")


def test_more_workers_than_gpus_hold_is_an_error_that_counts() -> None:
    with pytest.raises(ConfigError) as raised:
        plan_slots(machine(3 * GB, GB), Needs(gpus=0.5, gpu_memory_bytes=GB), 4)
    assert raised.value.message == (
        "executor.workers is 4, but there is only room for 3 tasks with 0.5 GPU and 1.0 GB of its memory each; "
        "GPU 0 (L4, 3.0 of 6.0 GB free): 2, GPU 1 (L4, 1.0 of 2.0 GB free): 1"
    )
    assert raised.value.fields == {"key": "executor.workers"}
    assert places(plan_slots(machine(GB), Needs(gpus=1), 4, or_fewer=True)) == ["0"]
    with pytest.raises(ConfigError, match="no GPU is available"):
        plan_slots(machine(), Needs(gpus=1), 4, or_fewer=True)


FREE = st.one_of(st.none(), st.integers(0, 100))
SHARES = st.one_of(st.integers(1, 100).map(lambda n: 1 / n), st.floats(0.001, 1), st.integers(1, 4))


@given(
    free=st.lists(FREE, max_size=6),
    gpus=SHARES,
    takes=st.one_of(st.none(), st.integers(1, 60)),
    cpus=st.integers(1, 40),
    memory=st.one_of(st.none(), st.integers(1, 10)),
)
def test_no_gpu_gets_more_than_it_has_and_auto_is_all_that_fits(
    free: list[int | None], gpus: float, takes: int | None, cpus: int, memory: int | None
) -> None:
    given_machine = machine(*free, cpus=cpus, memory=50)
    needs = Needs(threads=2, gpus=gpus, memory_bytes=memory, gpu_memory_bytes=takes)
    # Room counted in another way: by exact fractions, a float's smallest error forgiven.
    per_gpu = [
        min(
            int(1 / Fraction(gpus) + Fraction(1, 10**9)) if gpus <= 1 else 1,
            10**6 if takes is None else (size or 0) // takes,
        )
        for size in free
    ]
    on_gpus = sum(per_gpu) if gpus <= 1 else sum(1 for room in per_gpu if room) // int(gpus)
    fits = min(on_gpus, max(1, cpus // 2), 50 // memory if memory else 10**6)
    if not fits:
        with pytest.raises(ConfigError):
            plan_slots(given_machine, needs, "auto")
        return
    slots = plan_slots(given_machine, needs, "auto")
    assert len(slots) == fits
    assert slots == plan_slots(given_machine, needs, "auto")
    assert [slot.number for slot in slots] == list(range(fits))
    tasks = Counter(gpu.visible_as for slot in slots for gpu in slot.gpus)
    for number, size in enumerate(free):
        assert tasks[str(number)] * min(gpus, 1) <= 1 + 1e-6
        assert takes is None or tasks[str(number)] * takes <= (size or 0)
    assert all(len({gpu.uuid for gpu in slot.gpus}) == max(1, gpus) for slot in slots)
    if gpus <= 1:  # nobody waits on a busy GPU while another has less to do
        with_room = [tasks[str(n)] for n, room in enumerate(per_gpu) if tasks[str(n)] < room]
        assert max(tasks.values()) <= min(with_room, default=10**6) + 1
    with pytest.raises(ConfigError):  # a number may oversubscribe the processors, but no GPU
        plan_slots(given_machine, needs, on_gpus + 1)
