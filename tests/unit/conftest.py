"""A machine with GPUs, as far as nvidia-smi can tell; a small disk; environments of packages."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOUR_GPUS = (
    "0, GPU-aaaa0000-1, NVIDIA A100-SXM4-80GB, 81920, 80000",
    "1, GPU-bbbb1111-2, NVIDIA A100-SXM4-80GB, 81920, 40000",
    "2, GPU-cccc2222-3, NVIDIA L4, 23034, 22000",
    "3, GPU-cccc3333-4, NVIDIA L4, 23034, 9000",
)
ASKED = "--query-gpu=index,uuid,name,memory.total,memory.free --format=csv,noheader,nounits"


@pytest.fixture(scope="session", autouse=True)
def environments_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDPKG_ENVIRONMENTS", str(tmp_path_factory.getbasetemp() / "environments"))
        yield


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """The command line sends fedpkg's log to standard error, where caplog does not see it."""
    logger = logging.getLogger("fedpkg")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an nvidia-smi first on PATH that lists these GPUs (by default four) or does what ``script`` says."""
    folder = tmp_path / "Treiber und mehr ü"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(*lines: str, script: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        words = " ".join(map(shlex.quote, lines or FOUR_GPUS))
        code = script or f"""[ "$*" = "{ASKED}" ] && printf '%s\\n' {words}"""
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{code}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a disk of 12 MB."""
    folder = tmp_path / "kleine Platte ü"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
