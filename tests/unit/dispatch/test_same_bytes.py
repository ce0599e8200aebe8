"""A reply is the same bytes in every executor, at one thread and at two, though the client seeds nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from workbench import Bench, inline, log, make_bench, unpacked

from fedpkg.dispatch.site import PackageOnDisk
from fedpkg.rules import variables_of
from fedpkg.types import ReplyKind

EXECUTORS = ("process", "forkserver", "resident")

# Sums in another order differ in their last bits: the numbers of threads, and kernels, show in the bytes.
MATMUL = """
import numpy as np
a, b = np.random.rand(700, 900), np.random.rand(900, 800)
w = np.linalg.solve(a[:, :700] @ b[:700, :700], a @ b)
np.savez(sys.argv[1], w=w, x=np.random.permutation(7))
"""


@contextmanager
def benches(package: PackageOnDisk, folder: Path) -> Iterator[list[Bench]]:
    """One for each executor."""
    with ExitStack() as closing:
        made = [make_bench(name, folder, package, slots=1) for name in EXECUTORS]
        for bench in made:
            closing.callback(bench.executor.close)
        yield made


def replies(
    benches: list[Bench], package: PackageOnDisk, entry_point: str, threads: int, *, all_twice: bool, **fields: object
) -> list[bytes]:
    """The bytes of two replies of each executor; unless ``all_twice``, of one from a new interpreter or of a build."""
    found = []
    for bench in benches:
        for _ in range(2 if all_twice or (bench.name != "process" and entry_point != "build") else 1):
            result = bench.run(package, entry_point, threads=threads, seed=1234, **fields)
            assert result.reply is not None, (result.failure, log(result))
            metadata = result.reply.with_name(f"{result.reply.name}-metadata")
            found.append(result.reply.read_bytes() + (metadata.read_bytes() if metadata.exists() else b""))
    return found


TWICE = pytest.mark.parametrize("all_twice", [False, True], ids=["few", "all twice"])


@pytest.mark.slow
@TWICE
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.every_push("2-few")
def test_training_with_torch_gives_the_same_bytes(tmp_path: Path, threads: int, all_twice: bool) -> None:
    package = unpacked("random-draws", tmp_path)
    with benches(package, tmp_path) as made:
        seeds = replies(made, package, "build", threads, all_twice=all_twice, reply_kind=ReplyKind.SEED)
        assert len(set(seeds)) == 1
        (tmp_path / "seed.npz").write_bytes(seeds[0])
        updates = replies(made, package, "train", threads, all_twice=all_twice, model=tmp_path / "seed.npz")
    assert len(set(updates)) == 1
    assert f'"threads": {threads}'.encode() in updates[0]


@pytest.mark.slow
@TWICE
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.every_push("2-few")
def test_linear_algebra_of_numpy_gives_the_same_bytes(tmp_path: Path, threads: int, all_twice: bool) -> None:
    package = inline(tmp_path, MATMUL)
    with benches(package, tmp_path) as made:
        found = replies(made, package, "validate", threads, all_twice=all_twice, reply_kind=ReplyKind.SEED)
    assert len(set(found)) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_uses_the_threads_it_may(bench: Bench, tmp_path: Path, threads: int) -> None:
    code = """
    import numpy as np
    a = np.ones((600, 600))
    a @ a
    tell(threads=len(os.listdir("/proc/self/task")))
    """
    assert bench.told(numpy_package(tmp_path, code), threads=threads) == {"threads": threads}


def test_numpy_uses_the_threads_that_the_script_sets_before_its_import(bench: Bench, tmp_path: Path) -> None:
    code = """
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "2"
    import numpy as np
    np.ones((600, 600)) @ np.ones((600, 600))
    tell(threads=len(os.listdir("/proc/self/task")), variable=os.environ["OMP_NUM_THREADS"])
    """
    package = dataclasses.replace(inline(tmp_path, code), digest="inline with numpy at 2")
    assert bench.told(package, threads=1) == {"threads": 2, "variable": "2"}


IMPORTS_THAT_DRAW = """
import drawing
import random
import {module}
start = random.random()
import own
values = [random.random(), float({draw})]
def later():
    import importlib
    importlib.import_module("drawing_" + "later")
later()
tell(start=start, values=[*values, random.random(), float({draw})])
"""


@pytest.mark.parametrize(
    ("module", "draw"),
    [("numpy", "numpy.random.rand()"), pytest.param("torch", "torch.rand(1)", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.every_push("numpy|forkserver")
def test_installed_modules_that_draw_when_they_are_imported_change_no_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, module: str, draw: str
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    for name in ("drawing", "drawing_later"):
        (installed / f"{name}.py").write_text(f"import random, {module}\nrandom.random()\n{draw}\n")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    code = IMPORTS_THAT_DRAW.format(module=module, draw=draw)
    package = inline(tmp_path, code, own__py="import random\nrandom.seed(3)\n")  # its own seed counts
    bench = make_bench(executor, tmp_path, package, slots=1)
    try:
        told = [bench.told(package, seed=1234) for _ in range(2)]
        former = bench.told(package, seed=1234, environment=variables_of(5))
    finally:
        bench.executor.close()
    drawn = np.random.RandomState(1234).rand if module == "numpy" else torch_draws(1234)
    own = random.Random(3)
    values = [own.random(), drawn(), own.random(), drawn()]
    assert told == [{"start": random.Random(1234).random(), "values": values}] * 2
    if executor != "resident":  # which has imported the modules by then
        assert former != told[0], "sessions of older rules keep their draws"


def torch_draws(seed: int) -> Callable[[], float]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return lambda: float(torch.rand(1, generator=generator))


def numpy_package(folder: Path, code: str) -> PackageOnDisk:
    package = inline(folder, code)
    return PackageOnDisk("inline with numpy", package.root, package.folder, package.spec)
